"""Norms in a computation graph, found by what is computed: one operator, or the arithmetic spelled out.

A spelled-out norm is anchored at the root of a mean of squares. Three questions decide what it is: what was
squared (x itself, or x minus its mean), does the same x get divided by the root, and over which axis. The
forms that exporters write are listed in norm-facts.md, sections 3.3 and 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...checkpoint import Operator
from ..parts import NormKind
from .moments import centred, division, input_of, mean_of, root_of
from .view import RESHAPING, SAME, GraphView, Weight

_STEPS = 16  # operators between two landmarks of one norm; exporters put six at most


@dataclass(frozen=True, slots=True)
class Norm:
    """One norm of the graph.

    Attributes:
        op: the operator that it is, or the root that anchors it.
        kind: what it computes.
        sources: what it normalises: one value, or the two that a fused operator adds first.
        output: the normalised, scaled and shifted value; "" if it stays inside a fused operator.
        axis: the normalised axis, counted from the end.
        rank: number of axes of the normalised value, or None.
        scale: γ.
        shift: β.
        why: one sentence.
        inside_attention: whether a fused attention operator applies it to queries or keys.
        by_name: whether only an operator's name says so.
    """

    op: Operator
    kind: NormKind
    sources: tuple[str, ...]
    output: str
    axis: int = -1
    rank: int | None = None
    scale: Weight | None = None
    shift: Weight | None = None
    why: str = ""
    inside_attention: bool = False
    by_name: bool = False

    def changed(self, kind: NormKind, source: str, why: str) -> Norm:
        """Return the norm with what was found out by running it."""
        return replace(self, kind=kind, sources=(source,), why=why)


class Matched(NamedTuple):
    """An operator that is a norm or anchors one, and which: a `Norm`, or the name of a norm that is neither."""

    op: Operator
    what: Norm | str


class _Fused(NamedTuple):
    kind: NormKind
    sources: tuple[int, ...]
    scale: int
    shift: int | None = None


# Operators.md and ContribOperators.md: operator -> input indices. Input 3 of SkipSimplifiedLayerNormalization is the
# bias of the linear layer before it, not a shift.
FUSED: Mapping[str, _Fused] = {
    "LayerNormalization": _Fused("LayerNorm", (0,), 1, 2),
    "RMSNormalization": _Fused("RMSNorm", (0,), 1),
    "SimplifiedLayerNormalization": _Fused("RMSNorm", (0,), 1),
    "SkipLayerNormalization": _Fused("LayerNorm", (0, 1), 2, 3),
    "SkipSimplifiedLayerNormalization": _Fused("RMSNorm", (0, 1), 2),
    "EmbedLayerNormalization": _Fused("LayerNorm", (), 5, 6),
    "QEmbedLayerNormalization": _Fused("LayerNorm", (), 5, 6),
    "QOrderedLayerNormalization": _Fused("LayerNorm", (0,), 2, 3),
    "GatedRMSNorm": _Fused("RMSNorm", (0,), 1),
    "BranchwiseRMSNorm": _Fused("RMSNorm", (0,), 1),
    "RMSNormRotary": _Fused("RMSNorm", (0,), 1),
}
_INSIDE_ATTENTION: Mapping[str, tuple[int, ...]] = {
    "GroupQueryAttention": (14, 15), "PagedAttention": (12, 13), "SparsePagedAttention": (17, 18),
}  # fmt: skip
_INSIDE_PROJECTION = {"MatMulNBitsQkv": 2, "MatMulNBitsMlp": 2}  # RMSNorm of (A + skip), then the products
_OTHERS: Mapping[str, str] = {
    "BatchNormalization": "BatchNorm", "InstanceNormalization": "InstanceNorm", "GroupNormalization": "GroupNorm",
    "GroupNorm": "GroupNorm", "SkipGroupNorm": "GroupNorm", "LpNormalization": "L2Norm", "LRN": "LocalResponseNorm",
    "MeanVarianceNormalization": "InstanceNorm",
}  # fmt: skip


def find_norms(view: GraphView) -> list[Matched]:
    """Return what the patterns recognise in a graph, in its order."""
    findings: list[Matched] = []
    outputs: set[str] = set()
    for op in view.operators:
        found = _of_operator(view, op)
        if isinstance(found, Norm):
            if found.output not in outputs:  # a root inside another's root must not make one norm two
                findings.append(Matched(op, found))
                outputs.add(found.output)
        elif found is not None:
            findings.append(Matched(op, found))
        findings += (Matched(op, norm) for norm in _inside(view, op))
    return findings


def _of_operator(view: GraphView, op: Operator) -> Norm | str | None:
    if op.op_type in FUSED and op.outputs:
        return _fused(view, op)
    if op.op_type in ("InstanceNormalization", "BatchNormalization", "MeanVarianceNormalization"):
        return _borrowed(view, op) or _OTHERS[op.op_type]
    if op.op_type in _OTHERS:
        return _OTHERS[op.op_type]
    if op.op_type in ("Sqrt", "Rsqrt", "Pow", "ReduceL2") and op.inputs and op.outputs:
        return _spelled_out(view, op)
    return None


def _fused(view: GraphView, op: Operator) -> Norm:
    kind, sources, scale, shift = FUSED[op.op_type]
    values = tuple(op.inputs[i] for i in sources if i < len(op.inputs))
    why = f"{op.op_type} operator"
    inner = centred(view, values[0]) if kind == "RMSNorm" and len(values) == 1 else None
    if inner is not None and len(inner.axes) == 1 and inner.axes[0] not in (0, 1, -2, -3):
        kind, values, why = "LayerNorm", (inner.data,), f"mean subtracted, then {op.op_type} operator"
    return Norm(
        op, kind, values, op.outputs[0], scale=view.weight(input_of(op, scale)),
        shift=view.weight(input_of(op, shift)), why=why,
    )  # fmt: skip


def _inside(view: GraphView, op: Operator) -> Iterator[Norm]:
    for index in _INSIDE_ATTENTION.get(op.op_type, ()):
        scale = view.weight(input_of(op, index))
        if scale is not None:
            why = f"norm weight of the {op.op_type} operator"
            yield Norm(op, "RMSNorm", (), "", scale=scale, why=why, inside_attention=True)
    if op.op_type in _INSIDE_PROJECTION and (scale := view.weight(input_of(op, _INSIDE_PROJECTION[op.op_type]))):
        sources = tuple(name for name in op.inputs[:2] if name)
        yield Norm(op, "RMSNorm", sources, "", scale=scale, why=f"norm weight of the {op.op_type} operator")


def _borrowed(view: GraphView, op: Operator) -> Norm | None:
    """Recognise LayerNorm written with another norm's operator, as tf2onnx does.

    InstanceNormalization over (batch, position) with a scale along the last axis, which an instance norm cannot have;
    BatchNormalization whose mean is not stored but computed from the data; MeanVarianceNormalization of the last axis.
    """
    if not op.outputs or not op.inputs:
        return None
    source = op.inputs[0]
    if op.op_type == "BatchNormalization":
        mean = mean_of(view, input_of(op, 3))
        if mean is None or has_own_scale(view, op):
            return None
        source = mean.data
    elif op.op_type == "MeanVarianceNormalization" and view.integers(op, "axes", 99) != (-1,):
        return None
    scale, shift, output = _affine_after(view, op.outputs[0], None, reshaped=op.op_type == "BatchNormalization")
    if op.op_type == "InstanceNormalization" and (scale is None or scale.channel != -1 or has_own_scale(view, op)):
        return None
    if op.op_type == "BatchNormalization":
        after = scale or shift
        if after.channel != -1 if after is not None else not _of_positions(view, source):
            return None
    if scale is None and _scaled_after_reshape(view, op.outputs[0]):  # a group norm, as OpenVINO writes it
        return None
    return Norm(op, "LayerNorm", (source,), output, scale=scale, shift=shift, why=f"{op.op_type} over the channels")


def _of_positions(view: GraphView, value: str) -> bool:
    """Whether every position of a sequence was made a channel of one image, ``(1, positions, width, 1)``."""
    op = view.producer(value)
    target = view.integers(op, "shape", 1) if op is not None and op.op_type == "Reshape" else None
    return target is not None and len(target) == 4 and target[0] == target[3] == 1


def has_own_scale(view: GraphView, op: Operator) -> bool:
    """Whether the operator's own scale is a trained one: a stored vector that is not all ones."""
    array = view.constants.get(input_of(op, 1))
    if array is not None:
        return bool((array != 1).any())
    return view.vector(input_of(op, 1)) is not None


