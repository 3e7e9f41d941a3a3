"""The epsilon of a norm in a graph: an attribute of one operator, or a constant added under the root."""

from __future__ import annotations

from ...checkpoint import Operator
from .view import GraphView

_DEFAULT = 1e-5  # of LayerNormalization and RMSNormalization, and of what onnxruntime makes of them
_WITH_DEFAULT = frozenset(
    ["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"]
)  # (ONNX operators, opset 17 and 23; onnxruntime's ContribOperators.md)


def epsilon_of(view: GraphView, op: Operator) -> float | None:
    """Return the epsilon of the norm that `op` is, or whose root it takes; None where the graph does not tell."""
    value = op.attributes.get("epsilon")
    if isinstance(value, float | int):
        return float(value)
    if op.op_type in _WITH_DEFAULT:
        return _DEFAULT
    if op.op_type not in ("Sqrt", "Rsqrt", "Pow") or not op.inputs:
        return None
    under = view.producer(view.plain(op.inputs[0]))
    if under is None or under.op_type != "Add":
        return None
    return next((number for name in under.inputs if (number := view.scalar(name)) is not None), None)
