"""Matrices around the norms of a computation graph: what reads a norm's output, what writes into its input.

Every value is visited once, so the cost is linear in the size of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...checkpoint import Operator
from ..parts import MatrixRole
from .norms import Norm
from .view import SAME, GraphView, Weight
from .walk import CONVOLUTIONS, PRODUCTS, At, back, forward, product_of, transposed

_FEW_ROWS = 8  # a table of token types has two rows: too few to measure


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


def readers(view: GraphView, norms: list[Norm]) -> Iterator[Place]:
    """Yield the matrices that read what a norm puts out; those that make an output of the model are unembeddings."""
    heads = set(_heads(view))
    for index, norm in enumerate(norms):
        if not norm.output or norm.inside_attention:
            continue
        for op, product, axis in forward(view, At(norm.output, norm.axis, norm.rank)):
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
        todo = [At(value, norm.axis, norm.rank) for value in norm.sources]
        if norm.op.op_type in ("EmbedLayerNormalization", "QEmbedLayerNormalization"):
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
            todo += back(view, op, at)


def feeds_attention(view: GraphView, norm: Norm) -> bool:
    """Whether a norm's output goes to a product of two computed values or into attention: queries, keys."""
    if norm.inside_attention:
        return True
    todo, seen = [norm.output], set[str]()
    for value in todo:
        if len(seen) > 64:  # rotary embeddings take about 12 operators
            break
        if not value or value in seen:
            continue
        seen.add(value)
        for op in view.near(value):
            if op.op_type in _ATTENTIONS:
                if op.op_type not in PRODUCTS or not any(view.weight(name) for name in op.inputs[1:2]):
                    return True
            elif op.op_type in ("MatMul", "FusedMatMul", "Einsum"):
                if not any(view.weight(name) for name in op.inputs[:2]):
                    return True
            elif op.op_type in SAME or op.op_type in _ELEMENTWISE or op.op_type in _OUTPUT_STEPS:
                todo += view.onward(op.outputs)
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
            computed = [name for name in op.inputs[:3] if not view.is_stored(name)]
            if len(computed) != 1:
                return True
            value = computed[0]
        elif op.op_type == "Gather":
            return view.weight(op.inputs[0]) is not None
        elif op.op_type in SAME or op.op_type in ("Reshape", "Transpose", "Mul"):
            value = next((name for name in op.inputs[:2] if not view.is_stored(name)), "")
        else:
            return False
    return False


def _wide(norm: Norm, weight: Weight, axis: int) -> bool:
    width = None if norm.scale is None or norm.scale.channel is None else norm.scale.tensor.size
    return len(weight.shape) > 1 and (width is None or weight.tensor.shape[axis] == width)


def _written(view: GraphView, op: Operator, at: At, norm: int) -> Place | None:
    """Return the matrix or table whose product or rows a value is."""
    if op.op_type == "Gather" and at.axis == -1 and len(op.inputs) == 2:
        weight = view.weight(op.inputs[0])
        if weight is None or len(weight.shape) < 2 or weight.shape[0] < _FEW_ROWS:
            return None
        stored = weight.stored_axis(-1)
        role: MatrixRole = "embedding" if _depends_on_input(view, op.inputs[1]) else "position"
        return None if stored is None else Place(weight, stored, role, norm)
    for data in op.inputs[:2]:
        product = product_of(op, data)
        weight = None if product is None else view.weight(op.inputs[product.weight])
        if product is None or weight is None or weight.offset or op.op_type in _ATTENTIONS:
            continue
        kept = product.kept
        if op.op_type in CONVOLUTIONS:
            if op.attributes.get("group", 1) != 1:
                continue
            wanted = 1 - len(weight.shape)
        else:
            wanted = -1 if product.data == 0 else -2
            kept = -3 - kept if transposed(op, product) else kept
        stored = weight.stored_axis(kept)
        return Place(weight, stored, "writer", norm) if stored is not None and at.axis == wanted else None
    return None


def _added_table(view: GraphView, at: At, norm: int) -> Place | None:
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
        weight = view.weight(norm.op.inputs[position]) if position < len(norm.op.inputs) else None
        stored = None if weight is None else weight.stored_axis(-1)
        if weight is not None and stored is not None:
            yield Place(weight, stored, role, index)


def _depends_on_input(view: GraphView, value: str) -> bool:
    """Whether a value comes from the data of a model input, not only from its shape."""
    todo, seen = [value], set[str]()
    for name in todo:
        if len(seen) > 200:
            break
        if name in seen:
            continue
        seen.add(name)
        if name in view.inputs:
            return True
        op = view.producer(name)
        if op is not None and op.op_type not in ("Shape", "Size"):
            todo += view.onward(op.inputs)
    return False


def _heads(view: GraphView) -> Iterator[str]:
    """Yield the products that are outputs of the model but for a bias, a softmax or a change of shape."""
    todo, ends = list(view.outputs), frozenset(view.outputs)
    seen: set[str] = set()
    for value in todo:
        op = view.producer(value)
        if value in seen or op is None:
            continue
        seen.add(value)
        # a key that is handed out for the cache is also used inside, a logit is not
        if len(view.consumers(value)) > (value not in ends):
            continue
        if op.op_type in PRODUCTS:
            yield value
        elif op.op_type in SAME or op.op_type in _OUTPUT_STEPS or op.op_type in ("Add", "Mul", "Div"):
            todo += [name for name in view.onward(op.inputs) if name and not view.is_stored(name)]
