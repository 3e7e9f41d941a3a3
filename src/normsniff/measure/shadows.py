"""Bytes to numbers: scales and shifts whole, matrices by the samples of a plan, each to its shadow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import median
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import decode, kernel, meter
from ..anatomy.parts import Anatomy, Matrix, Site
from ..checkpoint import TensorInfo
from ..errors import BudgetSpent, NormsniffError
from ..kernel.namespaces import Device, mover, namespace
from ..limits import Limits
from ..source.local import PAGE
from ..source.views import Extent
from . import ties
from .gains import gains
from .samples import DEFAULT_BUDGET, Sample, ahead, prefetch, select, whole

Float64 = NDArray[np.float64]
DirectionName = Literal["ones", "inverse-scale"]

_MAX_UNNAMED = 48
"""Vectors read to tell trained from untrained where nothing is named; their median needs no more."""

_FEWEST_UNNAMED = 2
"""Vectors off zero that are taken for scales where nothing is named: a network of blocks has several, while one bias
of a recurrent or convolutional network may look like it by chance."""

_FAR_SITES = 4
"""Norms of a remote model whose values are read where no kernel needs them: layout evidence looks at their shifts."""

_LEAST_COORDINATES = 4
"""A direction carried by fewer coordinates than this (its participation ratio) has no statistical power."""


_KEPT_NUMBERS, _KEPT_VECTORS = 1 << 15, 128
"""Numbers of a matrix kept for what was learned in it, but so many vectors at least: on the calibration corpus 128 of
them answer nearly as often as all (63 against 65 %), 64 clearly less (53 %)."""

POOLED = 12
"""Matrices of a role pooled at most; a plan reads no more of one whose role is known."""

_WIDEST = 1 << 15
"""No stream is wider (that of the largest models has 20,480), and 128 of its vectors fill 16 MB."""


_VECTORS_A_STEP, _NUMBERS_A_STEP = 3, 1500  # a shadow takes 0.4 µs a vector and 0.7 ns a number

_LEAST_NOISE = 1e-30
"""Noise below this, or above its inverse, is no unit that float32 can divide vectors by."""


class Measured(msgspec.Struct, frozen=True):
    """One matrix and its shadows along one direction.

    Attributes:
        matrix: what was sampled.
        direction: which direction.
        shadow: of the whole matrix.
        peaks: spectrum of a part of the sample, for the shadow of what was learned; None without one.
        learned: what those say.
        whitened: those vectors, (n, d), in units of their noise and so scaled that the direction is **1** for all:
            what matrices of one role are pooled by.
        tie: of the energies along the axis to the scales (`ties.tie`), where roles are unknown; else None.
        bias: (Σb)²/‖b‖² of a writer's bias, 1 on average where nothing keeps its mean; None without one.
    """

    matrix: Matrix
    direction: DirectionName
    shadow: kernel.ShadowEnergy
    peaks: kernel.Peaks | None = None
    learned: kernel.LearnedShadow | None = None
    whitened: Any = None
    tie: float | None = None
    bias: float | None = None


class Vectors(msgspec.Struct, frozen=True):
    """Scales and shifts, decoded.

    Attributes:
        scales: effective γ by site index, float64 of shape (d,).
        shifts: β by site index, float64 of shape (d,).
        scale_spread: median of std/|mean| over the scales, how far training has moved them apart; None without any.
        notes: what was not read, and why.
        candidates: what lies off zero of the scales, and of the vectors that nothing names: scales do, shifts do not.
    """

    scales: Mapping[int, Float64]
    shifts: Mapping[int, Float64]
    scale_spread: float | None = None
    notes: tuple[str, ...] = ()
    candidates: tuple[Float64, ...] = ()


def read_vectors(anatomy: Anatomy, limits: Limits, *, values: bool = True) -> Vectors:
    """Read the scale and the shift of every site; those that cannot be decoded are named in the notes.

    Where sites are unknown, the vectors of the stream's width are read instead (a sample of them), for their spread.

    Args:
        anatomy: the sites.
        limits: caps on one vector.
        values: whether the kernel needs them. If not, only those of a few sites are read where each takes a request.
    """
    prefetch(whole(vectors_of(anatomy, values=values)))
    scales: dict[int, Float64] = {}
    shifts: dict[int, Float64] = {}
    chosen = _sites(anatomy, values)
    notes = [f"scales and shifts of {len(chosen)} of {len(anatomy.sites)} norms were read, as each takes a request"]
    notes *= len(chosen) < len(anatomy.sites)
    for index in chosen:
        site = anatomy.sites[index]
        if site.scale is not None and (scale := _vector(site.scale, limits, notes)) is not None:
            scales[index] = scale + site.offset
        if site.shift is not None and (shift := _vector(site.shift, limits, notes)) is not None:
            shifts[index] = shift
        if site.mistakable and index in scales and index in shifts and _is_off_zero(shifts[index], scales[index]):
            scales[index], shifts[index] = shifts[index] + site.offset, scales[index] - site.offset
    unnamed = (_vector(tensor, limits, notes) for tensor in _unnamed(anatomy))
    kept = _off_zero([*scales.values(), *(v for v in unnamed if v is not None)])
    spread = median(one for _, one in kept) if len(kept) >= (1 if scales else _FEWEST_UNNAMED) else None
    return Vectors(scales, shifts, spread, tuple(notes), tuple(vector for vector, _ in kept))


def _is_off_zero(one: Float64, other: Float64) -> bool:
    """Whether the first of two vectors keeps further off zero: scales do, shifts are spread around it."""
    first, second = (abs(v.mean()) / max(v.std(), np.finfo(np.float64).tiny) for v in (one, other))
    return bool(first > second)


def vectors_of(anatomy: Anatomy, *, values: bool = True) -> list[TensorInfo]:
    """Return the scales and shifts, and where sites are unknown the vectors, that `read_vectors` reads."""
    sites = [anatomy.sites[index] for index in _sites(anatomy, values)]
    named = [one for site in sites for one in (site.scale, site.shift) if one is not None]
    return [*named, *_unnamed(anatomy)]


def _sites(anatomy: Anatomy, values: bool) -> list[int]:
    stored = (one.storage for site in anatomy.sites for one in (site.scale, site.shift) if one is not None)
    far = any(isinstance(one, Extent) and one.source.gap > PAGE for one in stored)
    return sorted(islice(decode.spread(len(anatomy.sites)), _FAR_SITES if far and not values else None))


def _unnamed(anatomy: Anatomy) -> list[TensorInfo]:
    return [anatomy.vectors[i] for i in islice(decode.spread(len(anatomy.vectors)), _MAX_UNNAMED)]


def _off_zero(vectors: Sequence[Float64]) -> list[tuple[Float64, float]]:
    """Return the vectors that keep off zero, each with its std/|mean|."""
    told = [(v, *moments(v)) for v in vectors if v.size and np.isfinite(v).all()]
    return [(v, std / abs(mean)) for v, mean, std in told if abs(mean) > 2 * std]


def moments(values: Float64) -> tuple[float, float]:
    """Return mean and standard deviation of finite values, as numpy's own methods do, one after the other."""
    mean = float(np.add.reduce(values)) / len(values)
    apart = values - mean
    return mean, math.sqrt(float(np.add.reduce(apart * apart)) / len(values))


