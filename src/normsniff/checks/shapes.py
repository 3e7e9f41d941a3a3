"""shape: a scale whose length fits no stream, or not its shift, or not the same place of the other blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .findings import Finding
from .subject import Subject


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
                reason=f"the scale has {scale.size:,} values, the shift {shift.size:,}",
                cure="convert again: one of the two belongs to another norm, or was cut",
            )
    for group in subject.groups:
        sizes = Counter(one.site.scale.shape for one in group.norms if one.site.scale is not None)
        (common, times), *rest = sizes.most_common() or [((), 0)]
        if not rest or times < 3 or times < 2 * sum(count for _, count in rest):
            continue  # networks of stages change their width
        odd = [one for one in group.norms if one.site.scale is not None and one.site.scale.shape != common]
        found = odd[0].site.scale
        yield Finding(
            code="shape",
            severity="error",
            component=group.component,
            norms=tuple(one.name for one in odd),
            reason=f"the scale has shape {list(found.shape) if found is not None else []} in {len(odd)} of"
            f" {len(group.norms)} norms at {group.place}, else {list(common)}",
            cure="convert again: a part of a sharded scale, or another norm's",
        )
    yield from _fits_no_stream(subject)


def _fits_no_stream(subject: Subject) -> Iterator[Finding]:
    """Scales of the blocks whose length is no side of any matrix of their tower, though the tower has matrices."""
    if subject.checkpoint.graph is not None or subject.anatomy.basis != "names":
        return
    sides: dict[str, Counter[int]] = {}
    for tensor in subject.checkpoint.tensors.values():
        if len(tensor.shape) == 2:
            for side in tensor.shape:
                sides.setdefault("", Counter())[side] += 1
    known = sides.get("", Counter())
    odd = [
        one
        for one in subject.norms
        if one.site.role == "stream"
        and one.site.scale is not None
        and len(one.site.scale.shape) == 1
        and one.site.scale.size not in known
    ]
    if odd and known:
        size = odd[0].site.scale.size if odd[0].site.scale is not None else 0
        whole = [side for side, _ in known.most_common(5) if size and side % size == 0]
        part = f"; {whole[0]:,} would: this may be one part of {whole[0] // size}" if whole else ""
        yield Finding(
            code="shape",
            severity="error",
            component=odd[0].site.component,
            norms=tuple(one.name for one in odd),
            reason=f"scales of {size:,} values in {len(odd)} norms fit no matrix of the file{part}",
            cure="join the parts before converting",
        )
