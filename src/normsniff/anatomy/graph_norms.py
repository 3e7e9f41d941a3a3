"""Norms in a computation graph, found by what is computed: one operator, or the arithmetic spelled out.

A spelled-out norm is anchored at the root of a mean of squares. Three questions decide what it is: what was
squared (x itself, or x minus its mean), does the same x get divided by the root, and over which axis. The
forms that exporters write are listed in formats.md, sections 3.3 and 3.4.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..formats.checkpoint import Operator
from .graph_view import RESHAPING, SAME, GraphView, Weight
from .parts import NormKind

_STEPS = 16  # operators between two landmarks of one norm; exporters put six at most
_BRANCHES = 64  # values visited on the way from a root to where it divides


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


class _Fused(NamedTuple):
    kind: NormKind
    sources: tuple[int, ...]
    scale: int
    shift: int | None = None


# Operators.md and ContribOperators.md: operator -> input indices. Input 3 of SkipSimplifiedLayerNormalization is the
# bias of the linear layer before it, not a shift.
_FUSED: Mapping[str, _Fused] = {
    "LayerNormalization": _Fused("LayerNorm", (0,), 1, 2),
    "RMSNormalization": _Fused("RMSNorm", (0,), 1),
    "SimplifiedLayerNormalization": _Fused("RMSNorm", (0,), 1),
    "SkipLayerNormalization": _Fused("LayerNorm", (0, 1), 2, 3),
    "SkipSimplifiedLayerNormalization": _Fused("RMSNorm", (0, 1), 2),
    "EmbedLayerNormalization": _Fused("LayerNorm", (), 5, 6),
    "QOrderedLayerNormalization": _Fused("LayerNorm", (0,), 2, 3),
    "GatedRMSNorm": _Fused("RMSNorm", (0,), 1),
    "BranchwiseRMSNorm": _Fused("RMSNorm", (0,), 1),
    "RMSNormRotary": _Fused("RMSNorm", (0,), 1),
}
_INSIDE_ATTENTION: Mapping[str, tuple[int, ...]] = {"GroupQueryAttention": (14, 15), "PagedAttention": (12, 13)}
_INSIDE_PROJECTION = {"MatMulNBitsQkv": 2, "MatMulNBitsMlp": 2}  # RMSNorm of (A + skip), then the products
_OTHERS: Mapping[str, str] = {
    "BatchNormalization": "BatchNorm", "InstanceNormalization": "InstanceNorm", "GroupNormalization": "GroupNorm",
    "GroupNorm": "GroupNorm", "SkipGroupNorm": "GroupNorm", "LpNormalization": "L2Norm", "LRN": "LocalResponseNorm",
    "MeanVarianceNormalization": "InstanceNorm",
}  # fmt: skip


class _Moment(NamedTuple):
    """A mean of squares: of `base`, over `axes`; `data` is what it is about, `centred` if its mean was subtracted."""

    data: str
    base: str
    centred: bool
    axes: tuple[int, ...]
    scaled: bool


def find_norms(view: GraphView) -> tuple[list[Norm], Counter[str]]:
    """Return the norms of a graph in its order, and a count of normalisers that are neither LayerNorm nor RMSNorm."""
    norms: list[Norm] = []
    others: Counter[str] = Counter()
    for op in view.operators:
        found = _of_operator(view, op)
        if isinstance(found, Norm):
            norms.append(found)
        elif found is not None:
            others[found] += 1
        norms += _inside(view, op)
    return norms, others


def _of_operator(view: GraphView, op: Operator) -> Norm | str | None:
    if op.op_type in _FUSED and op.outputs:
        return _fused(view, op)
    if op.op_type in ("InstanceNormalization", "BatchNormalization", "MeanVarianceNormalization"):
        return _borrowed(view, op) or _OTHERS[op.op_type]
    if op.op_type in _OTHERS:
        return _OTHERS[op.op_type]
    if op.op_type in ("Sqrt", "Rsqrt", "Pow", "ReduceL2") and op.inputs and op.outputs:
        return _spelled_out(view, op)
    return None


def _input(op: Operator, index: int | None) -> str:
    return op.inputs[index] if index is not None and index < len(op.inputs) else ""


def _fused(view: GraphView, op: Operator) -> Norm:
    kind, sources, scale, shift = _FUSED[op.op_type]
    values = tuple(op.inputs[i] for i in sources if i < len(op.inputs))
    why = f"{op.op_type} operator"
    if kind == "RMSNorm" and len(values) == 1 and (centred := _centred(view, values[0])) is not None:
        kind, values, why = "LayerNorm", (centred.data,), f"mean subtracted, then {op.op_type} operator"
    return Norm(
        op, kind, values, op.outputs[0], scale=view.weight(_input(op, scale)),
        shift=view.weight(_input(op, shift)), why=why,
    )  # fmt: skip


def _inside(view: GraphView, op: Operator) -> Iterator[Norm]:
    for index in _INSIDE_ATTENTION.get(op.op_type, ()):
        scale = view.weight(_input(op, index))
        if scale is not None:
            why = f"norm weight of the {op.op_type} operator"
            yield Norm(op, "RMSNorm", (), "", scale=scale, why=why, inside_attention=True)
    if op.op_type in _INSIDE_PROJECTION and (scale := view.weight(_input(op, _INSIDE_PROJECTION[op.op_type]))):
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
        mean = _mean(view, _input(op, 3))
        if mean is None or _stored_vector(view, op):
            return None
        source = mean.data
    elif op.op_type == "MeanVarianceNormalization" and view.integers(op, "axes", 99) != (-1,):
        return None
    scale, shift, output = _affine_after(view, op.outputs[0], None, reshaped=op.op_type == "BatchNormalization")
    if op.op_type == "InstanceNormalization" and (scale is None or scale.channel != -1 or _stored_vector(view, op)):
        return None
    if op.op_type == "BatchNormalization" and (scale is None or scale.channel != -1):
        return None
    return Norm(op, "LayerNorm", (source,), output, scale=scale, shift=shift, why=f"{op.op_type} over the channels")


def _stored_vector(view: GraphView, op: Operator) -> bool:
    """Whether the operator's own scale is a trained one: a stored vector that is not all ones."""
    array = view.constants.get(_input(op, 1))
    if array is not None:
        return bool((array != 1).any())
    return view.vector(_input(op, 1)) is not None


