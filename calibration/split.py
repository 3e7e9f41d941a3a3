"""Which runs no choice may see: whole families, whole optimisers, and by number some of the rest; half of all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_FAMILIES, _OPTIMISERS, _REST = 0.25, 0.3, 0.2
"""Shares: of families (a class, or for the own network a norm with a placement), optimisers, and the other runs."""
_EVERYWHERE = "adamw"
"""Trains nearly all files that there are, and a third of the runs: never held out whole."""


def held(run: Mapping[str, Any]) -> bool:
    """Whether a run (a row of the table) is held out of all choices until the last fit."""
    family = f"{run['norm']}/{run['placement']}" if run["source"] == "own" else str(run["name"])
    return (
        _share("family", family) < _FAMILIES
        or (run["optimiser"] != _EVERYWHERE and _share("optimiser", str(run["optimiser"])) < _OPTIMISERS)
        or _share("run", str(run["run"])) < _REST
    )


def _share(what: str, name: str) -> float:
    """Return a number in [0, 1) that hangs on the name alone."""
    return int.from_bytes(hashlib.sha256(f"normsniff {what} {name}".encode()).digest()[:6]) / 2**48
