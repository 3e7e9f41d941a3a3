"""shape: a scale whose length fits no stream, or not its shift, or not the same place of the other blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..checkpoint import TensorInfo
from ..record import Finding
from ..words import among, amount
from .subject import Subject

_BLOCKS = 3  # that agree, before one that differs is the odd one
_FEW = 0.1  # of the blocks, or two, may differ by accident
_MATRICES = 4  # of a block: attention and an MLP have six; fewer, and something was left out of the file
_DEPTH = 6  # modules around a tensor that are looked at


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what lengths show. No values are needed."""
    for one in subject.norms:
        scale, shift = one.site.scale, one.site.shift
        if scale is not None and shift is not None and scale.size != shift.size:
            yield Finding(
                code="shape",
                severity="error",
                component=one.site.component,
                norms=(one.name,),
                reason=f"the scale has {amount(scale.size, 'value')}, the shift {shift.size:,}",
                cure="convert again: one of the two belongs to another norm, or was cut",
            )
    yield from _odd_among_blocks(subject)
    yield from _fits_no_stream(subject)


def _odd_among_blocks(subject: Subject) -> Iterator[Finding]:
    """A scale of the stream whose length is not that of the other blocks, nor a side of any matrix of its own block."""
    sides: Mapping[str, set[int]] | None = None
    for group in subject.groups:
        stored = [(one, one.site.scale) for one in group.norms if one.site.scale is not None]
        sizes = Counter(scale.shape for _, scale in stored)
        if len(sizes) < 2 or group.running or group.place.count("#") != 1:  # two numbers: stages, of a width each
            continue
        common, times = sizes.most_common(1)[0]
        odd = [(one, scale) for one, scale in stored if scale.shape != common]
        most = Counter(one.site.role for one in group.norms).most_common(1)[0][0]
        if most != "stream" or times < _BLOCKS or len(odd) > max(2, _FEW * len(stored)):
            continue
        if sides is None:
            sides = _sides(subject.checkpoint.tensors.values())
        odd = [(one, scale) for one, scale in odd if scale.size not in sides.get(one.name.rpartition(".")[0], ())]
        if odd:
            yield Finding(
                code="shape",
                severity="error",
                component=group.component,
                norms=tuple(one.name for one, _ in odd),
                reason=f"the scale has shape {list(odd[0][1].shape)} in {among(len(odd), len(group.norms), 'norm')} at"
                f" {group.place}, else {list(common)}",
                cure="convert again: a part of a sharded scale, or another norm's",
            )


def _sides(tensors: Iterable[TensorInfo]) -> Mapping[str, set[int]]:
    """Return the sides of all matrices in every module."""
    found: dict[str, set[int]] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1:
            for parent in _parents(tensor.name):
                found.setdefault(parent, set()).update(tensor.shape)
    return found


def _fits_no_stream(subject: Subject) -> Iterator[Finding]:
    """Scales of the stream whose length is no side of any matrix, though their own blocks hold matrices."""
    if subject.checkpoint.graph is not None or subject.anatomy.basis != "names":
        return
    matrices = [tensor for tensor in subject.checkpoint.tensors.values() if len(tensor.shape) > 1]
    known = Counter(side for tensor in matrices for side in tensor.shape)
    around = Counter(parent for tensor in matrices for parent in _parents(tensor.name))
    scaled = [one for one in subject.norms if one.site.role == "stream" and one.site.scale is not None]
    odd = [
        one
        for one in scaled
        if one.site.scale is not None
        and len(one.site.scale.shape) == 1
        and one.site.scale.size not in known
        and around[one.name.rpartition(".")[0]] >= _MATRICES
    ]
    if 2 * len(odd) > len(scaled) and known:  # who cuts, cuts all; a few may stand behind a gate that halves
        size = odd[0].site.scale.size if odd[0].site.scale is not None else 0
        whole = [side for side, _ in known.most_common(5) if size and side % size == 0]
        part = f"; {whole[0]:,} would: this may be one part of {whole[0] // size}" if whole else ""
        yield Finding(
            code="shape",
            severity="warning",
            component=odd[0].site.component,
            norms=tuple(one.name for one in odd),
            reason=f"scales of {amount(size, 'value')} in {amount(len(odd), 'norm')} fit no matrix of the file{part}",
            cure="join the parts before converting",
        )


def _parents(name: str) -> Iterator[str]:
    at = name.rfind(".")
    for _ in range(_DEPTH):
        if at < 0:
            return
        yield name[:at]
        at = name.rfind(".", 0, at)