def _spelled_out(view: GraphView, op: Operator) -> Norm | str | None:
    moment = _root_of(view, op)
    if moment is None:
        return None
    point = _division(view, op.outputs[0], moment)
    if point is None:
        return None
    output, scale, shift = point
    folded = scale is not None
    number, output = (1.0, output) if moment.scaled else _times_number(view, output)
    scale, after, output = _affine_after(view, output, scale, len(moment.axes))
    shift = shift or after
    if not moment.scaled and not (scale is not None and math.isclose(number**2, scale.tensor.size, rel_tol=0.01)):
        return "L2Norm"  # normalised to length 1; times the root of the width it would be a norm like any other
    place = _place(moment.axes, scale)
    if place is None or (scale is None and _scaled_after_reshape(view, output)):
        return "BatchNorm" if moment.axes == (0,) else "GroupNorm" if len(moment.axes) == 1 else "InstanceNorm"
    kind: NormKind = "LayerNorm" if moment.centred else "RMSNorm"
    steps = ["mean subtracted, variance" if moment.centred else "mean of squares, no mean subtracted"]
    steps += ["scale folded into the factor" if folded else "scale"] if scale is not None else []
    steps += ["shift"] if shift is not None else []
    return Norm(op, kind, (moment.data,), output, *place, scale, shift, f"decomposed: {', '.join(steps)}")


def _root_of(view: GraphView, op: Operator) -> _Moment | None:
    """Return the mean (or, not scaled, the sum) of squares that `op` takes the root of."""
    if op.op_type == "ReduceL2":
        axes = view.integers(op, "axes", 1)
        base = view.plain(op.inputs[0])
        return None if axes is None else _about(view, base, axes, scaled=False)
    if op.op_type == "Pow" and view.scalar(_input(op, 1)) not in (0.5, -0.5):
        return None
    return _mean_square(view, op.inputs[0], depth=1)


def _mean_square(view: GraphView, value: str, depth: int) -> _Moment | None:
    value, scaled = _under(view, value)
    op = view.producer(value)
    if op is None or not op.inputs:
        return None
    if op.op_type == "Sub" and depth:  # E[x²] - E[x]²
        squares, mean = _mean_square(view, op.inputs[0], 0), _square_base(view, _input(op, 1))
        inner = None if mean is None else _mean(view, mean)
        if squares is not None and inner is not None and squares.data == inner.data:
            return squares._replace(centred=True)
        return None
    axes = view.integers(op, "axes", 1)
    if axes is None:
        return None
    if op.op_type == "ReduceSumSquare":
        return _about(view, view.plain(op.inputs[0]), axes, scaled=scaled)
    base = _square_base(view, op.inputs[0]) if op.op_type in ("ReduceMean", "ReduceSum") else None
    return None if base is None else _about(view, base, axes, scaled=scaled or op.op_type == "ReduceMean")


