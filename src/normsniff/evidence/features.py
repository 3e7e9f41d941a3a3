"""The numbers that the calibrated kernel test is fitted on and evaluated with: the same code in both places.

All are made from the shadows of one component and the spread of its scales. Each has one line in `DESCRIPTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

_LOWEST, _HIGHEST = -4.0, 1.5
"""Clips of ln ρ for one matrix: beyond them a deeper shadow proves no more, and one odd matrix must not decide."""

_CLEAR_Z, _CLEAR_RHO = -2.5, 0.7
"""A matrix clearly lacks energy if its ρ is below 0.7 and 2.5 spreads of the null away from 1."""


class Fact(NamedTuple):
    """What one measured matrix says; the fields are those of `kernel.Shadow`."""

    role: str
    rho: float
    z: float
    dispersion: float
    alignment: float
    d: int


DESCRIPTIONS: dict[str, str] = {
    "writers": "mean of ln ρ over the matrices that write into the stream, each clipped to [-4, 1.5]; 0 without any",
    "readers": "mean of ln ρ along γ⁻¹ over the matrices that read a norm, clipped likewise; 0 without any",
    "middle": "median of ln ρ over the matrices of unknown role, clipped likewise",
    "quartile": "lower quartile of the same: some matrices run along the stream, others only look so",
    "upper": "upper quartile of the same",
    "clear": "share of the matrices that clearly lack energy along the direction (ρ < 0.7 and z < -2.5)",
    "dispersion": "median relative spread of the vectors' squared norms; 0 at initialisation, grows with training",
    "excess": "median of d times the mean squared cosine between the vectors, minus 1; 0 at initialisation for any d",
    "scale_spread": "median std/|mean| of the scales; 0 at initialisation, and where none is stored",
    "has_scales": "1 if any stored vector can be a norm's scale, else 0",
    "matrices": "how many matrices speak, as 1 - 1/(1 + n/6)",
    "width": "ln(d/64): a wide matrix gives a sharper null",
}


def with_roles(facts: Sequence[Fact], scale_spread: float | None) -> dict[str, float] | None:
    """Return the features of a component whose writers or readers are known; None if neither is."""
    writers = [_clipped(f) for f in facts if f.role == "writer"]
    readers = [_clipped(f) for f in facts if f.role == "reader"]
    if not writers and not readers:
        return None
    speaking = [f for f in facts if f.role in ("writer", "reader")]
    return {
        "writers": fmean(writers) if writers else 0.0,
        "readers": fmean(readers) if readers else 0.0,
        **_common(speaking, scale_spread),
    }


def from_shapes(facts: Sequence[Fact], scale_spread: float | None) -> dict[str, float] | None:
    """Return the features of a component of which only the shapes are known; None without matrices."""
    speaking = [f for f in facts if f.role == "unknown"]
    if not speaking:
        return None
    logs = sorted(_clipped(f) for f in speaking)
    return {
        "middle": median(logs),
        "quartile": logs[len(logs) // 4],
        "upper": logs[(3 * len(logs)) // 4],
        **_common(speaking, scale_spread),
    }


def _common(speaking: Sequence[Fact], scale_spread: float | None) -> dict[str, float]:
    return {
        "clear": fmean(f.z < _CLEAR_Z and f.rho < _CLEAR_RHO for f in speaking),
        "dispersion": median(f.dispersion for f in speaking),
        "excess": median(f.alignment * f.d for f in speaking),
        "scale_spread": scale_spread or 0.0,
        "has_scales": 0.0 if scale_spread is None else 1.0,
        "matrices": 1 - 1 / (1 + len(speaking) / 6),
        "width": math.log(speaking[0].d / 64),
    }


def _clipped(fact: Fact) -> float:
    return min(max(math.log(max(fact.rho, 1e-12)), _LOWEST), _HIGHEST)


__all__ = ["DESCRIPTIONS", "Fact", "from_shapes", "with_roles"]
_ = Callable, Mapping
