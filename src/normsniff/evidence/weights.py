"""The table that turns evidence into log-odds: numbers with their reasons, in ``data/``."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec

MIXED_SHARE = 0.15
"""Smallest share of the minority among a stream's norms that makes it mixed; below, odd norms are exceptions
(a final norm, an embedding norm, one projector)."""


class Weight(msgspec.Struct, frozen=True):
    """A fixed log-odds for a sort of claim."""

    weight: float
    because: str


class EpsilonKeys(msgspec.Struct, frozen=True):
    """Log-odds for LayerNorm by the name of the epsilon in a configuration."""

    LayerNorm: dict[str, float]
    because: str


class ShiftWeights(msgspec.Struct, frozen=True):
    """Log-odds for a stored shift, for shifts that are all zero, and for the lack of one."""

    present: float
    zero: float
    absent: float
    because: str


class Fitted(msgspec.Struct, frozen=True):
    """A fitted kernel model: log-odds = intercept + Σ coefficient · term, within ±cap; see `features.terms`."""

    intercept: float
    coefficients: dict[str, float]
    cap: float
    because: str


class Forensics(msgspec.Struct, frozen=True):
    """From where on the weights look tampered with."""

    too_high: float
    rewritten_below: float
    because: str


class Corpus(msgspec.Struct, frozen=True):
    """What the kernel models were fitted on: SHA-256 of the table's text, and its size."""

    sha256: str
    runs: int
    rows: int


class Weights(msgspec.Struct, frozen=True):
    """The whole table."""

    version: str
    about: str
    abstain_below: float
    contradiction_from: float
    total_cap: float
    suspicious_cap: float
    against_kernel: float
    total_because: str
    operators: Weight
    architecture: Weight
    epsilon_key: EpsilonKeys
    shift: ShiftWeights
    corpus: Corpus
    kernel_roles: Fitted
    kernel_shapes: Fitted
    kernel_common: Forensics


@cache
def load_weights() -> Weights:
    """Return the table that is shipped with this version."""
    text = resources.files("normsniff").joinpath("data/calibration-v1.json").read_bytes()
    return msgspec.json.decode(text, type=Weights)
