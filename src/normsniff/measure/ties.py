"""What the numbers alone say of a matrix's place: along which axis, and beside which norm, its energy follows a scale.

Training moves a scale γ and the matrices beside it together: a coordinate of the stream that carries more has a larger
(or, in other models, a smaller) γ, and every matrix that reads or writes it has more or less energy there. So along the
residual axis of a matrix the energies per coordinate are correlated with the scales, and along any other axis they are
not. Signs differ between models, and none is assumed.

Half the logarithm of the mean square per coordinate and ln|γ| are compared after normal scores (van der Waerden), which
no single odd coordinate can carry. With S scales the largest of the correlations of an axis that has nothing to do with
them is about √(2 ln(2S)/d) by chance: that is the unit of `tie`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..kernel.namespaces import to_numpy

Float64 = NDArray[np.float64]

TIED, RATIO = 1.5, 2.0
"""An axis is taken for the residual one from such a tie on, if the other axis has half of it at most. On the runs of
the calibration corpus that choices may see, 165 of 909 square matrices were decided so, 96.4 % of them rightly; half of
the wrong ones stand before a norm of queries and keys that is as wide as the stream. Docs/kernel.md has the others."""

_FEWEST = 4
"""Fewer scales than these are taken for as many: for one the formula is exceeded by half once in thirteen."""

MOST_SCALES = 48
"""Scales compared: more add nothing, and cost."""


def scores(values: Float64) -> Float64:
    """Return normal scores of values, shape (d,), mean 0 and mean square 1; equal values share one."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared = np.bincount(at, _quantiles(len(values))[np.argsort(np.argsort(values, kind="stable"))]) / counts
    found = shared[at]
    size = float(np.sqrt((found * found).mean()))
    return np.asarray(found / size if size > 0 else found, np.float64)


@lru_cache(maxsize=4)
def _quantiles(d: int) -> Float64:
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / d) for i in range(d)])


def scored(scales: Sequence[Float64], d: int) -> Float64:
    """Return the scores of ln|γ| of every scale of length d that is not constant, shape (S, d); of the first 48."""
    fit = [s for s in scales if s.shape == (d,) and np.isfinite(s).all() and np.all(s != 0) and float(s.std()) > 0]
    meter.charge(20 + d * len(fit[:MOST_SCALES]) // 10, "comparing scales")
    return np.array([scores(np.log(np.abs(s))) for s in fit[:MOST_SCALES]]).reshape(-1, d)


def energy(vectors: Sequence[Any]) -> Float64:
    """Return the scores of the mean square per coordinate of vectors: blocks of shape (n, d), of any library."""
    blocks = [np.asarray(to_numpy(block), np.float64) for block in vectors]
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum([np.einsum("ij,ij->j", block, block) for block in blocks], axis=0)
    return scores(np.log(total + np.finfo(np.float64).tiny))


def tie(found: Float64, scales: Float64) -> float:
    """Return the largest correlation with any scale in units of what chance gives; 0 without a scale.

    Args:
        found: scores of energies, shape (d,).
        scales: scores of scales, shape (S, d).
    """
    if not len(scales):
        return 0.0
    d = len(found)
    chance = np.sqrt(2 * np.log(2 * max(len(scales), _FEWEST)) / d)
    return float(np.abs(scales @ found).max() / d / chance)


def residual(first: float, second: float) -> int | None:
    """Return which of two axes runs along the stream, by their ties: 0, 1, or None if they do not tell."""
    high, low = max(first, second), min(first, second)
    return None if high < TIED or high < RATIO * low else int(second > first)


def own(found: Sequence[Float64], slots: Sequence[Sequence[Float64]]) -> list[float]:
    """Return how much the energies of matrices at one place of every block are tied to each slot of scales.

    Energies are regressed on all scales together, so that what all scales of a stream have in common counts for none;
    of the t-statistic of each slot's own scale the mean square over the blocks is returned. Of slots, the one that a
    matrix stands beside has the largest, and where it exceeds the next by a factor of three it was never seen to err.

    Args:
        found: scores of the energies of one matrix a block, each of shape (d,).
        slots: of every slot one scale's scores a block; the slots of all blocks together must be fewer than d.

    Raises:
        ValueError: there are too many scales to tell them apart.
    """
    every = np.array([one for slot in slots for one in slot])
    count, d = every.shape
    if count >= d - 1:
        raise ValueError(f"{count} scales cannot be told apart in {d} coordinates")
    inverse = np.linalg.pinv(every @ every.T)
    squares = np.zeros((len(slots), len(found)))
    for block, energies in enumerate(found):
        slopes = inverse @ (every @ energies)
        rest = float(np.sum((energies - slopes @ every) ** 2)) / (d - count)
        t = slopes / np.sqrt(np.maximum(rest * np.diag(inverse), 1e-30))
        squares[:, block] = t.reshape(len(slots), -1)[:, block] ** 2
    return [float(row.mean()) for row in squares]
