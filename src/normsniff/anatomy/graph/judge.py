"""Which norm turns x into y, from the numbers alone.

Every index of every axis of x has its own scale and its own offset, so that one comparison says it all: y is k·x/rms(x)
or k·(x - mean(x))/std(x) along an axis with *one* k for everything. That holds the behaviour under added constants and
factors, the constant mean square, and "pools over this axis only"; and it fails where something invariant, but no
norm, is applied as well (a Relu before it, a mixing matrix).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ... import meter
from ..parts import NormKind
from .arithmetic import Numbers

_TOLERANCE = 4e-3
"""Of the largest value: ε, and the variance that divides by n - 1 in rows of different lengths, stay below; the next
nearest functions (a Relu or a mixing matrix before it) are above 0.1."""
_AXES = 30  # steps of comparing along some axes of a handful of numbers
_LEAST = 3  # of two numbers every LayerNorm makes ±1: that says nothing


class Match(NamedTuple):
    """What y is of x.

    Attributes:
        kind: of norm.
        n: how many numbers are pooled.
        factor: k.
        axes: normalised axes of y, from the end; None where y is laid out in another way than x.
        source_axes: those of x.
    """

    kind: NormKind
    n: int
    factor: float
    axes: tuple[int, ...] | None
    source_axes: tuple[int, ...]


def sample(shape: tuple[int, ...], scale: float, seed: int) -> Numbers:
    """Return numbers with an own scale and an own offset for every index of every axis."""
    rng = np.random.default_rng(seed)
    spread, offset = np.full((1,) * len(shape), scale), np.full((1,) * len(shape), 0.7)
    for axis, n in enumerate(shape):
        along = [n if axis == other else 1 for other in range(len(shape))]
        spread = spread * np.exp(0.3 * rng.standard_normal(along))
        offset = offset + 0.3 * rng.standard_normal(along)
    return np.asarray(spread * (rng.standard_normal(shape) + offset))


def contrast(x: Numbers, seed: int) -> Numbers:
    """Return another sample, three times as large: what minds a factor takes another k there.

    Where all is pooled, one k fits whatever scales it. Two samples of one size agree by chance in 0.8 % of draws, where
    x itself then passes for its norm; with this one never. Of a single token the sample has a heavy tail, too, as sums
    of absolute values hardly scatter: x / ‖x‖₁ passed in 4 to 12 % of draws and does in 0.2 to 1.5 %. That tail is
    negative, so that no Relu leaves it as it is.
    """
    other = sample(x.shape, 1.0, seed)
    if max(x.shape) == x.size:
        other = -np.exp(other / np.sqrt(np.square(other).mean()))
    return np.asarray(other * (3 * np.sqrt(np.square(x).mean() / np.square(other).mean())))


def judge(x: Numbers, y: Numbers) -> Match | None:
    """Return which norm of x the value y is, or None if it is none."""
    if y.dtype.kind != "f" or not np.isfinite(y).all():
        return None
    for perm in _orders(x.ndim):
        moved = x.transpose(perm)
        laid = _laid_out(moved, y, plain=perm == tuple(range(x.ndim)))
        if laid is None:
            continue
        squares = np.square(laid)
        for axes in _pooled(moved.ndim):
            meter.charge(_AXES, "looking for norms")
            sizes = squares.mean(axis=axes)
            if np.ptp(sizes) > 4 * _TOLERANCE * sizes.max():  # a norm gives every token the same size
                continue
            found = _compare(moved, laid, axes)
            if found is None:
                continue
            kind, n, factor = found
            long = tuple(a for a in axes if moved.shape[a] > 1)
            same = moved.shape == y.shape or y.size != x.size
            return Match(
                kind, n, factor, tuple(a - y.ndim for a in long) if same else None, tuple(perm[a] for a in long)
            )
    return None


def agree(first: Match | None, second: Match | None) -> bool:
    """Whether a sample and its `contrast` show one norm."""
    if first is None or second is None:
        return False
    return first.kind == second.kind and abs(second.factor / first.factor - 1) < _TOLERANCE


def _orders(rank: int) -> Iterator[tuple[int, ...]]:
    if rank <= 4:  # 24 orders; more axes than that are windows, whose tokens are not transposed inside of a norm
        yield from itertools.permutations(range(rank))
    else:
        yield tuple(range(rank))


def _pooled(rank: int) -> list[tuple[int, ...]]:
    """Return the sets of axes that a norm may pool: any single one, or the last ones."""
    return sorted({(a,) for a in range(rank)} | {tuple(range(a, rank)) for a in range(rank)}, key=lambda a: (len(a), a))


def _laid_out(x: Numbers, y: Numbers, *, plain: bool) -> Numbers | None:
    """Return y in the layout of x: as it is, reshaped, or the first part of it (the norm of [x, -x])."""
    if x.shape == y.shape:
        return y
    if plain and y.size == x.size:
        return y.reshape(x.shape)
    if x.ndim != y.ndim:
        return None
    longer = [a for a in range(x.ndim) if x.shape[a] != y.shape[a]]
    if len(longer) != 1 or y.shape[longer[0]] % x.shape[longer[0]]:
        return None
    return np.take(y, range(x.shape[longer[0]]), longer[0])


def _compare(x: Numbers, y: Numbers, axes: tuple[int, ...]) -> tuple[NormKind, int, float] | None:
    n = math.prod(x.shape[a] for a in axes)
    if n < _LEAST:
        return None
    kinds: tuple[tuple[NormKind, Numbers], ...] = (
        ("LayerNorm", x - x.mean(axis=axes, keepdims=True)), ("RMSNorm", x),
    )  # fmt: skip
    found: list[tuple[float, NormKind, float]] = []
    for kind, base in kinds:
        root = np.sqrt(np.square(base).mean(axis=axes, keepdims=True))
        if not root.all():
            continue
        unit = base / root
        factor = float((y * unit).sum() / x.size)  # the mean square of `unit` is 1
        off = float(np.abs(y - factor * unit).max())
        if abs(factor) > 1e-9 and off <= _TOLERANCE * abs(factor) * np.abs(unit).max():
            found.append((off, kind, abs(factor)))
    if not found:
        return None
    _, kind, factor = min(found)  # the nearer one: where the mean of a sample is next to nothing, both fit
    return kind, n, factor
