"""not-finite, huge, dead, untrained: what single values of scales and shifts show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..record import Finding
from ..words import amount, are, every, have
from .quantiles import median
from .subject import VECTORS, Float64, Group, ReadNorm, StoredVector, Subject

_F16_MOST = 65504.0  # the largest float16
_TINY = 1e-6  # of the median |γ|: rounds to nothing in any sum of the network's own precision
_MANY = 0.5  # of a scale, that are zero: more is no pruning
_FEWEST = 8  # values of which that all are alike says something
_AT_ONCE = 64  # scales looked at together: one call for many, and little memory beside what is held
_HALF_TYPES = ("float16", "fp16", "half", "torch.float16")
_OUTLIER, _RECURS = 5.0, 0.8
"""A dimension stands out whose |γ| is this many times the median or more, in this share of the norms of the stream
(the massive dimensions of arXiv 2402.17762 do so in nearly all)."""


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what values show."""
    everywhere = [group for group in subject.groups if _judged(group)]
    if everywhere and all(_is_constant(one) for group in everywhere for one in _judged(group)):
        yield _never_trained(everywhere)
        everywhere = []
    for component in dict.fromkeys(one.site.component for one in subject.norms):
        yield from _not_finite(subject, component)
        yield from _huge(subject, component)
        yield from _dead(subject, component)
        yield from _untrained([group for group in everywhere if group.component == component])
        yield from _massive(subject, component)


def _vectors(subject: Subject, component: str) -> list[StoredVector]:
    return [one for one in subject.stored if one.norm.site.component == component]


def _not_finite(subject: Subject, component: str) -> Iterator[Finding]:
    hit = [(one.norm, one.values) for one in _vectors(subject, component) if not one.finite]
    if hit:
        nan, inf = (sum(int(test(values).sum()) for _, values in hit) for test in (np.isnan, np.isinf))
        yield Finding(
            code="not-finite",
            severity="error",
            component=component,
            norms=_names(norm for norm, _ in hit),
            reason=f"{nan:,} NaN and {amount(inf, 'infinite value')} in {amount(len(hit), *VECTORS)}",
            cure="convert again from the original; a value over 65,504 becomes infinite in float16",
            details={"nan": nan, "infinite": inf},
        )


def _huge(subject: Subject, component: str) -> Iterator[Finding]:
    config = subject.checkpoint.config or {}
    half = any(config.get(key) in _HALF_TYPES for key in ("torch_dtype", "dtype"))
    hit = [
        (one.norm, largest)
        for one in _vectors(subject, component)
        if one.finite and (largest := max(map(abs, one.extremes))) > _F16_MOST
    ]
    if hit:
        most = max(value for _, value in hit)
        yield Finding(
            code="huge",
            severity="error" if half else "warning",
            component=component,
            norms=_names(norm for norm, _ in hit),
            reason=f"values of up to {most:.3g} in {amount(len(hit), *VECTORS)}"
            + (", and the configuration says float16, where they are infinite" if half else ": infinite in float16"),
            cure="run in bfloat16 or float32, or look for what was multiplied into these norms",
            details={"largest": most},
        )


def _dead(subject: Subject, component: str) -> Iterator[Finding]:
    zeros: list[tuple[ReadNorm, int, int]] = []
    small: list[tuple[ReadNorm, int]] = []
    for norm, scale in _scales(subject, component):
        least, largest = (one + norm.site.offset for one in norm.extremes)
        if least == largest:
            continue  # untrained says it
        if min(abs(least), abs(largest)) >= _TINY * max(abs(least), abs(largest)) and (least > 0) == (largest > 0):
            continue  # none is zero, nor a millionth of the largest
        n = int((scale == 0).sum())
        if n:
            zeros.append((norm, n, scale.size))
        size = np.abs(scale)
        tiny = int(((size > 0) & (size < _TINY * median(size.ravel()))).sum())
        if tiny:
            small.append((norm, tiny))
    if zeros:
        total = sum(n for _, n, _ in zeros)
        yield Finding(
            code="dead",
            severity="warning" if any(n > _MANY * size for _, n, size in zeros) else "note",
            component=component,
            norms=_names(norm for norm, _, _ in zeros),
            reason=f"{amount(total, 'scale')} {are(total)} exactly zero in {amount(len(zeros), 'norm')}:"
            " these dimensions put out the shift alone",
            cure="none, if the model was pruned so; else compare with the original",
            details={"zeros": {norm.name: n for norm, n, _ in zeros}},
        )
    if small:
        tiny = sum(n for _, n in small)
        yield Finding(
            code="dead",
            severity="note",
            component=component,
            norms=_names(norm for norm, _ in small),
            reason=f"{amount(tiny, 'scale')} in {amount(len(small), 'norm')} {are(tiny)} below a millionth of"
            " the median",
            cure="none: training has switched these dimensions off",
            details={"tiny": {norm.name: n for norm, n in small}},
        )


