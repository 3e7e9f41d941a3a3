"""What was added to a vector after training, told from its values: a mantissa remembers an addition.

Trained weights lie on the grid of the type that they were saved in. Adding a number in the same or a wider type moves
them off that grid, or along it, in a way that values do not take by themselves. For every value the likelihood of
x = round(y + s), with y on the grid of bfloat16, float16 or float32, is compared with even last bits:

- where that grid is coarser at y than the stored one at x, only one in 2^k stored values can come about so: each that
  does weighs k ln 2, each that does not tells against it (each distinct value once: zeros and clipped values repeat);
- where it is finer by one or two bits, half or a quarter of the sums are ties, which round to even: a last bit of zero
  comes with probability (1 + 2^-k) / 2;
- where both are alike, or further apart, nothing is told.

The stored grid is narrowed first to the bits that the values really use. Where only that of the stored type tells, the
witness is weaker: the average of two bfloat16 copies lies on a grid of one bit more, as the sum of 1 and scales near 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import meter

GridName = Literal["bfloat16", "float16", "float32"]

STEPS = (-1, 1, 2)
"""What may have been added: a scale stored as γ - 1, a converter's 1, the same 1 twice."""

CERTAIN = 15.0
"""Natural log of the likelihood ratio from which a sum is claimed. Over the clean fixtures and real models at hand the
largest is below 5, over additions in float32 or float16 to bfloat16 weights the smallest is 99 (tests/checks)."""

FEWEST = 24
"""Distinct values below which nothing is claimed: a handful may lie on any grid."""

_MOST = 65_536  # distinct values of a group that are looked at
_STEPS = 300  # that a group takes beside its values: twelve sums and grids, twice
_WIDTHS = (8, 11, 24, 53)  # significant bits of bfloat16, float16, float32, float64
_ODD = 0.02  # share of values that came about otherwise: clipped, zeroed, rounded once more
_ON_GRID = 0.99  # of the values, that decide how many bits are in use
_TIES = 2  # bits between the grids up to which rounding to even shows; further apart a slight bias of last bits sums up
_LEAST_EXPONENT = -1074  # of float64
_GRIDS: dict[GridName, tuple[int, int]] = {"bfloat16": (8, -126), "float16": (11, -14), "float32": (24, -126)}
"""Significant bits, and exponent of the smallest normal number."""


@dataclass(frozen=True, slots=True)
class History:
    """What the last bits of a group of values say.

    Attributes:
        added: the number that was added: -1, 1 or 2; 0 if nothing shows.
        log_ratio: natural log of the likelihood of that against nothing added, and of any other sum against nothing
            added where `added` is 0.
        grid: the type that the values had before.
        strong: whether whole grids tell it, measured with the bits that are in use. If not, ties alone do, or the grid
            of the stored type: a second witness is wanted.
        values: distinct values that were looked at.
        bits: significant bits that the stored values use.
        ratios: of every sum in `STEPS`, the likelier of its grids: likelihoods of several groups multiply.
    """

    added: int
    log_ratio: float
    grid: GridName
    strong: bool
    values: int
    bits: int
    ratios: Mapping[int, float]