def measure(
    anatomy: Anatomy,
    scales: Mapping[int, Float64],
    limits: Limits,
    budget: int | None = DEFAULT_BUDGET,
    device: Device = "cpu",
    vectors: int | None = None,
    candidates: Sequence[Float64] = (),
) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """Sample all matrices that a plan has, and return their shadows, and notes on what was left out.

    Args:
        anatomy: what to sample.
        scales: effective γ by site index; a reader is tested along γ⁻¹ where it is known, else along **1**.
        limits: caps on what is decoded at once.
        budget: bytes of matrices to read at most; None reads every matrix whole.
        device: where the samples are multiplied.
        vectors: vectors to sample of every matrix (rounded up to whole blocks), if not `samples.VECTORS`.
        candidates: what may be scales (`Vectors`), which tell the residual axis of square matrices without names.
    """
    batches, notes = select(anatomy, budget, limits, vectors)
    samples = [sample for batch in batches for sample in batch]
    measured, reasons = take(samples, anatomy.sites, gains(anatomy.sites, scales), device, candidates)
    return tuple(measured), (*notes, *omissions(reasons))


def take(
    samples: Sequence[Sample],
    sites: Sequence[Site],
    scales: Mapping[int, Float64],
    device: Device,
    candidates: Sequence[Float64] = (),
    pooled: Counter[tuple[str, str]] | None = None,
) -> tuple[list[Measured], list[str]]:
    """Read samples and return their shadows, and for each that gave none the reason.

    Args:
        samples: what to read.
        sites: of the anatomy.
        scales: what each norm multiplies by (`gains`), by site index.
        device: where the samples are multiplied.
        candidates: what may be scales.
        pooled: how many matrices of a component and a role have kept their vectors for `pool`, where more are taken in
            other calls; kept up.
    """
    move = mover(device)
    scored: dict[int, Float64] = {}
    directions = [_direction(sample.matrix, sites, scales) for sample in samples]
    prefetch(ahead([s for s, (v, *_) in zip(samples, directions, strict=True) if v is not None]))
    measured, reasons = [], []
    pooled = Counter() if pooled is None else pooled
    for sample, (direction, name, note) in zip(samples, directions, strict=True):
        if direction is None:
            reasons.append(note)
            continue
        if sample.matrix.role == "unknown" and len(direction) not in scored:
            scored[len(direction)] = ties.scored(candidates, len(direction))
        try:
            axis, tie, (shadow, kept) = _placed(sample, direction, move, scored.get(len(direction)))
        except BudgetSpent:
            raise
        except NormsniffError as error:
            reasons.append(str(error))
            continue
        if axis is None:
            reasons.append("square, and no tie to a scale tells which axis runs along the residual stream")
            continue
        if shadow is None or not shadow.is_finite:
            reasons.append("it has no vectors" if shadow is None else "some sampled values are not finite")
            continue
        if shadow.rho is None:
            reasons.append("all sampled values are zero")
            continue
        peaks, learned, whitened = _learned(kept, move(direction))
        pooled[sample.matrix.component, sample.matrix.role] += 1
        if pooled[sample.matrix.component, sample.matrix.role] > POOLED:
            whitened = None
        elif whitened is not None:
            meter.hold(4 * whitened.shape[0] * whitened.shape[1], "what was learned")
        matrix = msgspec.structs.replace(sample.matrix, axis=axis, either=False)
        bias = _bias(matrix, sample.limits, reasons)
        measured.append(Measured(matrix, name, shadow, peaks, learned, whitened, tie, bias))
    return measured, reasons


