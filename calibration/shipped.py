"""What the wheel ships: the fits of both views, from which confidence on each answers alone, and the counted rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import counts
from .fit import OUT, VIEWS, fit, save, speaking
from .table import TABLE, digest, load
from .validate import answer_from


def contents(table: Path = TABLE) -> dict[str, Any]:
    """Return the fitted sections of the shipped file, and what they were fitted on."""
    rows = load(table)
    judged = {r["run"] for r in speaking(rows, "roles") if r["truth"] != "neither"}
    found: dict[str, Any] = {
        "corpus": {
            "sha256": digest(table), "runs": len({r["run"] for r in rows}), "rows": len(rows), "judged": len(judged)
        }
    }  # fmt: skip
    for view in VIEWS:
        heard = speaking(rows, view)
        one = fit(heard, view)
        found[f"kernel_{view}"] = {
            "intercept": round(one.intercept, 4),
            "coefficients": {name: round(value, 4) for name, value in one.coefficients.items()},
            "cap": round(one.cap, 4),
            "answer_from": answer_from(heard, view),
        }
    return found


def write() -> None:
    """Replace what is fitted and counted in the shipped file; what was chosen stays."""
    shipped = json.loads(OUT.read_text())
    for name, section in contents().items():
        shipped[name] = {**shipped.get(name, {}), **section}
    counts.update(shipped)
    save(shipped)
