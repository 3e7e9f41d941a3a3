"""normsniff: LayerNorm or RMSNorm? Read from the model file alone.

>>> import normsniff
>>> normsniff.sniff("model.gguf").label  # doctest: +SKIP
'RMSNorm'

Everything here is imported on first use: ``import normsniff`` itself loads neither numpy nor any format library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .batch.answers import sniff_many
    from .batch.lake import scan
    from .checks.findings import Report
    from .dead.directions import directions
    from .dead.pruning import prune
    from .dead.readouts import readout
    from .errors import (
        DeviceError,
        FormatError,
        LimitExceeded,
        MissingExtra,
        NormsniffError,
        OutputError,
        Refused,
        SourceError,
        WorkerError,
    )
    from .kernel.penalty import penalty
    from .limits import Limits
    from .measure.plan import Plan
    from .parameters import NormParameters, Norms, norms
    from .pipeline import check, plan, sniff
    from .record import Classification, Duplicate, Failure, Finding, json_schema
    from .training.monitoring import Monitor, monitor
    from .training.penalties import Penalty
    from .training.tracking import track
    from .workers import Workers


__all__ = [
    "Classification",
    "DeviceError",
    "Duplicate",
    "Failure",
    "Finding",
    "FormatError",
    "LimitExceeded",
    "Limits",
    "MissingExtra",
    "Monitor",
    "NormParameters",
    "Norms",
    "NormsniffError",
    "OutputError",
    "Penalty",
    "Plan",
    "Refused",
    "Report",
    "SourceError",
    "WorkerError",
    "Workers",
    "check",
    "directions",
    "json_schema",
    "monitor",
    "norms",
    "penalty",
    "plan",
    "prune",
    "readout",
    "scan",
    "sniff",
    "sniff_many",
    "track",
]

_HOMES = {
    "Classification": "record",
    "DeviceError": "errors",
    "Duplicate": "record",
    "Failure": "record",
    "Finding": "record",
    "FormatError": "errors",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "MissingExtra": "errors",
    "Monitor": "training.monitoring",
    "NormParameters": "parameters",
    "Norms": "parameters",
    "NormsniffError": "errors",
    "Plan": "measure.plan",
    "OutputError": "errors",
    "Penalty": "training.penalties",
    "Refused": "errors",
    "Report": "checks.findings",
    "SourceError": "errors",
    "WorkerError": "errors",
    "Workers": "workers",
    "check": "pipeline",
    "directions": "dead.directions",
    "json_schema": "record",
    "monitor": "training.monitoring",
    "norms": "parameters",
    "penalty": "kernel.penalty",
    "prune": "dead.pruning",
    "readout": "dead.readouts",
    "plan": "pipeline",
    "scan": "batch.lake",
    "sniff": "pipeline",
    "sniff_many": "batch.answers",
    "track": "training.tracking",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