def _about(view: GraphView, base: str, axes: tuple[int, ...], *, scaled: bool) -> _Moment:
    centred = _centred(view, base)
    return _Moment(base if centred is None else centred.data, base, centred is not None, axes, scaled)


class _Mean(NamedTuple):
    data: str
    axes: tuple[int, ...]


def _mean(view: GraphView, value: str) -> _Mean | None:
    """Return what `value` is the mean of."""
    value, scaled = _under(view, value)
    op = view.producer(value)
    if op is None or not op.inputs or not (op.op_type == "ReduceMean" or (op.op_type == "ReduceSum" and scaled)):
        return None
    axes = view.integers(op, "axes", 1)
    return None if axes is None else _Mean(view.plain(op.inputs[0]), axes)


def _centred(view: GraphView, value: str) -> _Mean | None:
    """Return x if `value` is x minus its own mean."""
    op = view.producer(view.plain(value))
    if op is None or op.op_type != "Sub" or len(op.inputs) != 2:
        return None
    mean = _mean(view, op.inputs[1])
    return mean if mean is not None and mean.data == view.plain(op.inputs[0]) else None


def _square_base(view: GraphView, value: str) -> str | None:
    """Return a if `value` is a²."""
    op = view.producer(view.plain(value))
    if op is None or len(op.inputs) != 2:
        return None
    base, other = view.plain(op.inputs[0]), view.plain(op.inputs[1])
    if op.op_type == "Pow":
        return base if view.scalar(op.inputs[1]) == 2.0 else None
    if op.op_type != "Mul":
        return None
    if base == other:
        return base
    first, second = _centred(view, base), _centred(view, other)  # older exporters subtract the mean twice
    return base if first is not None and first == second else None


def _under(view: GraphView, value: str) -> tuple[str, bool]:
    """Go back over what does not matter between a reduction and its root: shapes, ε, clipping, a constant factor.

    Returns:
        the value below, and whether a factor was met (which turns a sum into a mean).
    """
    scaled = False
    for _ in range(_STEPS):
        op = view.producer(value)
        if op is None or not op.inputs or op.outputs[0] != value:
            break
        if op.op_type in SAME or op.op_type in RESHAPING or op.op_type in ("Clip", "Relu", "Abs"):
            value = op.inputs[0]
        elif op.op_type in ("Add", "Max", "Mul", "Div"):
            pairs = view.split(op) if op.op_type != "Div" else iter([(op.inputs[0], _input(op, 1))])
            kept = next((a for a, b in pairs if _is_number(view, b)), None)
            if kept is None:
                break
            scaled |= op.op_type in ("Mul", "Div")
            value = kept
        else:
            break
    return value, scaled


def _is_number(view: GraphView, value: str) -> bool:
    """Whether a value is a stored number or one computed from shapes alone (a count of channels)."""
    if view.scalar(value) is not None:
        return True
    for _ in range(_STEPS):
        op = view.producer(value)
        if op is None or not op.inputs:
            return False
        if op.op_type in ("Shape", "Size"):
            return True
        if op.op_type not in SAME | RESHAPING | {"Gather", "Slice", "ReduceProd", "Sub", "Mul"}:
            return False
        value = op.inputs[0]
    return False


def _division(view: GraphView, root: str, moment: _Moment) -> tuple[str, Weight | None, Weight | None] | None:
    """Find where the data is divided by its root.

    Returns:
        the normalised value, and the scale and shift that were folded into the factor on the way (tf2onnx).
    """
    todo: list[tuple[str, Weight | None]] = [(root, None)]
    for value, scale in todo:
        for op in view.consumers(value):
            if not op.outputs or len(todo) > _BRANCHES:
                continue
            other = next((b for a, b in view.split(op) if a == value), "")
            divides = op.op_type == "Div" and op.inputs[-1] == value
            if op.op_type in SAME or op.op_type in RESHAPING or op.op_type in ("Reciprocal", "Max", "Clip"):
                todo.append((op.outputs[0], scale))
            elif op.op_type not in ("Add", "Mul", "Div"):
                continue
            elif view.scalar(other) is not None:
                todo.append((op.outputs[0], scale))
            elif op.op_type == "Mul" or divides:
                if _is_base(view, other, moment):
                    return op.outputs[0], scale, None
                if (early := _scaled_early(view, other, moment)) is not None:
                    return op.outputs[0], early, None
                if (vector := view.vector(other)) is not None:
                    todo.append((op.outputs[0], vector))
                elif op.op_type == "Mul" and (late := _late_centring(view, op.outputs[0], other, moment)) is not None:
                    return late[0], scale, late[1]
    return None