def history(values: NDArray[np.float64], smallest: float = 0.0) -> History | None:
    """Say what was added to values after they had been trained; None where there are too few to tell.

    Args:
        values: a group of scales as stored, any shape. Those that are not finite, or zero, are left out.
        smallest: spacing of the stored type around zero (2**-24 for float16), where it has one that matters.
    """
    meter.charge(_STEPS + min(values.size, _MOST) // 4 + values.size // 10, "looking for sums in last bits")
    x, times = np.unique(values[np.isfinite(values) & (values != 0)].astype(np.float64), return_counts=True)
    every = -(-x.size // _MOST) or 1
    x, times = x[::every], times[::every]
    if x.size < FEWEST:
        return None
    used = _bits(x)
    bits = int(np.sort(used)[math.ceil(_ON_GRID * used.size) - 1])
    x, times = x[used <= bits], times[used <= bits]
    narrow = _told(x, times, bits, smallest)
    if narrow.added and narrow.strong:
        return narrow
    width = next(n for n in _WIDTHS if n >= bits)
    wide = _told(x, times, width, smallest) if width > bits else narrow
    return replace(max(narrow, wide, key=lambda one: one.log_ratio), bits=bits, strong=False)


def absence(values: NDArray[np.float64], grid: GridName, added: int = 1) -> float:
    """Return how strongly values tell that nothing was added to them, where other values of the model show that it was.

    Values x that still lie on a grid tell it where y = x - `added` does not lie on it, or where the grid is finer at y,
    so that only one sum in 2^k would lie on that of x. Where it is coarser at y, one of 2^k x agrees by chance.

    Args:
        values: as for `history`.
        grid: the type that the other values had before.
        added: what was added to them, in a wider type.

    Returns:
        Natural log of the likelihood of nothing added against `added`; 0 where the values do not lie on the grid.
    """
    kept = values[np.isfinite(values) & (values != 0) & (values != added)].astype(np.float64)
    x, _ = np.unique(kept, return_counts=True)  # without the counts numpy imports its masked arrays, a 20th of a label
    bits, least = _GRIDS[grid]
    if x.size < FEWEST or np.mean(_bits(x) <= bits) < 1 - _ODD:
        return 0.0
    y = x - added
    at, before = (np.maximum(_exponent(one), least) for one in (x, y))
    spacing = np.ldexp(1.0, before - bits + 1)
    return float(np.where(y == np.round(y / spacing) * spacing, (at - before) * np.log(2), -np.log(_ODD)).sum())


def _told(x: NDArray[np.float64], times: NDArray[np.int64], width: int, smallest: float) -> History:
    unit = np.maximum(_exponent(x) - width + 1, np.frexp(smallest)[1] - 1 if smallest else _LEAST_EXPONENT)
    odd = np.round(np.ldexp(x, -unit)) % 2 != 0
    found = {(s, grid): one for s in (0, *STEPS) for grid, one in _log_ratios(x, times, unit, odd, s).items()}
    nothing = max(0.0, *(found[0, grid][0] for grid in _GRIDS))
    ratios = {s: max(found[s, grid][0] for grid in _GRIDS) - nothing for s in STEPS}
    added = max(STEPS, key=lambda s: ratios[s])
    grid = max(_GRIDS, key=lambda grid: found[added, grid][0])
    ratio, strong = ratios[added], found[added, grid][1]
    return History(added if ratio >= CERTAIN else 0, ratio, grid, strong, x.size, width, ratios)


def _log_ratios(
    x: NDArray[np.float64],
    times: NDArray[np.int64],
    unit: NDArray[np.int32],
    odd: NDArray[np.bool_],
    added: int,
) -> dict[GridName, tuple[float, bool]]:
    """Return of every grid the log of the likelihood ratio, and whether it is whole grids that speak, not ties alone.

    Args:
        x: distinct values.
        times: how often each is there.
        unit: log2 of the spacing of the stored grid at each.
        odd: whether each is an odd number of such units.
        added: the sum looked for.
    """
    y = x - added
    if not y.all():
        told = y != 0
        x, y, times, unit, odd = x[told], y[told], times[told], unit[told], odd[told]
    exponent = _exponent(y)
    found: dict[GridName, tuple[float, bool]] = {}
    for grid, (bits, least) in _GRIDS.items():
        spacing = np.maximum(exponent, least) - bits + 1
        apart = spacing - unit
        by_lattice = by_ties = 0.0
        coarse = apart > 0
        if coarse.any():  # of most stored types no grid is
            here, size = y[coarse], np.ldexp(1.0, spacing[coarse])
            # y and s are whole numbers of stored units, so the sum was exact; tiny x vanish beside s in float64
            reached = (here == np.round(here / size) * size) & (here + added == x[coarse])
            by_lattice = float(np.log(np.where(reached, (1 - _ODD) * np.exp2(apart[coarse]) + _ODD, _ODD)).sum())
        fine = (apart < 0) & (apart >= -_TIES)
        if added and fine.any():
            share = np.exp2(apart[fine])
            by_ties = float(np.log(np.where(odd[fine], 1 - share, 1 + share)) @ times[fine])
        found[grid] = by_lattice + by_ties, by_lattice >= CERTAIN
    return found


def _exponent(x: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return floor(log2|x|) of numbers that are not zero."""
    exponent: NDArray[np.int32] = np.frexp(x)[1] - 1
    return exponent


def _bits(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many significant bits each number uses, 1 to 53."""
    whole = np.abs(np.ldexp(np.frexp(x)[0], 53)).astype(np.int64)
    lowest = (whole & -whole).astype(np.float64)  # a power of two, exact
    return 53 - (np.frexp(lowest)[1] - 1).astype(np.int64)