def _spelled_out(view: GraphView, op: Operator) -> Norm | str | None:
    moment = root_of(view, op)
    if moment is None or view.is_stored(moment.data):  # a standardised weight is no norm of the data
        return None
    point = division(view, op.outputs[0], moment)
    if point is None:
        return None
    output, scale, shift, number = point
    folded = scale is not None
    if not moment.scaled:
        after, output = _times_number(view, output)
        number *= after
    scale, added, output = _affine_after(view, output, scale, len(moment.axes))
    shift = shift or added
    if not moment.scaled and not (scale is not None and math.isclose(number**2, scale.tensor.size, rel_tol=0.01)):
        return "L2Norm"  # normalised to length 1; times the root of the width it would be a norm like any other
    place = _place(moment.axes, scale, view.ranks.get(moment.data))
    if place is None or (scale is None and _scaled_after_reshape(view, output)):
        return "BatchNorm" if moment.axes == (0,) else "GroupNorm" if len(moment.axes) == 1 else "InstanceNorm"
    kind: NormKind = "LayerNorm" if moment.centred else "RMSNorm"
    steps = ["mean subtracted, variance" if moment.centred else "mean of squares, no mean subtracted"]
    steps += ["scale folded into the factor" if folded else "scale"] if scale is not None else []
    steps += ["shift"] if shift is not None else []
    return Norm(op, kind, (moment.data,), output, *place, scale, shift, f"decomposed: {', '.join(steps)}")