def _scaled_early(view: GraphView, value: str, moment: _Moment) -> Weight | None:
    """Return γ if `value` is γ times what was squared: some write ``γ·(x - mean) / σ``, which multiplies first."""
    op = view.producer(view.plain(value))
    if op is None or op.op_type != "Mul":
        return None
    return next((view.vector(a) for a, b in view.split(op) if view.vector(a) and _is_base(view, b, moment)), None)


def _is_base(view: GraphView, value: str, moment: _Moment) -> bool:
    if view.plain(value) == moment.base and not (moment.centred and moment.base == moment.data):
        return True
    centred = _centred(view, value)
    return moment.centred and centred is not None and centred.data == moment.data


def _late_centring(view: GraphView, product: str, factor: str, moment: _Moment) -> tuple[str, Weight | None] | None:
    """Follow ``x·s + (β - mean·s)``, as TensorFlow writes it; without it the mean is never subtracted."""
    if not moment.centred or view.plain(factor) != moment.data:
        return None
    for op in view.consumers(product):
        if op.op_type not in ("Add", "Sub") or len(op.inputs) != 2 or not op.outputs:
            continue
        other = op.inputs[1] if op.inputs[0] == product else op.inputs[0]
        if op.op_type == "Add":
            inner = view.producer(other)
            if inner is None or inner.op_type != "Sub" or len(inner.inputs) != 2:
                continue
            shift, other = view.vector(inner.inputs[0]), inner.inputs[1]
        else:
            shift = None
        subtracted = view.producer(other)
        if subtracted is not None and subtracted.op_type == "Mul":
            means = (_mean(view, name) for name in subtracted.inputs)
            if any(mean is not None and mean.data == moment.data for mean in means):
                return op.outputs[0], shift
    return None


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
    through = SAME | RESHAPING | {"Transpose"} if reshaped else SAME
    todo = [value]
    for at in todo:
        for op in view.consumers(at):
            if not op.outputs or len(todo) > _STEPS:
                continue
            if op.op_type in through and op.inputs[0] == at:
                todo.append(op.outputs[0])
            elif op.op_type == op_type:
                weight = view.weight(next((b for a, b in view.split(op) if a == at), ""))
                if weight is not None and (weight.channel is not None or 1 < axes == len(weight.shape)):
                    return weight, op.outputs[0]
    return None


def _times_number(view: GraphView, value: str) -> tuple[float, str]:
    """Return the stored number that a value is multiplied with, and the product; else 1 and the value itself."""
    for op in view.consumers(value):
        if op.op_type == "Mul" and op.outputs:
            number = view.scalar(next((b for a, b in view.split(op) if a == value), ""))
            if number is not None:
                return number, op.outputs[0]
    return 1.0, value


def _place(axes: tuple[int, ...], scale: Weight | None) -> tuple[int, int | None] | None:
    """Return the normalised axis from the end, and the rank if known; None where the scale runs along other axes."""
    if len(axes) > 1:  # a layer norm over several axes has a scale over the same ones; without, it is some other norm
        trailing = tuple(range(-len(axes), 0))
        fits = scale is not None and len(scale.shape) == len(axes) and tuple(sorted(axes)) in (trailing, axes)
        return (-1, None) if fits else None
    axis = axes[0] if axes else 0
    if scale is None or scale.channel is None:
        return (axis, None) if axis < 0 else (-1, None) if axis else None
    if axis < 0:
        return (axis, None) if axis == scale.channel else None
    rank = axis - scale.channel
    return (scale.channel, rank) if axis and rank >= len(scale.shape) else None


def _scaled_after_reshape(view: GraphView, value: str) -> bool:
    """Whether a scale along another axis than the last follows a reshape: a group norm."""
    step = _next(view, value, "Mul", 1, reshaped=True)
    return step is not None and step[0].channel != -1
