"""normsniff: LayerNorm or RMSNorm? Read from the model file alone.

>>> import normsniff
>>> normsniff.sniff("model.gguf").label  # doctest: +SKIP
'RMSNorm'

Everything here is imported on first use: ``import normsniff`` itself loads neither numpy nor any format library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .direction import directions
    from .errors import DeviceError, FormatError, LimitExceeded, MissingExtra, NormsniffError, OutputError, SourceError
    from .limits import Limits
    from .monitoring import Monitor, monitor
    from .penalties import Penalty, penalty
    from .pipeline import sniff
    from .readouts import readout
    from .record import Classification, json_schema
    from .tracking import track

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "DeviceError",
    "FormatError",
    "LimitExceeded",
    "Limits",
    "MissingExtra",
    "Monitor",
    "NormsniffError",
    "OutputError",
    "Penalty",
    "SourceError",
    "directions",
    "json_schema",
    "monitor",
    "penalty",
    "readout",
    "sniff",
    "track",
]

_HOMES = {
    "Classification": "record",
    "DeviceError": "errors",
    "FormatError": "errors",
    "LimitExceeded": "errors",
    "Limits": "limits",
    "MissingExtra": "errors",
    "Monitor": "monitoring",
    "NormsniffError": "errors",
    "OutputError": "errors",
    "Penalty": "penalties",
    "SourceError": "errors",
    "directions": "direction",
    "json_schema": "record",
    "monitor": "monitoring",
    "penalty": "penalties",
    "readout": "readouts",
    "sniff": "pipeline",
    "track": "tracking",
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
