"""Matrices around the norms of a computation graph: what reads a norm's output, what writes into its input.

The walk carries the channel axis along, counted from the end, through the operators that move or rename axes.
Every value is visited once, so the cost is linear in the size of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..formats.checkpoint import Operator
from .graph_norms import Norm
from .graph_view import SAME, GraphView, Weight
from .parts import MatrixRole

_FEW_ROWS = 8  # a table of token types has two rows: too few to measure


class _Product(NamedTuple):
    """Input indices of data and weight of a product, and the axes of the weight that are summed over and kept."""

    data: int
    weight: int
    summed: int
    kept: int


# Operators.md, ContribOperators.md. Axes are those of a weight that is not transposed.
_PRODUCTS: Mapping[str, _Product] = {
    "MatMul": _Product(0, 1, -2, -1), "MatMulInteger": _Product(0, 1, -2, -1), "FusedMatMul": _Product(0, 1, -2, -1),
    "TransposeMatMul": _Product(0, 1, -2, -1), "DynamicQuantizeMatMul": _Product(0, 1, -2, -1),
    "MatMulIntegerToFloat": _Product(0, 1, -2, -1), "Gemm": _Product(0, 1, -2, -1),
    "FusedGemm": _Product(0, 1, -2, -1), "GemmFastGelu": _Product(0, 1, -2, -1),
    "QLinearMatMul": _Product(0, 3, -2, -1), "QGemm": _Product(0, 3, -2, -1),
    "Attention": _Product(0, 1, -2, -1), "QAttention": _Product(0, 1, -2, -1),
    "PackedAttention": _Product(0, 1, -2, -1), "DecoderMaskedSelfAttention": _Product(0, 1, -2, -1),
    "Conv": _Product(0, 1, 1, 0), "ConvInteger": _Product(0, 1, 1, 0), "QLinearConv": _Product(0, 3, 1, 0),
    "FusedConv": _Product(0, 1, 1, 0),
}  # fmt: skip
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv"})
_ATTENTIONS = frozenset(
    {"Attention", "QAttention", "PackedAttention", "MultiHeadAttention", "GroupQueryAttention", "PagedAttention",
     "DecoderMaskedSelfAttention", "DecoderMaskedMultiHeadAttention", "RotaryEmbedding", "SparseAttention"}
)  # fmt: skip
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Concat", "Slice", "Split", "Where", "Expand", "Gather"})
_OUTPUT_STEPS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Tanh", "Clip", "ArgMax", "Slice", "Gather", "Reshape",
                           "Squeeze", "Unsqueeze", "Transpose", "Flatten", "If"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A matrix beside a norm.

    Attributes:
        weight: the matrix.
        axis: of the stored tensor, along the residual stream.
        role: what it does.
        norm: index of the norm.
    """

    weight: Weight
    axis: int
    role: MatrixRole
    norm: int


class _At(NamedTuple):
    """A value on the walk: its channel axis from the end, and its number of axes if known."""

    value: str
    axis: int
    rank: int | None


def readers(view: GraphView, norms: list[Norm]) -> Iterator[Place]:
    """Yield the matrices that read what a norm puts out; those that make an output of the model are unembeddings."""
    heads = set(_heads(view))
    for index, norm in enumerate(norms):
        if not norm.output or norm.inside_attention:
            continue
        for op, product, axis in _forward(view, _At(norm.output, norm.axis, norm.rank)):
            weight = view.weight(op.inputs[product.weight])
            if weight is None or weight.offset:
                continue
            stored = weight.stored_axis(axis)
            if stored is not None and _wide(norm, weight, stored):
                role: MatrixRole = "unembedding" if op.outputs[0] in heads else "reader"
                yield Place(weight, stored, role, index)


