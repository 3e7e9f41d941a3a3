"""Walking along the channels of a graph: forward to the products that sum over them, back to what they are a sum of.

The walk carries the channel axis along, counted from the end, through the operators that move or rename axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ...checkpoint import Operator
from .view import SAME, GraphView


class Product(NamedTuple):
    """Input indices of data and weight of a product, and the axes of the weight that are summed over and kept."""

    data: int
    weight: int
    summed: int
    kept: int


# Operators.md, ContribOperators.md. Axes are those of a weight that is not transposed.
PRODUCTS: Mapping[str, Product] = {
    "MatMul": Product(0, 1, -2, -1), "MatMulInteger": Product(0, 1, -2, -1), "FusedMatMul": Product(0, 1, -2, -1),
    "TransposeMatMul": Product(0, 1, -2, -1), "DynamicQuantizeMatMul": Product(0, 1, -2, -1),
    "MatMulIntegerToFloat": Product(0, 1, -2, -1), "Gemm": Product(0, 1, -2, -1),
    "FusedGemm": Product(0, 1, -2, -1), "GemmFastGelu": Product(0, 1, -2, -1),
    "QLinearMatMul": Product(0, 3, -2, -1), "QGemm": Product(0, 3, -2, -1),
    "Attention": Product(0, 1, -2, -1), "QAttention": Product(0, 1, -2, -1),
    "PackedAttention": Product(0, 1, -2, -1), "DecoderMaskedSelfAttention": Product(0, 1, -2, -1),
    "MatMulNBits": Product(0, 1, -1, -2),
    "Conv": Product(0, 1, 1, 0), "ConvInteger": Product(0, 1, 1, 0), "QLinearConv": Product(0, 3, 1, 0),
    "FusedConv": Product(0, 1, 1, 0),
}  # fmt: skip
CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv"})


class At(NamedTuple):
    """A value on the walk: its channel axis from the end, and its number of axes if known."""

    value: str
    axis: int
    rank: int | None


def forward(view: GraphView, start: At) -> Iterator[tuple[Operator, Product, int]]:
    """Yield (operator, how it multiplies, axis of its weight that meets the channels) downstream of a value."""
    todo, seen = [start], {start.value}
    for at in todo:
        for op in view.consumers(at.value):
            product = product_of(op, at.value)
            if product is not None:
                axis = _summed_axis(view, op, product, at)
                if axis is not None:
                    yield op, product, axis
            elif (after := _step(view, op, at)) is not None and after.value not in seen:
                seen.add(after.value)
                todo.append(after)


def product_of(op: Operator, value: str) -> Product | None:
    """Return how an operator multiplies `value` with a weight."""
    product = PRODUCTS.get(op.op_type)
    if product is None or not op.outputs or len(op.inputs) <= product.weight:
        return None
    if op.op_type == "Attention" and op.domain == "":  # the standard's Attention takes queries, keys and values
        return None
    if op.inputs[product.data] == value:
        return product
    if op.op_type in ("MatMul", "Gemm", "MatMulInteger") and op.inputs[1] == value:  # W · x
        return Product(1, 0, -1, -2)
    return None


def _summed_axis(view: GraphView, op: Operator, product: Product, at: At) -> int | None:
    """Return the axis of the weight that is summed with the channels, or None if the sum runs over another axis."""
    weight = view.weight(op.inputs[product.weight])
    if weight is None:
        return None
    if op.op_type in CONVOLUTIONS:
        grouped = op.attributes.get("group", 1) != 1
        return None if grouped or at.axis != 1 - len(weight.shape) else 1
    own = "transA" if product.data == 0 else "transB"
    expected = -1 if product.data == 0 else -2
    if op.attributes.get(own):
        expected = -3 - expected
    if at.axis != expected:
        return None
    return -3 - product.summed if transposed(op, product) else product.summed


def transposed(op: Operator, product: Product) -> bool:
    """Whether the operator transposes its weight."""
    return bool(op.attributes.get("transB" if product.weight else "transA", 0))


def _step(view: GraphView, op: Operator, at: At) -> At | None:
    """Return where the channels are after an operator that keeps them whole, or None."""
    if not op.outputs or not op.inputs:
        return None
    out = op.outputs[0]
    if op.op_type in SAME or op.op_type in ("Slice", "Expand", "Pad"):
        return at._replace(value=out) if op.inputs[0] == at.value else None
    if op.op_type in ("Mul", "Div"):  # by one number
        other = next((b for a, b in view.split(op) if a == at.value), "")
        return at._replace(value=out) if view.scalar(other) is not None else None
    if op.inputs[0] != at.value:
        return None
    if op.op_type == "Transpose":
        perm = view.integers(op, "perm", 9)
        if perm is None or sorted(perm) != list(range(len(perm))) or not -len(perm) <= at.axis:
            return None
        return At(out, perm.index(at.axis + len(perm)) - len(perm), len(perm))
    if op.op_type in ("Unsqueeze", "Squeeze"):
        return _resized(view, op, at, out)
    if op.op_type in ("Reshape", "Flatten"):
        return _regrouped(view, op, at, out)
    if op.op_type in ("Gather", "ReduceMean", "ReduceMax", "ReduceSum") and at.axis == -1:  # one position, or a pooling
        axes = view.integers(op, "axis" if op.op_type == "Gather" else "axes", 99 if op.op_type == "Gather" else 1)
        return At(out, -1, None) if axes is not None and -1 not in axes and (at.rank or 99) - 1 not in axes else None
    return None


def _resized(view: GraphView, op: Operator, at: At, out: str) -> At | None:
    axes = view.integers(op, "axes", 1)
    if axes is None:
        return At(out, at.axis, None) if at.axis == -1 else None
    grows = op.op_type == "Unsqueeze"
    rank = None if at.rank is None else at.rank + (len(axes) if grows else -len(axes))
    total = rank if grows else at.rank
    # Without a rank, axes counted from the front are taken to be in front of the channels.
    from_end = [a for a in axes if a < 0] if total is None else [a if a < 0 else a - total for a in axes]
    axis = at.axis
    for a in sorted(from_end, reverse=True):
        if grows and a >= axis:
            axis -= 1
        elif not grows and a > at.axis:
            axis += 1
    return At(out, axis, rank)


def _regrouped(view: GraphView, op: Operator, at: At, out: str) -> At | None:
    """Follow a reshape that keeps the channels as the last axis; (batch, channels, ...) flattened is followed too."""
    target = view.integers(op, "shape", 1) if op.op_type == "Reshape" else None
    if at.axis == -1:
        return At(out, -1, None if target is None else len(target))
    if target is not None and at.axis == -3 and len(target) == 3 and target[2] == -1:  # (N, C, H, W) -> (N, C, H·W)
        return At(out, -2, 3)
    return None


def back(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    """Yield the values of which `at` is the sum, or the same values in other places."""
    step = _BACK.get(op.op_type)
    if step is not None:
        yield from step(view, op, at)


def _computed(view: GraphView, op: Operator) -> list[str]:
    return [name for name in op.inputs if name and not view.is_stored(name)]


def _terms(_view: GraphView, op: Operator, at: At) -> Iterator[At]:
    yield from (at._replace(value=name) for name in op.inputs)


def _skipped(_view: GraphView, op: Operator, at: At) -> Iterator[At]:
    if at.value != op.outputs[0]:  # the sum, handed on
        yield from (at._replace(value=name) for name in op.inputs[:2])


def _factor(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    computed = _computed(view, op)
    if (product := _rescaled(view, op)) is not None:
        yield at._replace(value=product)
    elif len(computed) == 1 and (op.op_type == "Mul" or computed[0] == op.inputs[0]):  # a number, or a layer scale
        yield at._replace(value=computed[0])


def _either(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    computed = _computed(view, op)
    yield from (at._replace(value=name) for name in op.inputs[1:] if name in computed)


def _all(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    yield from (at._replace(value=name) for name in _computed(view, op))


def _joined(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    """Behind a Concat along another axis than that of the channels."""
    if op.attributes.get("axis") not in (at.axis, None if at.rank is None else at.axis + at.rank):
        yield from _all(view, op, at)


def _first(_view: GraphView, op: Operator, at: At) -> Iterator[At]:
    yield at._replace(value=op.inputs[0])


def _permuted(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    perm = view.integers(op, "perm", 9)
    if perm is not None and sorted(perm) == list(range(len(perm))) and -len(perm) <= at.axis:
        yield At(op.inputs[0], perm[at.axis] - len(perm), len(perm))


def _other_axes(view: GraphView, op: Operator, at: At) -> Iterator[At]:
    axes = view.integers(op, "axes", 1)
    if at.axis == -1 and axes is not None and -1 not in axes:
        yield At(op.inputs[0], -1, None)


def _grouped(_view: GraphView, op: Operator, at: At) -> Iterator[At]:
    if at.axis == -1:
        yield At(op.inputs[0], -1, None)
    elif at.axis == -2:  # (N, C, H, W) -> (N, C, H·W), patches of an image
        yield At(op.inputs[0], -3, 4)


def _rescaled(view: GraphView, op: Operator) -> str | None:
    """Return the integer product under ``Mul(Cast(MatMulInteger), scales)``, where the scales are computed too."""
    for name in op.inputs:
        source = view.plain(name)
        producer = view.producer(source)
        if producer is not None and producer.op_type in ("MatMulInteger", "ConvInteger"):
            return source
    return None


_BACK: Mapping[str, Callable[[GraphView, Operator, At], Iterator[At]]] = {
    **dict.fromkeys((*SAME, "Slice", "Expand", "Pad"), _first),
    **dict.fromkeys(("Add", "Sum"), _terms),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skipped),
    **dict.fromkeys(("Mul", "Div"), _factor),
    "Where": _either,
    "If": _all,
    "Concat": _joined,
    "Transpose": _permuted,
    **dict.fromkeys(("Unsqueeze", "Squeeze"), _other_axes),
    **dict.fromkeys(("Reshape", "Flatten"), _grouped),
}
