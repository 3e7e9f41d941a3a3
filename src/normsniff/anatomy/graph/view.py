"""A computation graph with what is needed to walk it: who produces and consumes a value, and what is a weight."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ... import meter
from ...checkpoint import MOST_AXES, Checkpoint, Graph, Operator, TensorInfo
from .ranks import find_ranks

_NEAR = 64  # consumers; one norm feeds the experts of a layer, a hostile value feeds everything
_OPERANDS = 3  # of arithmetic on numbers
_STEPS = 12  # operators looked through between a stored tensor and its use

# Operators whose output has the values of their first input, in the same places
SAME = frozenset(
    {"Identity", "Cast", "CastLike", "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
)
# ... and those that only say anew how a broadcast goes
RESHAPING = frozenset({"Reshape", "Expand", "Unsqueeze", "Squeeze", "Flatten"})
_KEEPS_NUMBER = frozenset({"Identity", "Cast", "CastLike"}) | RESHAPING
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "Sqrt": math.sqrt, "Pow": operator.pow, "Mul": operator.mul, "Div": operator.truediv, "Add": operator.add,
    "Sub": operator.sub, "Reciprocal": lambda x: 1.0 / x,
    "DequantizeLinear": lambda x, scale, zero=0.0: (x - zero) * scale,
    "QuantizeLinear": lambda x, scale, zero=0.0: float(round(x / scale)) + zero,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """A value that is a stored tensor, seen through casts, dequantisation, transposition and reshaping.

    Attributes:
        tensor: as stored.
        shape: of the value.
        axes: for every axis of the value, the stored axis that it is, or None if the two do not correspond.
        offset: the value is ``offset + stored``.
    """

    tensor: TensorInfo
    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    offset: float = 0.0

    def stored_axis(self, axis: int) -> int | None:
        """Return the stored axis behind axis `axis` of the value, counted from either end."""
        return self.axes[axis] if -len(self.axes) <= axis < len(self.axes) else None

    @property
    def channel(self) -> int | None:
        """The only axis longer than 1, counted from the end (-1 is the last), or None if there are several."""
        longer = [i - len(self.shape) for i, n in enumerate(self.shape) if n > 1]
        return longer[0] if len(longer) == 1 else None


class GraphView:
    """Lookups over the graph of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, graph: Graph) -> None:
        self.operators = tuple(_plain_operator(op) for op in graph.operators)
        self.constants = graph.constants
        self.inputs = frozenset(graph.inputs)
        self.outputs = graph.outputs
        self._tensors = checkpoint.tensors
        self._producers = {name: op for op in self.operators for name in op.outputs if name}
        self._consumers: dict[str, list[Operator]] = {}
        for op in self.operators:
            for name in dict.fromkeys(op.inputs):  # Mul(x, x) consumes x once
                self._consumers.setdefault(name, []).append(op)
        self._weights: dict[str, Weight | None] = {}
        self._input_ranks = graph.ranks
        edges = sum(len(op.inputs) + len(op.outputs) for op in self.operators)
        meter.charge(len(self.operators) + edges, "following the graph")

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """Number of axes of every value for which it can be told."""
        return find_ranks(self.operators, self._input_ranks, self._tensors, self.constants)

    def producer(self, value: str) -> Operator | None:
        """Return the operator that computes `value`; None for inputs, weights and constants."""
        meter.charge(1, "following the graph")
        return self._producers.get(value)

    def consumers(self, value: str) -> Sequence[Operator]:
        """Return the operators that take `value`."""
        found = self._consumers.get(value, ())
        meter.charge(1 + len(found), "following the graph")
        return found

    def near(self, value: str) -> Sequence[Operator]:
        """Return the first consumers, for searches that start from many places and may meet the same value again."""
        found = self._consumers.get(value, ())[:_NEAR]
        meter.charge(1 + len(found), "following the graph")
        return found

    def onward(self, values: Sequence[str]) -> Sequence[str]:
        """Return the inputs or outputs of an operator that a search goes on to; each search pays for them."""
        meter.charge(len(values), "following the graph")
        return values

    def is_stored(self, value: str) -> bool:
        """Whether the value is a constant or a weight, seen through the operators that `weight` looks through."""
        return value in self.constants or self.weight(value) is not None

    def plain(self, value: str) -> str:
        """Return the value behind casts and the like."""
        meter.charge(1, "following the graph")
        for _ in range(_STEPS):
            op = self._producers.get(value)
            if op is None or op.op_type not in SAME or op.outputs[0] != value or not op.inputs:
                break
            value = op.inputs[0]
        return value

    def scalar(self, value: str, depth: int = 3) -> float | None:
        """Return the number that a value is: a stored constant of one element, or arithmetic on such (√32)."""
        meter.charge(2, "looking up numbers")
        value = self._beneath(value)
        array = self.constants.get(value)
        if array is not None:
            plain = array.size == 1 and array.dtype.kind != "c"
            return float(np.asarray(array, np.float64).reshape(-1)[0]) if plain else None
        op = self._producers.get(value)
        if op is None or not depth or op.op_type not in _ARITHMETIC or len(op.inputs) > _OPERANDS:
            return None
        numbers = [self.scalar(name, depth - 1) for name in op.inputs]
        try:
            result = _ARITHMETIC[op.op_type](*numbers)
        except (ArithmeticError, TypeError, ValueError):  # an operand that is no number, or none that it can take
            return None
        return result if isinstance(result, float) else None  # a power of a negative number may be complex

    def _beneath(self, value: str) -> str:
        """Return the value behind casts and reshapings, which may be a stored integer and its scale."""
        for _ in range(_STEPS):
            op = self._producers.get(value)
            if value in self.constants or op is None or op.op_type not in _KEEPS_NUMBER or not op.inputs:
                break
            value = op.inputs[0]
        return value

    def integers(self, op: Operator, name: str, index: int) -> tuple[int, ...] | None:
        """Return a list of integers that older operator sets have as attribute `name`, newer ones as input `index`."""
        found = op.attributes.get(name)
        if found is None and index < len(op.inputs):
            array = self.constants.get(self.plain(op.inputs[index]))
            found = None if array is None or array.dtype.kind not in "iu" else array.reshape(-1).tolist()
        numbers = tuple(found) if isinstance(found, tuple | list) else () if found is None else (found,)
        meter.charge(1 + len(numbers) // 8, "reading lists of axes")
        if len(numbers) > MOST_AXES:  # axes, shapes and permutations have one number an axis
            return None
        return numbers if found is not None and all(isinstance(n, int) for n in numbers) else None

    def axes(self, op: Operator) -> tuple[int, ...] | None:
        """Return the axes of a reduction, counted from the end where it is known how many axes there are."""
        rank = self.ranks.get(op.inputs[0])
        if op.op_type == "GlobalAveragePool":  # tf2onnx writes the mean of the last of three axes so
            return None if rank is None else tuple(range(2 - rank, 0))
        axes = self.integers(op, "axes", 1)
        return axes if axes is None or rank is None else tuple(sorted(a if a < 0 else a - rank for a in axes))

    def integer(self, op: Operator, name: str, default: int) -> int:
        """Return an integer attribute."""
        found = op.attributes.get(name, default)
        return found if isinstance(found, int) else default

    def weight(self, value: str) -> Weight | None:
        """Return the stored tensor that `value` is, if it is one."""
        meter.charge(1, "following the graph")
        if value not in self._weights:
            self._weights[value] = self._trace(value)
        return self._weights[value]

    def vector(self, value: str) -> Weight | None:
        """Return the stored weight that `value` is, if it has exactly one axis longer than 1 (a scale or a shift)."""
        weight = self.weight(value)
        return weight if weight is not None and weight.channel is not None else None

    def split(self, op: Operator) -> Iterator[tuple[str, str]]:
        """Yield (operand, other operand) of a binary operator, both ways round."""
        if len(op.inputs) == 2:
            yield op.inputs[0], op.inputs[1]
            yield op.inputs[1], op.inputs[0]

    def _trace(self, value: str) -> Weight | None:
        path: list[Operator] = []
        while value not in self._tensors:
            op = self._producers.get(value)
            step = None if op is None or len(path) >= _STEPS else self._looked_through(op)
            if op is None or step is None:
                return None
            path.append(op)
            value = step
        tensor = self._tensors[value]
        weight = Weight(tensor, tensor.shape, tuple(range(len(tensor.shape))))
        for op in reversed(path):
            meter.charge(5 + len(weight.shape), "following reshapes of weights")
            applied = self._apply(op, weight)
            if applied is None or len(applied.shape) > MOST_AXES:
                return None
            weight = applied
        return weight

    def _looked_through(self, op: Operator) -> str | None:
        if op.op_type in SAME or op.op_type in RESHAPING or op.op_type == "Transpose":
            return op.inputs[0] if op.inputs else None
        if op.op_type == "Add":  # a scale stored as w, used as 1 + w
            return next((a for a, b in self.split(op) if self.scalar(b) == 1.0), None)
        return None

    def _apply(self, op: Operator, weight: Weight) -> Weight | None:
        rank = len(weight.shape)
        if op.op_type in SAME:
            return weight
        if op.op_type == "Add":
            return Weight(weight.tensor, weight.shape, weight.axes, weight.offset + 1.0)
        if op.op_type == "Transpose":
            perm = self.integers(op, "perm", 9) or tuple(reversed(range(rank)))
            if sorted(perm) != list(range(rank)):
                return None
            return _moved(weight, tuple(weight.shape[p] for p in perm), tuple(weight.axes[p] for p in perm))
        shape = self._new_shape(op, weight.shape)
        return None if shape is None else _reshaped(weight, shape)

    def _new_shape(self, op: Operator, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        rank = len(shape)
        if op.op_type == "Unsqueeze":
            axes = self.integers(op, "axes", 1)
            if axes is None:
                return None
            total = rank + len(axes)
            at = {a % total for a in axes}
            rest = iter(shape)
            return tuple(1 if i in at else next(rest, 1) for i in range(total))
        if op.op_type == "Squeeze":
            axes = self.integers(op, "axes", 1)
            at = {a % rank for a in axes} if axes and rank else {i for i, n in enumerate(shape) if n == 1}
            return tuple(n for i, n in enumerate(shape) if i not in at)
        if op.op_type == "Flatten":
            axis = self.integer(op, "axis", 1)
            return math.prod(shape[:axis]), math.prod(shape[axis:])
        target = self.integers(op, "shape", 1)
        if (
            target is None or op.op_type == "Expand"
        ):  # broadcasting a stored vector repeats it; the weight is the vector
            return shape if sum(n > 1 for n in shape) == 1 else None
        known = [shape[i] if n == 0 and i < rank else n for i, n in enumerate(target)]
        if -1 in known:
            rest_size = math.prod(n for n in known if n != -1)
            known[known.index(-1)] = math.prod(shape) // rest_size if rest_size else 0
        return tuple(known) if min(known, default=0) >= 0 and math.prod(known) == math.prod(shape) else None


def _plain_operator(op: Operator) -> Operator:
    """Read ``QLinearMul(a, scale, zero, b, ...)`` as ``Mul(a, b)``: what is computed is the same."""
    if op.op_type in ("QLinearMul", "QLinearAdd") and len(op.inputs) > 3:
        return Operator(op.op_type[7:], "", op.name, (op.inputs[0], op.inputs[3]), op.outputs, op.attributes)
    return op


def _moved(weight: Weight, shape: tuple[int, ...], axes: tuple[int | None, ...]) -> Weight:
    return Weight(weight.tensor, shape, axes, weight.offset)


def _reshaped(weight: Weight, shape: tuple[int, ...]) -> Weight:
    """Keep track of the axes that survive a reshape: same length, same number of elements inside."""
    before = {
        (n, inner): axis
        for n, inner, axis in zip(weight.shape, _inner(weight.shape), weight.axes, strict=True)
        if n > 1
    }
    axes = tuple(before.get((n, inner)) if n > 1 else None for n, inner in zip(shape, _inner(shape), strict=True))
    return _moved(weight, shape, axes)


def _inner(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]