def writers(view: GraphView, norms: list[Norm], wanted: set[int]) -> Iterator[Place]:
    """Yield the matrices and tables that are added up into what a norm of `wanted` reads."""
    visited: set[tuple[str, int]] = set()
    stops = {norm.output for norm in norms}
    for index in sorted(wanted):
        norm = norms[index]
        todo = [_At(value, norm.axis, norm.rank) for value in norm.sources]
        if norm.op.op_type == "EmbedLayerNormalization":
            yield from _embedded(view, norm, index)
        for at in todo:
            if (at.value, at.axis) in visited or at.value in stops:
                continue
            visited.add((at.value, at.axis))
            op = view.producer(at.value)
            if op is None or view.is_stored(at.value):
                place = _added_table(view, at, index)
                if place is not None and _wide(norm, place.weight, place.axis):
                    yield place
                continue
            place = _written(view, op, at, index)
            if place is not None:
                if _wide(norm, place.weight, place.axis):
                    yield place
                continue
            todo += _back(view, op, at)


def feeds_attention(view: GraphView, norm: Norm) -> bool:
    """Whether a norm's output goes to a product of two computed values or into attention: queries, keys."""
    if norm.inside_attention:
        return True
    todo, seen = [norm.output], set[str]()
    for value in todo:
        if not value or value in seen or len(seen) > 64:  # rotary embeddings take about 12 operators
            continue
        seen.add(value)
        for op in view.consumers(value):
            if op.op_type in _ATTENTIONS:
                if op.op_type not in _PRODUCTS or view.weight(op.inputs[1]) is None:
                    return True
            elif op.op_type in ("MatMul", "FusedMatMul", "Einsum"):
                if not any(view.weight(name) for name in op.inputs):
                    return True
            elif op.op_type in SAME or op.op_type in _ELEMENTWISE or op.op_type in _OUTPUT_STEPS:
                todo += op.outputs
    return False


