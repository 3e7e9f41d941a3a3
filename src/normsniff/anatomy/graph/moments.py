"""The arithmetic of a norm: means, mean squares, what is centred, and where data is divided by a root."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...checkpoint import Operator
from .view import RESHAPING, SAME, GraphView, Weight

_MEANS = ("ReduceMean", "GlobalAveragePool")
_STEPS = 16  # operators between two landmarks of one norm; exporters put six at most
_SMALL = 1e-9  # factors smaller than this, or larger than its inverse, belong to no norm
_BRANCHES = 64  # values visited on the way from a root to where it divides


class Moment(NamedTuple):
    """A mean of squares: of `base`, over `axes`; `data` is what it is about, `centred` if its mean was subtracted."""

    data: str
    base: str
    centred: bool
    axes: tuple[int, ...]
    scaled: bool


def input_of(op: Operator, index: int | None) -> str:
    """Return an input, or "" where the operator does not have it."""
    return op.inputs[index] if index is not None and index < len(op.inputs) else ""


def root_of(view: GraphView, op: Operator) -> Moment | None:
    """Return the mean (or, not scaled, the sum) of squares that `op` takes the root of."""
    if op.op_type == "ReduceL2":
        axes = view.axes(op)
        base = view.plain(op.inputs[0])
        return None if axes is None else _about(view, base, axes, scaled=False)
    if op.op_type == "Pow" and view.scalar(input_of(op, 1)) not in (0.5, -0.5):
        return None
    return _mean_square(view, op.inputs[0], depth=1)


def _mean_square(view: GraphView, value: str, depth: int) -> Moment | None:
    value, scaled = _under(view, value)
    op = view.producer(value)
    if op is None or not op.inputs:
        return None
    if op.op_type == "Sub" and depth:  # E[x²] - E[x]²
        squares, mean = _mean_square(view, op.inputs[0], 0), _square_base(view, input_of(op, 1))
        inner = None if mean is None else mean_of(view, mean)
        if squares is not None and inner is not None and (squares.data, squares.axes) == inner:
            return squares._replace(centred=True)
        return None
    axes = view.axes(op)
    if axes is None:
        return None
    if op.op_type == "ReduceSumSquare":
        return _about(view, view.plain(op.inputs[0]), axes, scaled=scaled)
    base = _square_base(view, op.inputs[0]) if op.op_type in (*_MEANS, "ReduceSum") else None
    return None if base is None else _about(view, base, axes, scaled=scaled or op.op_type in _MEANS)


def _about(view: GraphView, base: str, axes: tuple[int, ...], *, scaled: bool) -> Moment:
    inner = centred(view, base)
    if inner is None or inner.axes != axes:  # a mean over time, say, does not make the norm over channels a LayerNorm
        return Moment(base, base, False, axes, scaled)
    return Moment(inner.data, base, True, axes, scaled)


class Mean(NamedTuple):
    """A mean: of which value, and over which axes."""

    data: str
    axes: tuple[int, ...]


def mean_of(view: GraphView, value: str) -> Mean | None:
    """Return what `value` is the mean of."""
    value, scaled = _under(view, value)
    op = view.producer(value)
    if op is None or not op.inputs or not (op.op_type in _MEANS or (op.op_type == "ReduceSum" and scaled)):
        return None
    axes = view.axes(op)
    return None if axes is None else Mean(view.plain(op.inputs[0]), axes)


def centred(view: GraphView, value: str) -> Mean | None:
    """Return x if `value` is x minus its own mean."""
    op = view.producer(view.plain(value))
    if op is None or op.op_type != "Sub" or len(op.inputs) != 2:
        return None
    mean = mean_of(view, op.inputs[1])
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
    first, second = centred(view, base), centred(view, other)  # older exporters subtract the mean twice
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
            pairs = view.split(op) if op.op_type != "Div" else iter([(op.inputs[0], input_of(op, 1))])
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


class Division(NamedTuple):
    """Where data is divided by its root.

    Attributes:
        output: the normalised value.
        scale: folded into the factor on the way, or multiplied with the data before.
        shift: folded into the factor on the way (tf2onnx).
        factor: the number that the quotient is multiplied with.
    """

    output: str
    scale: Weight | None
    shift: Weight | None
    factor: float


def division(view: GraphView, root: str, moment: Moment) -> Division | None:
    """Find where the data is divided by its root."""
    # a number times the root, or times 1 / root: only the second one divides when it is multiplied with
    todo: list[tuple[str, Weight | None, float, bool]] = [(root, None, 1.0, _is_inverse(view, root))]
    for value, scale, factor, inverse in todo:
        for op in view.near(value):
            if not op.outputs or len(todo) > _BRANCHES:
                continue
            other = next((b for a, b in view.split(op) if a == value), "")
            divides = op.op_type == "Div" and op.inputs[-1] == value
            if op.op_type in SAME or op.op_type in RESHAPING or op.op_type in ("Max", "Clip"):
                todo.append((op.outputs[0], scale, factor, inverse))
            elif op.op_type == "Reciprocal":
                todo.append((op.outputs[0], scale, 1 / factor, not inverse))
            elif op.op_type not in ("Add", "Mul", "Div"):
                continue
            elif (number := view.scalar(other)) is not None:
                after = _after_number(op.op_type, factor, number, divides)
                if _SMALL < abs(after) < 1 / _SMALL:
                    todo.append((op.outputs[0], scale, after, inverse != divides))
            elif op.op_type == "Mul" or divides:
                total = 1 / factor if divides else factor
                if (vector := view.vector(other)) is not None:
                    todo.append((op.outputs[0], vector, total, inverse != divides))
                elif inverse != divides and (found := _at(view, op, other, moment, scale, total)) is not None:
                    return found
    return None


def _is_inverse(view: GraphView, root: str) -> bool:
    op = view.producer(root)
    if op is None:
        return False
    return op.op_type == "Rsqrt" or (op.op_type == "Pow" and view.scalar(input_of(op, 1)) == -0.5)


def _at(
    view: GraphView, op: Operator, other: str, moment: Moment, scale: Weight | None, total: float
) -> Division | None:
    """Return the division that an operator is, of the data that the root is of."""
    if _is_base(view, other, moment):
        return Division(op.outputs[0], scale, None, total)
    if (early := _scaled_early(view, other, moment)) is not None:
        return Division(op.outputs[0], early, None, total)
    if op.op_type == "Mul" and (late := _late_centring(view, op.outputs[0], other, moment)) is not None:
        return Division(late[0], scale, late[1], total)
    return None


def _after_number(op_type: str, factor: float, number: float, divides: bool) -> float:
    """Return the number in front of the root, or in front of its inverse, after one more operator with a number."""
    if op_type == "Add":  # ε
        return factor
    if op_type == "Mul":
        return factor * number
    return number / factor if divides else factor / (number or math.inf)


def _scaled_early(view: GraphView, value: str, moment: Moment) -> Weight | None:
    """Return γ if `value` is γ times what was squared: some write ``γ·(x - mean) / σ``, which multiplies first."""
    op = view.producer(view.plain(value))
    if op is None or op.op_type != "Mul":
        return None
    return next((view.vector(a) for a, b in view.split(op) if view.vector(a) and _is_base(view, b, moment)), None)


def _is_base(view: GraphView, value: str, moment: Moment) -> bool:
    if view.plain(value) == moment.base and not (moment.centred and moment.base == moment.data):
        return True
    inner = centred(view, value)
    return moment.centred and inner is not None and inner.data == moment.data


def _late_centring(view: GraphView, product: str, factor: str, moment: Moment) -> tuple[str, Weight | None] | None:
    """Follow ``x·s + (β - mean·s)``, as TensorFlow writes it; without it the mean is never subtracted."""
    if not moment.centred or view.plain(factor) != moment.data:
        return None
    for op in view.near(product):
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
            means = (mean_of(view, name) for name in subtracted.inputs)
            if any(mean is not None and mean.data == moment.data for mean in means):
                return op.outputs[0], shift
    return None
