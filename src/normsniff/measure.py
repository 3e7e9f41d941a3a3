"""Anatomy and bytes to numbers: which matrices to sample, in order of value, within a budget of bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import decode, kernel
from .anatomy.parts import Anatomy, Matrix, Site
from .devices import Device, mover
from .errors import NormsniffError
from .formats.checkpoint import UNITS, TensorInfo
from .limits import Limits

Float64 = NDArray[np.float64]
Direction = Literal["ones", "inverse-scale"]

DEFAULT_BUDGET = 64_000_000
"""Bytes of matrices read by default: under half a percent of a 7-billion-parameter model in BF16."""

VECTORS = 1024
"""Vectors sampled at least: independent ones give ρ a relative standard error of sqrt(2/1024) = 4.4 %."""

_TARGET_ERROR = 0.05
_MOST_VECTORS = 4 * VECTORS
_MAX_MATRICES = {"writer": 12, "reader": 8, "unknown": 24, "embedding": 1, "unembedding": 1, "position": 1}
"""Matrices a component by default. ln ρ scatters by 0.04 between the writers of SmolLM2 and by 0.4 between those of
MiniLM, so that the mean over 12 has a standard error of at most 0.12, a tenth of the distance between the norms."""

_MAX_UNNAMED = 48
"""Vectors read to tell trained from untrained where nothing is named; their median needs no more."""

_LEAST_COORDINATES = 4
"""A direction carried by fewer coordinates than this (its participation ratio) has no statistical power."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One matrix and its shadow along one direction."""

    matrix: Matrix
    direction: Direction
    shadow: kernel.Shadow


@dataclass(frozen=True, slots=True)
class Vectors:
    """Scales and shifts, decoded.

    Attributes:
        scales: effective γ by site index, float64 of shape (d,).
        shifts: β by site index, float64 of shape (d,).
        scale_spread: median of std/|mean| over the scales, how far training has moved them apart; None without any.
        notes: what was not read, and why.
    """

    scales: Mapping[int, Float64]
    shifts: Mapping[int, Float64]
    scale_spread: float | None = None
    notes: tuple[str, ...] = ()


def read_vectors(anatomy: Anatomy, limits: Limits) -> Vectors:
    """Read the scale and the shift of every site; those that cannot be decoded are named in the notes.

    Where sites are unknown, the vectors of the stream's width are read instead (a sample of them), for their spread.
    """
    scales: dict[int, Float64] = {}
    shifts: dict[int, Float64] = {}
    notes: list[str] = []
    for index, site in enumerate(anatomy.sites):
        if site.scale is not None and (scale := _vector(site.scale, limits, notes)) is not None:
            scales[index] = scale + site.offset
        if site.shift is not None and (shift := _vector(site.shift, limits, notes)) is not None:
            shifts[index] = shift
    unnamed = [anatomy.vectors[i] for i in islice(decode.spread(len(anatomy.vectors)), _MAX_UNNAMED)]
    candidates = [*scales.values(), *(v for t in unnamed if (v := _vector(t, limits, notes)) is not None)]
    return Vectors(scales, shifts, _scale_spread(candidates), tuple(notes))


def _scale_spread(vectors: Sequence[Float64]) -> float | None:
    """Return the median of std/|mean| over the vectors that lie off zero: scales do, shifts and biases do not."""
    spreads = [
        float(v.std() / abs(v.mean()))
        for v in vectors
        if v.size and np.isfinite(v).all() and abs(v.mean()) > 2 * v.std()
    ]
    return median(spreads) if spreads else None


def measure(
    anatomy: Anatomy,
    scales: Mapping[int, Float64],
    budget: int | None = DEFAULT_BUDGET,
    device: Device = "cpu",
    vectors: int | None = None,
) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """Sample the matrices of `anatomy` and return their shadows, and notes on what was left out.

    Args:
        anatomy: what to sample.
        scales: effective γ by site index; a reader is tested along γ⁻¹ where it is known, else along **1**.
        budget: bytes of matrices to read at most; None reads every matrix whole.
        device: where the samples are multiplied.
        vectors: sample so many of every matrix (rounded up to whole blocks) instead of going on until ρ is sharp.
    """
    move = mover(device)
    measured: list[Measured] = []
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    spent = 0
    for matrix in _in_order_of_value(anatomy.matrices, complete=budget is None):
        cost = _bytes_of(matrix, vectors or VECTORS)
        if budget is not None and spent + cost > budget:
            if not measured:
                notes.append(f"the budget of {budget:,} bytes is too small for one matrix sample ({cost:,} bytes)")
            break
        direction, name, note = _direction(matrix, anatomy.sites, scales)
        if direction is None:
            left_out[note] += 1
            continue
        try:
            shadow, read = _sample(matrix, direction, None if budget is None else budget - spent, move, vectors)
        except NormsniffError as error:
            notes.append(f"not sampled: {error}")
            continue
        spent += read
        if shadow is None or shadow.rho is None or not math.isfinite(shadow.rho):
            left_out["all sampled values are zero, or some are not finite"] += 1
            continue
        measured.append(Measured(matrix, name, shadow))
    notes += [f"{n} {'matrix' if n == 1 else 'matrices'} not measured: {why}" for why, n in left_out.items()]
    return tuple(measured), tuple(notes)