def _affine_after(
    view: GraphView, value: str, scale: Weight | None, axes: int = 1, *, reshaped: bool = False
) -> tuple[Weight | None, Weight | None, str]:
    """Follow a normalised value through its scale and its shift; return both and what comes out."""
    shift = None
    if scale is None and (step := _next(view, value, "Mul", axes, reshaped=reshaped)) is not None:
        scale, value = step
    step = _next(view, value, "Add", axes, reshaped=reshaped and scale is None)
    if step is not None and (scale is None or step[0].tensor.size == scale.tensor.size):
        shift, value = step
    return scale, shift, value


def _next(view: GraphView, value: str, op_type: str, axes: int, *, reshaped: bool) -> tuple[Weight, str] | None:
    """Find the `op_type` that combines a value with a stored vector (or a tensor of as many axes as are normalised)."""
    for op, other in _combined(view, value, op_type, SAME | RESHAPING | {"Transpose"} if reshaped else SAME):
        weight = view.weight(other)
        if weight is not None and (weight.channel is not None or 1 < axes == len(weight.shape)):
            return weight, op.outputs[0]
    return None


def _times_number(view: GraphView, value: str) -> tuple[float, str]:
    """Return the stored number that a value is multiplied with, and the product; else 1 and the value itself."""
    for op, other in _combined(view, value, "Mul", SAME):
        number = view.scalar(other)
        if number is not None:
            return number, op.outputs[0]
    return 1.0, value


def _combined(view: GraphView, value: str, op_type: str, through: Collection[str]) -> Iterator[tuple[Operator, str]]:
    """Yield each `op_type` that takes a value, and its other operand, looking through some operators."""
    todo = [value]
    for at in todo:
        for op in view.near(at):
            if not op.outputs or len(todo) > _STEPS:
                continue
            if op.op_type in through and op.inputs[0] == at:
                todo.append(op.outputs[0])
            elif op.op_type == op_type:
                yield op, next((b for a, b in view.split(op) if a == at), "")


def _place(axes: tuple[int, ...], scale: Weight | None, rank: int | None) -> tuple[int, int | None] | None:
    """Return the normalised axis from the end, and the rank if known; None where the scale runs along other axes."""
    if len(axes) > 1:  # a layer norm over several axes has a scale over the same ones; without, it is some other norm
        trailing = tuple(range(-len(axes), 0))
        fits = scale is not None and len(scale.shape) == len(axes) and tuple(sorted(axes)) in (trailing, axes)
        return (-1, rank) if fits else None
    axis = axes[0] if axes else 0
    if scale is None or scale.channel is None:
        return (axis, rank) if axis < 0 else (-1, None) if axis > 1 else None  # axis 1 may well be time
    if axis < 0:
        return (axis, rank) if axis == scale.channel else None
    rank = axis - scale.channel
    return (scale.channel, rank) if axis and rank >= len(scale.shape) else None


def _scaled_after_reshape(view: GraphView, value: str) -> bool:
    """Whether a scale along another axis than the last follows a reshape: a group norm."""
    step = _next(view, value, "Mul", 1, reshaped=True)
    return step is not None and step[0].channel != -1