def _never_trained(groups: list[Group]) -> Finding:
    found = [one for group in groups for one in _judged(group)]
    value = 0.0 if found[0].scale is None else float(found[0].scale.flat[0])
    return Finding(
        code="untrained",
        severity="warning",
        component=groups[0].component,
        norms=_names(found),
        reason=f"{every(len(found), 'scale')} {are(len(found))} constant ({value:g} in the first): never trained,"
        " folded into the matrices, or lost in conversion",
        cure="if the original has other scales, convert again; if they were folded, nothing is wrong",
    )


def _untrained(groups: list[Group]) -> Iterator[Finding]:
    flat = {id(group): [one for one in _judged(group) if _is_constant(one)] for group in groups}
    lost = [one for group in groups for one in flat[id(group)] if len(flat[id(group)]) < len(_judged(group))]
    if lost:
        values = Counter(float(one.scale.flat[0]) for one in lost if one.scale is not None)
        yield Finding(
            code="untrained",
            severity="error",
            component=lost[0].site.component,
            norms=_names(lost),
            reason=f"{amount(len(lost), 'scale')} {are(len(lost))} exactly constant"
            f" ({', '.join(f'{v:g}' for v in values)}) while those at the same place of the other blocks are"
            " trained: lost, or initialised again in conversion",
            cure="convert again, and look for keys that were missing or renamed",
        )
    whole = [one for group in groups for one in flat[id(group)] if len(flat[id(group)]) == len(_judged(group))]
    if whole:
        yield Finding(
            code="untrained",
            severity="note",
            component=whole[0].site.component,
            norms=_names(whole),
            reason=f"{amount(len(whole), 'scale')} {are(len(whole))} exactly constant, those at the other places are"
            " trained",
            cure="none, if the network has no scale there; else compare with the original",
        )


def _massive(subject: Subject, component: str) -> Iterator[Finding]:
    scales = [scale for norm, scale in _scales(subject, component) if norm.site.role == "stream"]
    widths = Counter(scale.shape for scale in scales)
    if not widths:
        return
    shape, n = widths.most_common(1)[0]
    if n < 3 or len(shape) != 1:
        return
    alike = [scale for scale in scales if scale.shape == shape]
    above = np.zeros(shape, np.int64)
    for first in range(0, n, _AT_ONCE):
        sizes = np.abs(alike[first : first + _AT_ONCE])
        above += (sizes > _OUTLIER * median(sizes)[:, np.newaxis]).sum(axis=0)
    found = np.flatnonzero(above / n >= _RECURS).tolist()
    if found:
        yield Finding(
            code="massive",
            severity="note",
            component=component,
            norms=(),
            reason=f"{amount(len(found), 'dimension')} {have(len(found))} over {_OUTLIER:g} times the median scale in"
            " nearly all norms:"
            f" {', '.join(map(str, found[:8]))}{' …' if len(found) > 8 else ''}",
            cure="none; quantise the matrices that read them with care",
            details={"dimensions": found[:100]},
        )


def _scales(subject: Subject, component: str) -> Iterator[tuple[ReadNorm, Float64]]:
    for one in subject.norms:
        if one.site.component == component and _is_finite(one) and (scale := one.scale) is not None:
            yield one, scale


def _is_finite(one: ReadNorm) -> bool:
    """Whether a norm has scales, and all are finite."""
    return all(map(math.isfinite, one.extremes))


def _judged(group: Group) -> list[ReadNorm]:
    return [one for one in group.norms if one.stored is not None and one.stored.size >= _FEWEST and _is_finite(one)]


def _is_constant(one: ReadNorm) -> bool:
    least, largest = one.extremes
    return least == largest


def _names(norms: Iterator[ReadNorm] | list[ReadNorm]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.name for one in norms))
