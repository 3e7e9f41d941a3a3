"""Norms that a pattern recognised, and whether what is around them may make them something else.

Only cheap questions are asked here: whoever is in doubt is put to the probe, and the probe decides.
"""

from __future__ import annotations

from collections.abc import Collection

from ...checkpoint import Operator
from .norms import FUSED, Norm
from .view import RESHAPING, SAME, GraphView

_FEW = 64  # values between a norm's output and its source
_STEPS = 4  # operators in front of a norm that may hide a join
_AFTER = 12  # operators between a reduction and where its axis comes back
WITH_SCALE = frozenset(FUSED) | {"BatchNormalization"}
"""Operators that scale by themselves, or that patterns recognise by their scale."""


def is_doubtful(view: GraphView, norm: Norm, reached: Collection[str], explained: Collection[int]) -> bool:
    """Whether a norm has to be run to be believed.

    Args:
        view: the graph.
        norm: what a pattern recognised.
        reached: values a few operators on from poolings that no pattern explains: they may centre.
        explained: operators of norms, by `id`.
    """
    if norm.scale is None and norm.shift is None and norm.op.op_type not in WITH_SCALE and norm.output:
        return True  # what follows may show that groups or images were normalised
    if any(_drops_axis(view, op) for op in between(view, norm)):
        return True
    return len(norm.sources) == 1 and _is_fed_doubtfully(view, norm.sources[0], reached, explained)


def _is_fed_doubtfully(view: GraphView, value: str, reached: Collection[str], explained: Collection[int]) -> bool:
    for _ in range(_STEPS):
        if value in reached:
            return True
        op = view.producer(value)
        if op is None or not op.inputs or id(op) in explained:
            return False
        if op.op_type == "Concat":
            return True
        scaled = op.op_type in ("Mul", "Div") and view.scalar(op.inputs[-1]) is not None
        if op.op_type not in SAME and op.op_type not in RESHAPING and op.op_type != "Transpose" and not scaled:
            return False
        value = op.inputs[0]
    return False


def _drops_axis(view: GraphView, op: Operator) -> bool:
    """Whether a reduction drops its axis, and it is not plain to see that it comes back in its place."""
    if not op.op_type.startswith("Reduce") or op.attributes.get("keepdims", 1):
        return False
    axes = view.integers(op, "axes", 1)
    if axes is None or len(axes) != 1:
        return True
    todo = list(op.outputs[:1])
    for value in todo:
        for user in view.near(value):
            if not user.outputs or not user.inputs:
                return True
            if user.op_type in ("Unsqueeze", "Reshape", "Expand") and user.inputs[0] == value:
                if not _returns(view, user, axes[0]):
                    return True
            elif len(todo) > _AFTER or not _of_one_rank(view, user, value):  # used as it is: a broadcast puts it last
                return True
            else:
                todo += user.outputs[:1]
    return False


def _of_one_rank(view: GraphView, op: Operator, value: str) -> bool:
    """Whether an operator keeps the number of axes of `value`: what else it takes was reduced too, or is a number."""
    before, after = view.ranks.get(value), view.ranks.get(op.outputs[0])
    if before is not None and after is not None:
        return before == after
    return all(name == value or view.scalar(name) is not None or _is_reduced(view, name) for name in op.inputs if name)


def _is_reduced(view: GraphView, value: str) -> bool:
    for _ in range(_STEPS):
        op = view.producer(value)
        if op is None or not op.inputs:
            return False
        if op.op_type.startswith("Reduce"):
            return not op.attributes.get("keepdims", 1)
        value = next((name for name in op.inputs if view.scalar(name) is None), "")
    return False


def _returns(view: GraphView, op: Operator, axis: int) -> bool:
    """Whether an operator puts an axis of length 1 where `axis` was."""
    if op.op_type == "Unsqueeze":
        return view.integers(op, "axes", 1) == (axis,)
    target = view.integers(op, "shape", 1)
    if op.op_type != "Reshape" or axis < 0:
        return False
    if target is not None:
        return axis < len(target) and target[axis] == 1
    joined = view.producer(view.plain(op.inputs[1])) if len(op.inputs) > 1 else None  # a shape that is put together
    if joined is None or joined.op_type != "Concat" or axis >= len(joined.inputs):
        return False
    return view.scalar(joined.inputs[axis]) == 1.0


def between(view: GraphView, norm: Norm) -> list[Operator]:
    """Return the operators of a norm: what lies between its output and its sources."""
    found, seen, todo = [norm.op], set(norm.sources), [norm.output]
    for value in todo:
        if len(seen) > _FEW:
            break
        if value in seen:
            continue
        seen.add(value)
        op = view.producer(value)
        if op is not None:
            found.append(op)
            if op is not norm.op or norm.op.op_type in ("Sqrt", "Rsqrt", "Pow", "ReduceL2"):
                todo += [name for name in view.onward(op.inputs) if name and not view.is_stored(name)]
    return found
