"""Activations against the dead direction: does a norm's output never move along γ⁻¹, and does anything else die?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np

from .. import arguments, meter
from ..anatomy.parts import Matrix
from ..checkpoint import TensorInfo
from ..decode import rows
from ..dtypes import FLOATS
from ..errors import FormatError
from ..inputs.opening import Source, opened
from ..kernel.learned import LearnedShadow, learned
from ..kernel.spectrum import ROUND_OFF, Float64, Spectrum, chance, cosine_to_span, spectrum, steps, triangle
from ..limits import Limits
from ..measure.pools import pool
from ..measure.shadows import measure
from ..model import modelled
from ..record import Label
from .directions import Direction, directions

_BLOCK = 4_000_000  # numbers at once, 32 MB as float64; what is made of them on the way takes several times that
_LAST_NUMBER = re.compile(r"(\d{1,9})(?!.*\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NormReadout:
    """What one norm's output shows. Eigenvalues are those of the centred covariance.

    Attributes:
        activation: name in the file of activations.
        norm: the site that it was matched to.
        label: what the norm is taken for.
        rows: tokens seen.
        along: eigenvalue along the dead direction v (the largest of several); None where the norm has none.
        median: the median eigenvalue.
        smallest: the smallest eigenvalue.
        cosine: |cos| of the measured bottom direction with the kernel that γ gives.
        found: |cos| of v with the span of all measured directions below the threshold, or with the bottom one if there
            is none. Where several directions are dead, which of them comes out as the bottom one is chance.
        chance: |cos| that random signs on v would exceed once in twenty.
        further: directions below the threshold beside the kernel that γ gives.
        bottom: the measured bottom direction, float64 of shape (d,).
        learned: ρ_L along v of what the matrices that read this norm have learned, as one: what weights alone say of
            it, near 0 where the norm leaves nothing there and about 1 where it does; None where nothing was learned.
        directions: ν, the degrees of freedom behind `learned`.
        reason: why something is missing, or "".
    """

    activation: str
    norm: str
    label: Label
    rows: int
    along: float | None = None
    median: float | None = None
    smallest: float | None = None
    cosine: float | None = None
    found: float | None = None
    chance: float | None = None
    further: int | None = None
    bottom: Float64 | None = None
    learned: float | None = None
    directions: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceReadout:
    """How the smallest live singular value moves from one block's output to the next.

    Attributes:
        places: names in the file of activations, in order.
        smallest: smallest singular value above the threshold at each place, over √rows.
        dead: singular values below the threshold at each place.
        ratios: one a step, after over before.
        exceptions: steps that change it beyond `spectrum.PRESERVED`, or in which a direction dies, in words.
        reason: why there are no figures, or "".
    """

    places: tuple[str, ...]
    smallest: tuple[float, ...] = ()
    dead: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    exceptions: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Readout:
    """A file of activations, read out.

    Attributes:
        norms: outputs of norms, in the order of the file.
        sequences: arrays that no norm claims and whose names differ in one number: outputs of blocks.
        unmatched: everything else.
    """

    norms: tuple[NormReadout, ...]
    sequences: tuple[SequenceReadout, ...]
    unmatched: tuple[str, ...]


def readout(
    activations: Source,
    source: Source,
    *,
    norm: str | None = None,
    threshold: float = ROUND_OFF,
    limits: Limits | None = None,
) -> Readout:
    """Compare activations of norms and blocks with what a model's scales say of them.

    Args:
        activations: a ``.npy``, ``.npz`` or safetensors file, or a mapping of names to arrays of any library; the last
            axis is d, all others are tokens. Files are read in blocks, so that they may be larger than memory (but for
            a compressed ``.npz``, whose members are inflated whole).
        source: the model, whatever `sniff` takes.
        norm: name of the norm that all arrays are outputs of; without it `match` says which array is whose.
        threshold: a direction counts as dead if its singular value is below this part of the largest.
        limits: caps on what the files may cost.

    Raises:
        NormsniffError: as `sniff` does.
        FormatError: ``unknown-norm`` if `norm` is none of the model's.
        TypeError: an argument is of another type.
        ValueError: `threshold` is not between 0 and 1.
    """
    threshold = arguments.number("threshold", threshold, most=1)
    if norm is not None:
        arguments.instance("norm", norm, (str,), "the name of a norm")
    known = {one.norm: one for one in directions(source, limits=limits)}
    if norm is not None and norm not in known:
        raise FormatError("unknown-norm", norm, f"the model has no norm of this name, but {', '.join(known)}"[:500])
    with opened(activations, limits) as checkpoint:
        meter.ask(checkpoint.file_size)
        arrays = {name: one for name, one in checkpoint.tensors.items() if _is_rows(one)}
        matched = dict.fromkeys(arrays, norm) if norm else match(tuple(arrays), tuple(known))
        norms = [_norm(one, known[at], threshold) for name, one in arrays.items() if (at := matched.get(name))]
        readers = _readers(source, {one.norm for one in norms}, limits or Limits())
        norms = [
            replace(one, learned=weights.rho, directions=weights.nu) if (weights := readers.get(one.norm)) else one
            for one in norms
        ]
        groups = _sequences([name for name in arrays if not matched.get(name)])
        sequences = [_sequence([arrays[name] for name in group], threshold) for group in groups]
    used = {name for name, at in matched.items() if at} | {name for group in groups for name in group}
    return Readout(tuple(norms), tuple(sequences), tuple(name for name in checkpoint.tensors if name not in used))


def match(arrays: Sequence[str], norms: Sequence[str]) -> Mapping[str, str]:
    """Return the norm that each array is the output of, by name.

    Slashes count as dots, and dots at the ends do not count. Then an array belongs to the norm of its own name; else
    to the one norm whose name ends in the array's at a dot, or the other way round; to none if two would do.

    >>> match(["encoder.layer.1.LayerNorm"], ["bert.encoder.layer.0.LayerNorm", "bert.encoder.layer.1.LayerNorm"])
    {'encoder.layer.1.LayerNorm': 'bert.encoder.layer.1.LayerNorm'}
    """
    plain = {norm: norm.replace("/", ".").strip(".") for norm in norms}
    found = {}
    for array in arrays:
        name = array.replace("/", ".").strip(".")
        exact = [norm for norm, other in plain.items() if other == name]
        ends = [n for n, other in plain.items() if other.endswith(f".{name}") or name.endswith(f".{other}")]
        if len(exact or ends) == 1:
            found[array] = (exact or ends)[0]
    return found


def _readers(source: Source, norms: Collection[str], limits: Limits) -> dict[str, LearnedShadow]:
    """Return by norm what the matrices that read it have learned, as one."""
    found = {}
    with modelled(source, limits=limits) as model:
        anatomy = model.anatomy
        readers: dict[int, list[Matrix]] = defaultdict(list)  # by site
        for matrix in anatomy.matrices:
            if matrix.role == "reader" and matrix.site is not None and anatomy.sites[matrix.site].name in norms:
                readers[matrix.site].append(matrix)
        for at, mine in sorted(readers.items()):
            measured, _ = measure(replace(anatomy, matrices=tuple(mine)), model.vectors.scales, limits)
            peaks = pool(measured, "reader")
            if peaks is not None and (one := learned(peaks)).rho is not None:
                found[anatomy.sites[at].name] = one
    return found


def _is_rows(tensor: TensorInfo) -> bool:
    return tensor.dtype in FLOATS and len(tensor.shape) > 1


def _spectrum(tensor: TensorInfo) -> Spectrum:
    """Raise ValueError where there are too few rows, before anything of the size of d x d is made."""
    d, n = tensor.shape[-1], rows.count(tensor)
    if not d or n < 2 * d:
        raise ValueError(f"{n:,} rows of length {d:,}: at least {2 * d:,} are needed")
    return spectrum(reduce(add, map(triangle, rows.blocks(tensor, max(d, _BLOCK // d)))))


def _norm(tensor: TensorInfo, expected: Direction, threshold: float) -> NormReadout:
    basis = expected.basis
    here = NormReadout(activation=tensor.name, norm=expected.norm, label=expected.label, rows=rows.count(tensor))
    if expected.d is not None and tensor.shape[-1] != expected.d:
        return replace(here, reason=f"rows of length {tensor.shape[-1]:,}, the norm is {expected.d:,} wide")
    try:
        seen = _spectrum(tensor)
    except ValueError as error:
        return replace(here, reason=str(error))
    below = seen.below(threshold)
    measured = {"median": seen.median, "smallest": float(seen.singular[0]) ** 2, "bottom": seen.directions[0]}
    if basis is None:
        return replace(here, **measured, further=below, reason=expected.reason)
    rest = np.linalg.svd(seen.r - (seen.r @ basis.T) @ basis, compute_uv=False)
    return replace(
        here,
        **measured,
        along=max(seen.variance_along(one) for one in basis),
        cosine=cosine_to_span(seen.directions[0], basis),
        found=min(cosine_to_span(v, seen.directions[: max(below, 1)]) for v in basis),
        chance=chance(basis[0], seen.directions[0]),
        further=int(np.count_nonzero(rest < threshold * seen.singular[-1])) - len(basis),
        reason=expected.reason,
    )


def _sequences(names: Sequence[str]) -> list[list[str]]:
    """Return names that differ in their last number only, by that number; at least two of them make a sequence."""
    groups: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        if number := _LAST_NUMBER.search(name):
            groups[name[: number.start()], name[number.end() :]][int(number[1])] = name
    return [[group[number] for number in sorted(group)] for group in groups.values() if len(group) > 1]


def _sequence(places: Sequence[TensorInfo], threshold: float) -> SequenceReadout:
    names = tuple(place.name for place in places)
    try:
        values = [_spectrum(place).singular for place in places]
        found = steps(values, threshold)
    except ValueError as error:
        return SequenceReadout(places=names, reason=str(error))
    exceptions = []
    for at in found.exceptions:
        died = f", {found.died(at)} die" if found.died(at) else ""
        exceptions.append(f"{names[at]} → {names[at + 1]} (× {found.ratios[at]:.2g}{died})")
    return SequenceReadout(
        places=names,
        smallest=tuple(float(one[one > threshold * one[-1]][0]) for one in values),
        dead=found.dead,
        ratios=found.ratios,
        exceptions=tuple(exceptions),
    )