def adds_up(view: GraphView, norm: Norm) -> bool:
    """Whether what a norm reads is a sum of two computed values, or rows of a table: a residual stream."""
    if len(norm.sources) != 1:
        return True
    value = norm.sources[0]
    for _ in range(8):
        op = view.producer(value)
        if op is None or not op.inputs:
            return False
        if op.op_type in ("Add", "Sum", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
            computed = [name for name in op.inputs if not view.is_stored(name)]
            if len(computed) != 1:
                return True
            value = computed[0]
        elif op.op_type == "Gather":
            return view.weight(op.inputs[0]) is not None
        elif op.op_type in SAME or op.op_type in ("Reshape", "Transpose", "Mul"):
            value = next((name for name in op.inputs if not view.is_stored(name)), "")
        else:
            return False
    return False


def _wide(norm: Norm, weight: Weight, axis: int) -> bool:
    width = None if norm.scale is None or norm.scale.channel is None else norm.scale.tensor.size
    return len(weight.shape) > 1 and (width is None or weight.tensor.shape[axis] == width)


def _forward(view: GraphView, start: _At) -> Iterator[tuple[Operator, _Product, int]]:
    """Yield (operator, how it multiplies, axis of its weight that meets the channels) downstream of a value."""
    todo, seen = [start], {start.value}
    for at in todo:
        for op in view.consumers(at.value):
            product = _product(op, at.value)
            if product is not None:
                axis = _summed_axis(view, op, product, at)
                if axis is not None:
                    yield op, product, axis
            elif (after := _step(view, op, at)) is not None and after.value not in seen:
                seen.add(after.value)
                todo.append(after)


def _product(op: Operator, value: str) -> _Product | None:
    """Return how an operator multiplies `value` with a weight."""
    product = _PRODUCTS.get(op.op_type)
    if product is None or not op.outputs or len(op.inputs) <= product.weight:
        return None
    if op.op_type == "Attention" and op.domain == "":  # the standard's Attention takes queries, keys and values
        return None
    if op.inputs[product.data] == value:
        return product
    if op.op_type in ("MatMul", "Gemm", "MatMulInteger") and op.inputs[1] == value:  # W · x
        return _Product(1, 0, -1, -2)
    return None


def _summed_axis(view: GraphView, op: Operator, product: _Product, at: _At) -> int | None:
    """Return the axis of the weight that is summed with the channels, or None if the sum runs over another axis."""
    weight = view.weight(op.inputs[product.weight])
    if weight is None:
        return None
    if op.op_type in _CONVOLUTIONS:
        grouped = op.attributes.get("group", 1) != 1
        return None if grouped or at.axis != 1 - len(weight.shape) else 1
    transposed = _transposed(op, product)
    own = "transA" if product.data == 0 else "transB"
    expected = -1 if product.data == 0 else -2
    if op.attributes.get(own):
        expected = -3 - expected
    return (-3 - product.summed if transposed else product.summed) if at.axis == expected else None


def _transposed(op: Operator, product: _Product) -> bool:
    return bool(op.attributes.get("transB" if product.weight else "transA", 0))


def _step(view: GraphView, op: Operator, at: _At) -> _At | None:
    """Return where the channels are after an operator that keeps them whole, or None."""
    if not op.outputs or not op.inputs:
        return None
    out = op.outputs[0]
    if op.op_type in SAME or op.op_type in ("Slice", "Expand"):
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
        return _At(out, perm.index(at.axis + len(perm)) - len(perm), len(perm))
    if op.op_type in ("Unsqueeze", "Squeeze"):
        return _resized(view, op, at, out)
    if op.op_type in ("Reshape", "Flatten"):
        return _regrouped(view, op, at, out)
    if op.op_type in ("Gather", "ReduceMean", "ReduceMax", "ReduceSum") and at.axis == -1:  # one position, or a pooling
        axes = view.integers(op, "axis" if op.op_type == "Gather" else "axes", 99 if op.op_type == "Gather" else 1)
        return _At(out, -1, None) if axes is not None and -1 not in axes and (at.rank or 99) - 1 not in axes else None
    return None


def _resized(view: GraphView, op: Operator, at: _At, out: str) -> _At | None:
    axes = view.integers(op, "axes", 1)
    if axes is None:
        return _At(out, at.axis, None) if at.axis == -1 else None
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
    return _At(out, axis, rank)


def _regrouped(view: GraphView, op: Operator, at: _At, out: str) -> _At | None:
    """Follow a reshape that keeps the channels as the last axis; (batch, channels, ...) flattened is followed too."""
    target = view.integers(op, "shape", 1) if op.op_type == "Reshape" else None
    if at.axis == -1:
        return _At(out, -1, None if target is None else len(target))
    if target is not None and at.axis == -3 and len(target) == 3 and target[2] == -1:  # (N, C, H, W) -> (N, C, H·W)
        return _At(out, -2, 3)
    return None


def _written(view: GraphView, op: Operator, at: _At, norm: int) -> Place | None:
    """Return the matrix or table whose product or rows a value is."""
    if op.op_type == "Gather" and at.axis == -1:
        weight = view.weight(op.inputs[0])
        if weight is None or len(weight.shape) < 2 or weight.shape[0] < _FEW_ROWS:
            return None
        stored = weight.stored_axis(-1)
        role: MatrixRole = "embedding" if _depends_on_input(view, op.inputs[1]) else "position"
        return None if stored is None else Place(weight, stored, role, norm)
    for data in op.inputs[:2]:
        product = _product(op, data)
        weight = None if product is None else view.weight(op.inputs[product.weight])
        if product is None or weight is None or weight.offset or op.op_type in _ATTENTIONS:
            continue
        kept = product.kept
        if op.op_type in _CONVOLUTIONS:
            wanted = 1 - len(weight.shape)
        else:
            wanted = -1 if product.data == 0 else -2
            kept = -3 - kept if _transposed(op, product) else kept
        stored = weight.stored_axis(kept)
        return Place(weight, stored, "writer", norm) if stored is not None and at.axis == wanted else None
    return None


def _added_table(view: GraphView, at: _At, norm: int) -> Place | None:
    """Return the table of positions that a stored matrix is if it is added to the stream as it is."""
    weight = view.weight(at.value)
    if weight is None or at.axis != -1 or weight.channel is not None or weight.offset:
        return None
    stored = weight.stored_axis(-1)
    rows = weight.tensor.size // max(weight.shape[-1:], default=1) if weight.tensor.size else 0
    return Place(weight, stored, "position", norm) if stored is not None and rows >= _FEW_ROWS else None


def _embedded(view: GraphView, norm: Norm, index: int) -> Iterator[Place]:
    roles: tuple[tuple[int, MatrixRole], ...] = ((2, "embedding"), (3, "position"))
    for position, role in roles:
        weight = view.weight(norm.op.inputs[position])
        stored = None if weight is None else weight.stored_axis(-1)
        if weight is not None and stored is not None:
            yield Place(weight, stored, role, index)


def _back(view: GraphView, op: Operator, at: _At) -> Iterator[_At]:
    """Yield the values of which `at` is the sum, or the same values in other places."""
    kind = op.op_type
    computed = [name for name in op.inputs if name and not view.is_stored(name)]
    if kind in ("Add", "Sum"):
        yield from (at._replace(value=name) for name in op.inputs)
    elif kind in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        if at.value != op.outputs[0]:  # the sum, handed on
            yield from (at._replace(value=name) for name in op.inputs[:2])
    elif kind == "Mul" or kind == "Div":
        if (product := _rescaled(view, op)) is not None:
            yield at._replace(value=product)
        elif len(computed) == 1 and (kind == "Mul" or computed[0] == op.inputs[0]):  # a number, or a layer scale
            yield at._replace(value=computed[0])
    elif kind == "Where":
        yield from (at._replace(value=name) for name in op.inputs[1:] if name in computed)
    elif kind in ("Concat", "If"):
        if kind == "If" or op.attributes.get("axis") not in (at.axis, None if at.rank is None else at.axis + at.rank):
            yield from (at._replace(value=name) for name in computed)
    elif kind in SAME or kind in ("Slice", "Expand"):
        yield at._replace(value=op.inputs[0])
    elif kind == "Transpose":
        perm = view.integers(op, "perm", 9)
        if perm is not None and sorted(perm) == list(range(len(perm))) and -len(perm) <= at.axis:
            yield _At(op.inputs[0], perm[at.axis] - len(perm), len(perm))
    elif kind in ("Unsqueeze", "Squeeze"):
        axes = view.integers(op, "axes", 1)
        if at.axis == -1 and axes is not None and -1 not in axes:
            yield _At(op.inputs[0], -1, None)
    elif kind in ("Reshape", "Flatten"):
        if at.axis == -1:
            yield _At(op.inputs[0], -1, None)
        elif at.axis == -2:  # (N, C, H, W) -> (N, C, H·W), patches of an image
            yield _At(op.inputs[0], -3, 4)


def _rescaled(view: GraphView, op: Operator) -> str | None:
    """Return the integer product under ``Mul(Cast(MatMulInteger), scales)``, where the scales are computed too."""
    for name in op.inputs:
        source = view.plain(name)
        producer = view.producer(source)
        if producer is not None and producer.op_type in ("MatMulInteger", "ConvInteger"):
            return source
    return None


def _depends_on_input(view: GraphView, value: str) -> bool:
    """Whether a value comes from the data of a model input, not only from its shape."""
    todo, seen = [value], set[str]()
    for name in todo:
        if name in seen or len(seen) > 200:
            continue
        seen.add(name)
        if name in view.inputs:
            return True
        op = view.producer(name)
        if op is not None and op.op_type not in ("Shape", "Size"):
            todo += op.inputs
    return False


def _heads(view: GraphView) -> Iterator[str]:
    """Yield the products that are outputs of the model but for a bias, a softmax or a change of shape."""
    todo = list(view.outputs)
    seen: set[str] = set()
    for value in todo:
        op = view.producer(value)
        if value in seen or op is None:
            continue
        seen.add(value)
        # a key that is handed out for the cache is also used inside, a logit is not
        if len(view.consumers(value)) > (value not in view.outputs):
            continue
        if op.op_type in _PRODUCTS:
            yield value
        elif op.op_type in SAME or op.op_type in _OUTPUT_STEPS or op.op_type in ("Add", "Mul", "Div"):
            todo += [name for name in op.inputs if name and not view.is_stored(name)]