def as_planned(measured: Sequence[Measured], batch: Sequence[Sample]) -> list[Measured]:
    """Return what was measured of one batch, in some parts, in the order of the batch."""

    def key(matrix: Matrix) -> tuple[str, str, str]:
        return matrix.tensor.name, matrix.component, matrix.role

    order = {key(sample.matrix): at for at, sample in enumerate(batch)}
    return sorted(measured, key=lambda one: order[key(one.matrix)])


def omissions(reasons: Sequence[str]) -> list[str]:
    """Return one note a reason."""
    return [f"{n} {'matrix' if n == 1 else 'matrices'} not measured: {why}" for why, n in Counter(reasons).items()]


def _vector(tensor: TensorInfo, limits: Limits, notes: list[str]) -> Float64 | None:
    try:
        values = decode.read(tensor, limits).reshape(-1)
        meter.charge(30 + len(values) // 200, "reading scales and shifts")
        meter.hold(8 * len(values) + 200, "reading scales and shifts")
        return values.astype(np.float64)
    except BudgetSpent:
        raise
    except NormsniffError as error:
        notes.append(f"not read: {error}")
        return None


def _bias(matrix: Matrix, limits: Limits, reasons: list[str]) -> float | None:
    values = None if matrix.bias is None else _vector(matrix.bias, limits, reasons)
    if values is None or not np.isfinite(values).all():
        return None
    most = float(np.abs(values).max())
    if most == 0:
        return None
    values = values / most
    return float(values.sum()) ** 2 / float(values @ values)


def _direction(
    matrix: Matrix, sites: Sequence[Site], scales: Mapping[int, Float64]
) -> tuple[Float64 | None, DirectionName, str]:
    """Return the direction to test, its name, and why there is none."""
    d = matrix.tensor.shape[matrix.axis]
    if not d:
        return None, "ones", "it is empty"
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


def _placed(
    sample: Sample, direction: Float64, move: Callable[[Any], Any], scales: Float64 | None
) -> tuple[int | None, float | None, tuple[kernel.ShadowEnergy | None, list[Any]]]:
    """Return the axis along the stream (None where numbers do not tell), its tie to the scales, and `_shadow` of it."""
    shadows = [_shadow(sample, axis, direction, move) for axis in sample.axes]
    if scales is None:
        return sample.matrix.axis, None, shadows[0]
    tied = [ties.tie(ties.energy(kept), scales) if kept and len(scales) else 0.0 for _, kept in shadows]
    if len(tied) == 1:
        return sample.matrix.axis, tied[0], shadows[0]
    axis = ties.residual(*tied)
    return axis, tied[axis or 0], shadows[axis or 0]


def _shadow(
    sample: Sample, axis: int, direction: Float64, move: Callable[[Any], Any]
) -> tuple[kernel.ShadowEnergy | None, list[Any]]:
    """Return the shadow of a sample along one of its axes, and some of its vectors, evenly spread."""
    tensor, d = sample.matrix.tensor, len(direction)
    total = min(sample.count or tensor.size, tensor.size // d)
    step = max(1, -(-total // max(_KEPT_NUMBERS // d, _KEPT_VECTORS)))
    shadow: kernel.ShadowEnergy | None = None
    along, kept, seen = move(direction), [], 0
    for rows in decode.vectors(tensor, axis, sample.limits, sample.count):
        moved = move(rows)
        meter.charge(moved.shape[0] // _VECTORS_A_STEP + moved.shape[0] * d // _NUMBERS_A_STEP, "measuring shadows")
        part = kernel.shadow(moved, 1, along)
        shadow = part if shadow is None else shadow + part
        if d <= _WIDEST:
            some = moved[-seen % step :: step, :]
            # A view would keep the whole block in memory, and all blocks of a matrix that is read whole.
            kept.append(some if step == 1 else namespace(some).asarray(some, copy=True))
        seen += moved.shape[0]
    return shadow, kept


def _learned(
    rows: list[Any], direction: Any
) -> tuple[kernel.Peaks, kernel.LearnedShadow, Any] | tuple[None, None, None]:
    """Return the peaks of vectors, what they say, and the vectors whitened; None where there is nothing to see."""
    if not rows:
        return None, None, None
    numbers = sum(part.shape[0] for part in rows) * direction.shape[0]
    meter.charge(200 + numbers // 150, "looking for what was learned")  # 0.45 ms for 128 vectors of 384, 3.7 of 4096
    peaks = kernel.peaks(rows, direction)
    if peaks is None:
        return None, None, None
    learned = kernel.learned(peaks)
    noise = peaks.rms * math.sqrt(learned.noise)
    if not _LEAST_NOISE < noise < 1 / _LEAST_NOISE:
        return None, None, None
    xp = namespace(*rows, direction)
    scale = xp.astype(direction * (math.sqrt(direction.shape[0]) / noise), rows[0].dtype)
    return peaks, learned, (rows[0] if len(rows) == 1 else xp.concat(rows, axis=0)) * scale
