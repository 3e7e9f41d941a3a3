"""How far ρ spreads over the corpus, by role and truth: what a report draws behind the ρ of one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .table import TABLE, digest, load

OUT = Path(__file__).parents[1] / "src/normsniff/data/spread-v1.json"
QUANTILES = (0.05, 0.5, 0.95)
_COLUMNS = {
    "writer": ("roles", "writers"), "reader": ("roles", "readers"), "embedding": ("roles", "embeddings"),
    "unknown": ("shapes", "middle"),
}  # fmt: skip


def spread(table: Path = TABLE) -> dict[str, Any]:
    """Return quantiles of ρ (the mean over a model's matrices of a role) over snapshots of 300 steps and more."""
    rows = [row for row in load(table) if row["step"] >= 300]
    found: dict[str, Any] = {}
    for role, (view, column) in _COLUMNS.items():
        for truth in ("LayerNorm", "RMSNorm"):
            logs = [row[column] for row in rows if row["view"] == view and row["truth"] == truth and column in row]
            values = np.exp(np.quantile(logs, QUANTILES))
            found.setdefault(role, {})[truth] = [round(float(value), 3) for value in values]
    return {"corpus": digest(table), "quantiles": list(QUANTILES), "rho": found}


def write() -> None:
    """Write the file that is shipped."""
    OUT.write_text(json.dumps(spread(), indent=2) + "\n")
