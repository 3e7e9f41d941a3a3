"""Where a graph may normalise although no pattern says so: poolings, what they divide, operators of other norms.

Nothing is run here. Whoever finds something of it unexplained puts it to the probe.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...checkpoint import Operator
from ...limits import Limits
from .norms import has_own_scale
from .structure import averages
from .view import SAME, GraphView

_LIMITS = Limits()  # of the two rows of a matrix that may be read here
NEAR = 16  # operators between a pooling and what it divides
POOLS = frozenset(["AveragePool", "GlobalAveragePool", "LpPool", "GlobalLpPool", "CumSum", "MaxPool", "GlobalMaxPool"])
MULTIPLYING = frozenset(["MatMul", "Gemm", "Einsum", "Conv", "FusedMatMul"])
NOT_LINEAR = frozenset(
    [
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "LpPool",
        "GlobalLpPool",
    ]
)  # fmt: skip
"""Poolings that no centring is made of: what they feed is in no doubt by them."""
_REINTERPRETING = frozenset(["Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten"])
_BORROWED = frozenset(["InstanceNormalization", "GroupNormalization", "BatchNormalization"])
_AFTER_MEAN = frozenset(
    [
        "ReduceL2", "ReduceSumSquare", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
        "LpNormalization",
    ]
)  # fmt: skip
_ENDS = frozenset(
    [
        "LSTM", "GRU", "RNN", "Softmax", "LogSoftmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "Loop",
        "Scan", "If",
    ]
)  # fmt: skip


def may_pool(view: GraphView, op: Operator) -> bool:
    """Whether an operator may make one number of many: a reduction, a pooling, a product that sums or averages."""
    if op.op_type.startswith("Reduce") or op.op_type in POOLS:
        return not view.is_stored(op.inputs[0]) if op.inputs else False
    if op.op_type not in MULTIPLYING or len(op.inputs) < 2:
        return False
    if _rooted(view, op.inputs[0]) == _rooted(view, op.inputs[1]):  # x · x
        return not view.is_stored(op.inputs[0])
    for data, weight in view.split(op) if len(op.inputs) == 2 else ((op.inputs[0], op.inputs[1]),):
        array = view.constants.get(weight)
        found = None if array is not None else view.weight(weight)
        shape = array.shape if array is not None else () if found is None else found.shape
        longer = [n for n in shape if n > 1]
        square = len(longer) == 2 and longer[0] == longer[1] and _stands_for_a_mean(view, op, data)
        if (len(longer) == 1 and longer[0] > 2) or (square and averages(view, weight, _LIMITS)):
            return not view.is_stored(data)
    return False


def _rooted(view: GraphView, value: str) -> str:
    """Return the value behind what only moves axes."""
    for _ in range(4):
        op = view.producer(value)
        if op is None or not op.inputs or (op.op_type not in _REINTERPRETING and op.op_type not in SAME):
            break
        value = op.inputs[0]
    return value


def _stands_for_a_mean(view: GraphView, op: Operator, data: str) -> bool:
    """Whether a square product stands where a mean would: beside what it subtracts, or around a square.

    This only spares the reading of weights: nearly all square matrices are trained ones and stand elsewhere.
    """
    before = view.producer(view.plain(data))
    if before is not None and _squares(before):
        return True
    todo = list(op.outputs[:1])
    for value in todo:
        for user in view.near(value):
            if _squares(user) or user.op_type in _AFTER_MEAN:
                return True
            if user.op_type in ("Sub", "Add") and any(view.plain(name) == view.plain(data) for name in user.inputs):
                return True
            scaled = user.op_type in ("Mul", "Div") and any(view.scalar(name) is not None for name in user.inputs)
            passes = user.op_type in SAME or user.op_type in _REINTERPRETING or user.op_type == "Neg" or scaled
            if passes and len(todo) < 8:
                todo += user.outputs[:1]
    return False


def reach(view: GraphView, pools: Sequence[Operator], explained: set[int]) -> tuple[set[str], bool]:
    """Return the values a few operators on from poolings, and whether anything is divided there."""
    steps = {name: 0 for op in pools for name in op.outputs}
    divides = any(op.op_type == "LpPool" for op in pools)
    todo = list(steps)
    for value in todo:
        if steps[value] >= NEAR:
            continue
        for op in view.near(value):
            if id(op) in explained or op.op_type in _ENDS or (op.op_type in MULTIPLYING and not may_pool(view, op)):
                continue
            divides = divides or _divides(view, op, value)
            for name in view.onward(op.outputs):
                if name not in steps:
                    steps[name] = steps[value] + 1
                    todo.append(name)
    return set(steps), divides


def _divides(view: GraphView, op: Operator, value: str) -> bool:
    if op.op_type == "Div":
        above = view.producer(view.plain(op.inputs[0]))
        return op.inputs[-1] == value and (above is None or not _is_summed_exponential(view, above))
    if op.op_type == "Pow":
        exponent = view.scalar(op.inputs[-1])
        return exponent is None or exponent < 0
    return op.op_type in ("Reciprocal", "Rsqrt") or (op.op_type == "Exp" and not _is_summed_exponential(view, op))


def _is_summed_exponential(view: GraphView, op: Operator) -> bool:
    """Whether an operator is the exponential of a spelled-out softmax, the most common thing that divides."""
    users = view.near(op.outputs[0]) if op.op_type == "Exp" and op.outputs else ()
    return any(user.op_type == "ReduceSum" for user in users)


def may_be_borrowed(view: GraphView, op: Operator) -> bool:
    """Whether another norm's operator may be a LayerNorm or an RMSNorm by what is around it."""
    if op.op_type in ("LpNormalization", "MeanVarianceNormalization"):
        return True
    if op.op_type == "BatchNormalization" and not op.attributes.get("training_mode", 0):
        return False
    if op.op_type == "InstanceNormalization" and has_own_scale(view, op):
        return False
    before = view.producer(op.inputs[0]) if op.inputs else None
    return op.op_type in _BORROWED and before is not None and before.op_type in _REINTERPRETING


def _squares(op: Operator) -> bool:
    return op.op_type in ("Pow", "Square") or (
        op.op_type == "Mul" and len(op.inputs) == 2 and op.inputs[0] == op.inputs[1]
    )
