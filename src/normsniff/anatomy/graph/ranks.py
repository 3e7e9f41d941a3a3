"""How many axes the values of a graph have, worked out from its inputs, its weights and its operators.

Without this, axis 1 may be that of the channels (of two axes) or that of time (of three), and -1 and 2 may be the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ... import meter
from ...checkpoint import MOST_AXES, Operator, TensorInfo

# The data has as many axes as the kernel (Operators.md)
_CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "FusedConv": 1, "QLinearConv": 3}
_CONSTANT = {"Shape": 1, "Size": 0, "Range": 1, "NonZero": 2, "Flatten": 2, "Gemm": 2, "QGemm": 2, "LSTM": 4, "GRU": 4,
             "EmbedLayerNormalization": 3, "QEmbedLayerNormalization": 3}  # fmt: skip
_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Where", "MatMul", "MatMulInteger",
                        "FusedMatMul", "And", "Or", "Equal", "Greater", "Less"})  # fmt: skip
_UNKNOWN = frozenset({"If", "Loop", "Scan", "SequenceAt", "SplitToSequence", "GatherND", "OneHot", "Resize",
                      "ConcatFromSequence", "StringSplit", "ImageDecoder", "TensorScatter"})  # fmt: skip
_SAME_COUNT = frozenset({"Unsqueeze", "Squeeze", "Cast", "Identity", "Max", "Min", "Add", "Sub", "Mul", "Div"})
_DOMAINS = ("", "com.microsoft")


def find_ranks(
    operators: Iterable[Operator],
    inputs: Mapping[str, int],
    tensors: Mapping[str, TensorInfo],
    constants: Mapping[str, Any],
) -> dict[str, int]:
    """Return the number of axes of every value for which it can be told.

    Args:
        operators: in execution order.
        inputs: of the inputs of the model, where known.
        tensors: stored weights.
        constants: decoded constants, among them shapes and axes.
    """
    ranks = dict(inputs)
    ranks |= {name: array.ndim for name, array in constants.items()}
    ranks |= {name: len(tensor.shape) for name, tensor in tensors.items()}
    counts = {name: int(array.size) for name, array in constants.items()}
    for op in operators:
        if not op.inputs:
            continue
        meter.charge(3 + len(op.inputs) + len(op.outputs), "counting axes")
        if (rank := _rank(op, ranks, counts)) is not None and rank <= MOST_AXES:
            ranks |= dict.fromkeys(op.outputs, rank)
        if rank in (0, 1) and (count := _count(op, ranks, counts)) is not None and count <= MOST_AXES:
            counts |= dict.fromkeys(op.outputs, count)
    return ranks


def _rank(op: Operator, ranks: Mapping[str, int], counts: Mapping[str, int]) -> int | None:
    kind, first = op.op_type, ranks.get(op.inputs[0])
    if kind in _CONSTANT:
        return _CONSTANT[kind]
    if kind in _UNKNOWN or op.domain not in _DOMAINS:
        return None
    if kind in _CONVOLUTIONS:
        return first if first is not None else _of(op, _CONVOLUTIONS[kind], ranks)
    if kind in _BROADCAST:
        found = [ranks.get(name) for name in op.inputs if name]
        known = [rank for rank in found if rank is not None]
        return max(known) if len(known) == len(found) else None
    if kind == "Reshape":
        return _listed(op, "shape", counts)
    if kind == "Einsum":
        result = str(op.attributes.get("equation", "")).partition("->")[2].replace(" ", "")
        return len(result) if result.isalpha() else None
    if kind == "ConstantOfShape":
        return counts.get(op.inputs[0])
    if kind == "Expand":
        target = _listed(op, "shape", counts)
        return None if target is None or first is None else max(first, target)
    if kind == "Transpose":
        return len(op.attributes["perm"]) if "perm" in op.attributes else first
    if first is None:
        return None
    if kind == "Gather":
        indices = _of(op, 1, ranks)
        return None if indices is None else first + indices - 1
    if kind in ("Unsqueeze", "Squeeze"):
        axes = _listed(op, "axes", counts)
        return None if axes is None else first + (axes if kind == "Unsqueeze" else -axes)
    if kind.startswith("Reduce") and not op.attributes.get("keepdims", 1):
        axes = _listed(op, "axes", counts)
        return None if axes is None else first - axes
    if kind in ("ArgMax", "ArgMin"):
        return first - (not op.attributes.get("keepdims", 1))
    return first  # most operators keep the axes of their first input


def _of(op: Operator, index: int, ranks: Mapping[str, int]) -> int | None:
    return ranks.get(op.inputs[index]) if index < len(op.inputs) else None


def _listed(op: Operator, name: str, counts: Mapping[str, int]) -> int | None:
    """Return how many integers a list has that is an attribute or the second input."""
    found = op.attributes.get(name)
    if found is None:
        return counts.get(op.inputs[1]) if len(op.inputs) > 1 else None
    return len(found) if isinstance(found, tuple | list) else None


def _count(op: Operator, ranks: Mapping[str, int], counts: Mapping[str, int]) -> int | None:
    """Return how many elements a computed list has: shapes are put together from those of other values."""
    if op.op_type == "Shape":
        return None if op.attributes else ranks.get(op.inputs[0])
    if op.op_type == "Concat":
        found = [counts.get(name) for name in op.inputs]
        known = [count for count in found if count is not None]
        return sum(known) if len(known) == len(found) else None
    if op.op_type == "Gather":
        return counts.get(op.inputs[1]) if len(op.inputs) > 1 else None
    if op.op_type.startswith("Reduce"):
        return 1
    return counts.get(op.inputs[0]) if op.op_type in _SAME_COUNT else None