def _vector(tensor: TensorInfo, limits: Limits, notes: list[str]) -> Float64 | None:
    try:
        return decode.read(tensor, limits).reshape(-1).astype(np.float64)
    except NormsniffError as error:
        notes.append(f"not read: {error}")
        return None


def _direction(
    matrix: Matrix, sites: Sequence[Site], scales: Mapping[int, Float64]
) -> tuple[Float64 | None, Direction, str]:
    """Return the direction to test, its name, and why there is none."""
    d = matrix.tensor.shape[matrix.axis]
    ones = np.full(d, 1 / math.sqrt(d))
    if matrix.role not in ("reader", "unembedding") or matrix.site is None:
        return ones, "ones", ""
    if sites[matrix.site].scale is None:
        return ones, "inverse-scale", ""  # no scale: γ = 1
    scale = scales.get(matrix.site)
    if scale is None or scale.shape != (d,):
        return None, "inverse-scale", "the scale of the norm that it reads is not known"
    if not np.all(np.isfinite(scale)):
        return None, "inverse-scale", "the scale of the norm that it reads is not finite"
    dead = kernel.dead_direction(scale)
    if dead.vector is None:
        return None, "inverse-scale", "the scale of the norm that it reads has zeros: the dead direction is degenerate"
    if dead.power * d < _LEAST_COORDINATES:
        return None, "inverse-scale", "the scale of the norm that it reads has near-zero entries: no statistical power"
    return dead.vector, "inverse-scale", ""


def _sample(
    matrix: Matrix, direction: Float64, allowance: int | None, move: Callable[[Any], Any], count: int | None
) -> tuple[kernel.Shadow | None, int]:
    """Sample one matrix until ρ is sharp enough, the allowance of bytes is spent, or the matrix ends (no allowance).

    With a `count`, that many vectors are enough however sharp ρ is.

    Returns the shadow and the bytes read.
    """
    shadow: kernel.Shadow | None = None
    along = move(direction)
    for block in decode.vectors(matrix.tensor, matrix.axis):
        with np.errstate(all="ignore"):  # a damaged weight gives inf or NaN, which the caller sees in ρ
            part = kernel.shadow(move(block), 1, along)
        shadow = part if shadow is None else shadow + part
        if count is not None and shadow.vectors >= count:
            break
        if allowance is None or shadow.vectors < VECTORS:
            continue
        error = shadow.relative_error
        sharp = error is not None and error <= _TARGET_ERROR
        if sharp or shadow.vectors >= _MOST_VECTORS or _bytes_of(matrix, shadow.vectors + part.vectors) > allowance:
            break
    return shadow, _bytes_of(matrix, shadow.vectors if shadow else 0)


def _bytes_of(matrix: Matrix, count: int) -> int:
    tensor = matrix.tensor
    elements, unit = UNITS.get(tensor.dtype, (1, 1))
    return min(count * tensor.shape[matrix.axis], tensor.size) * unit // elements


def _in_order_of_value(matrices: Sequence[Matrix], complete: bool) -> Iterator[Matrix]:
    """Yield matrices so that any prefix is a fair sample: writers first, layers spread over the depth."""
    groups: dict[tuple[str, str], list[Matrix]] = {}
    for matrix in matrices:
        if decode.is_decodable(matrix.tensor.dtype):
            groups.setdefault((matrix.component, matrix.role), []).append(matrix)
    queues = []
    for (_, role), members in groups.items():
        spread = [members[i] for i in decode.spread(len(members))]
        queues.append((_MAX_MATRICES[role], spread if complete else spread[: _MAX_MATRICES[role]]))
    # Round by round: as many of every group as its share of the largest group asks for.
    rounds = max((cap for cap, _ in queues), default=0)
    for step in range(rounds):
        for cap, members in queues:
            per_round = len(members) / rounds if complete else cap / rounds
            yield from members[math.floor(step * per_round) : math.floor((step + 1) * per_round)]
