"""The table that turns evidence into log-odds: numbers with their reasons, in ``data/``."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec


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


class Ramp(msgspec.Struct, frozen=True):
    """Log-odds as a clipped line in a statistic: ``slope * (threshold - x)``, within [floor, cap]."""

    threshold: float
    slope: float
    floor: float
    cap: float
    because: str

    def at(self, statistic: float) -> float:
        """Return the log-odds for LayerNorm; a lower statistic is a deeper shadow."""
        return min(max(self.slope * (self.threshold - statistic), self.floor), self.cap)


class KernelCommon(msgspec.Struct, frozen=True):
    """When a missing shadow may speak, and when no shadow may."""

    enough_matrices: int
    trained_dispersion: tuple[float, float]
    trained_alignment: tuple[float, float]
    trained_scales: tuple[float, float]
    confirming_dispersion: tuple[float, float]
    confirming_alignment: tuple[float, float]
    too_high: float
    deficit_share: float
    rewritten_below: float
    because: str

    def trained(self, dispersion: float, alignment: float, scale_spread: float | None) -> float:
        """Return how far the weights are from initialisation, from 0 (untrained or unknown) to 1.

        Spread scales count only with a lesser sign in the matrices: scales alone are easily set by hand.
        """
        confirmed = max(_ramp(dispersion, *self.confirming_dispersion), _ramp(alignment, *self.confirming_alignment))
        return max(
            _ramp(dispersion, *self.trained_dispersion),
            _ramp(alignment, *self.trained_alignment),
            min(_ramp(scale_spread or 0.0, *self.trained_scales), confirmed),
        )


def _ramp(value: float, start: float, end: float) -> float:
    return min(max((value - start) / (end - start), 0.0), 1.0)


class Weights(msgspec.Struct, frozen=True):
    """The whole table."""

    version: str
    about: str
    abstain_below: float
    contradiction_from: float
    total_cap: float
    suspicious_cap: float
    total_because: str
    operators: Weight
    architecture: Weight
    epsilon_key: EpsilonKeys
    shift: ShiftWeights
    kernel_roles: Ramp
    kernel_shapes: Ramp
    kernel_common: KernelCommon


@cache
def load_weights() -> Weights:
    """Return the table that is shipped with this version."""
    text = resources.files("normsniff").joinpath("data/calibration-v0.json").read_bytes()
    return msgspec.json.decode(text, type=Weights)
