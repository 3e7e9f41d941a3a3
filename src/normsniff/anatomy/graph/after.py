"""What follows a norm's core: its scale, its shift, or what shows that it was another kind of norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .sizes import Shape, Sizes
from .view import SAME, GraphView, Weight

_STEPS = 6  # operators between a core and its scale
_MOVING = frozenset(["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand"])


@dataclass(frozen=True, slots=True)
class After:
    """What a core's output goes through.

    Attributes:
        output: what comes out.
        axes: the normalised axes of it, from the end; None where that cannot be told.
        factor: product of the numbers that it is multiplied with.
        scale: γ where it is stored.
        shift: β where it is stored.
        gain: what multiplies it: ``"scale"`` along the normalised axes (stored or not), ``"other"`` along another
            axis (or is added along one), ``"gate"`` by something computed, ``""`` nothing.
        regrouped: whether a reshape took the normalised axes apart, or joined them with others.
    """

    output: str
    axes: tuple[int, ...] | None
    factor: float = 1.0
    scale: Weight | None = None
    shift: Weight | None = None
    gain: str = ""
    regrouped: bool = False


def follow(view: GraphView, sizes: Sizes, value: str, axes: tuple[int, ...] | None, n: int) -> After:
    """Follow a core's output through its scale and its shift.

    Args:
        view: the graph.
        sizes: of its values.
        value: the core's output.
        axes: its normalised axes, from the end.
        n: how many numbers are pooled.
    """
    best = After(value, axes)
    todo = [best]
    for at in todo:
        for op in view.near(at.output)[:8]:
            if len(todo) > _STEPS or not op.outputs or not op.inputs:
                continue
            after = _step(view, sizes, op.op_type, op.inputs, op.outputs[0], at, n)
            if after is None:
                if _is_combined(op.op_type, op.inputs, at.output) and not at.gain and not best.gain:
                    best = replace(best, gain=_gain_of(view, sizes, op.op_type, op.inputs, at, n) or best.gain)
                continue
            todo.append(after)
            if _rank(after) > _rank(best):
                best = after
    return best


def _rank(after: After) -> tuple[bool, bool, bool, bool]:
    return after.gain == "scale", after.shift is not None, bool(after.gain), after.factor != 1.0 or after.regrouped


def _is_combined(kind: str, inputs: tuple[str, ...], value: str) -> bool:
    return (
        kind in ("Mul", "Div") and len(inputs) == 2 and inputs[0] != inputs[1] and (kind == "Mul" or inputs[0] == value)
    )


def _step(
    view: GraphView, sizes: Sizes, kind: str, inputs: tuple[str, ...], out: str, at: After, n: int
) -> After | None:
    if inputs[0] == at.output and (kind in SAME or kind == "Slice"):  # the first half of the norm of [x, -x]
        return replace(at, output=out)
    if kind in _MOVING and inputs[0] == at.output:
        axes = _moved(view, sizes, kind, at, out)
        shapes = sizes.shapes.get(at.output), sizes.shapes.get(out)
        regrouped = at.regrouped or (kind in ("Reshape", "Flatten") and axes is None and None not in shapes)
        return replace(at, output=out, axes=axes, regrouped=regrouped)
    if kind not in ("Mul", "Div", "Add", "Sub") or len(inputs) != 2 or inputs[0] == inputs[1]:
        return None
    other = inputs[1] if inputs[0] == at.output else inputs[0]
    number = view.scalar(other)
    if kind in ("Add", "Sub"):
        weight = view.weight(other)
        along = "" if weight is None else _along(weight.shape, at, n)
        if along == "scale" and at.shift is None:
            return replace(at, output=out, shift=weight)
        # a scale may stand before the core, where it is not seen: GraphNorm, with a shift per channel over nodes
        return replace(at, output=out, gain="other") if along == "other" and at.axes and not at.gain else None
    if kind == "Div" and inputs[0] != at.output:
        return None
    if number is not None:
        return replace(at, output=out, factor=at.factor * (number if kind == "Mul" else 1 / (number or math.inf)))
    weight = view.weight(other)
    if weight is None or at.gain or (at.shift is not None and at.scale is not None):
        return None
    gain = _along(weight.shape, at, n)
    return replace(at, output=out, scale=weight if gain == "scale" else None, gain=gain) if gain else None


def _gain_of(view: GraphView, sizes: Sizes, kind: str, inputs: tuple[str, ...], at: After, n: int) -> str:
    """Say what a value multiplies that is not stored: a scale that is an input or computed, or a gate."""
    other = inputs[1] if inputs[0] == at.output else inputs[0]
    shape = sizes.shapes.get(other)
    if shape is None:
        return "scale" if other in view.inputs and kind == "Mul" else "gate"
    if math.prod(shape) == 1:
        return ""
    gain = _along(shape, at, n)
    if gain == "scale" and not _is_input(view, other):  # computed per channel: an adaptive norm, or a gate
        return "gate"
    return gain or "gate"


def _is_input(view: GraphView, value: str) -> bool:
    for _ in range(_STEPS):
        if value in view.inputs:
            return True
        op = view.producer(value)
        if op is None or not op.inputs or (op.op_type not in SAME and op.op_type not in _MOVING):
            return False
        value = op.inputs[0]
    return False


def _along(shape: Shape, at: After, n: int) -> str:
    """Say along which axes a factor of this shape lies: the normalised ones, or others."""
    longer = {i - len(shape) for i, size in enumerate(shape) if size > 1}
    if not longer:
        return ""
    if at.axes is None:
        return "scale" if math.prod(shape) == n else "other"
    if longer == set(at.axes):
        return "scale"
    # over several axes, with a scale along some: one group of a GroupNorm
    return "other" if len(longer) == 1 or not longer & set(at.axes) else ""


def _moved(view: GraphView, sizes: Sizes, kind: str, at: After, out: str) -> tuple[int, ...] | None:
    """Return where the normalised axes are after an operator that moves axes."""
    if at.axes is None:
        return None
    before, after = sizes.shapes.get(at.output), sizes.shapes.get(out)
    if kind == "Transpose":
        op = view.producer(out)
        perm = None if op is None else view.integers(op, "perm", 9)
        if perm is None or sorted(perm) != list(range(len(perm))) or any(-a > len(perm) for a in at.axes):
            return None
        return tuple(sorted(perm.index(a + len(perm)) - len(perm) for a in at.axes))
    if before is None or after is None:
        return at.axes if kind == "Expand" else None
    if kind == "Expand":
        return at.axes
    if at.axes == (-1,) and 0 < len(after) < len(before) and after[:-1] == before[: len(after) - 1]:
        return at.axes  # heads, or groups of channels, joined again: positions are not touched
    places = _places(after)
    found = [places.get(place) for place in (_place(before, a) for a in at.axes)]
    return tuple(a for a in found if a is not None) if None not in found else None


def _place(shape: Shape, axis: int) -> tuple[int, int]:
    """Return length of an axis and number of elements inside of it, which a reshape keeps or breaks together."""
    axis += len(shape)
    return shape[axis], math.prod(shape[axis + 1 :])


def _places(shape: Shape) -> Mapping[tuple[int, int], int]:
    return {_place(shape, a): a for a in range(-len(shape), 0) if shape[a] > 1}
