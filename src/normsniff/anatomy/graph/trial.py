"""One region of a graph, run on some numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...checkpoint import Operator
from .arithmetic import CannotRunError, Numbers, run
from .bench import Bench
from .regions import Region
from .sizes import Shape

_FIXED = 200  # fixed operators that one region may hang on: shapes put together, scales unpacked
FUSED = frozenset(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"])  # with their own γ
AS_NORM = FUSED | {"InstanceNormalization", "MeanVarianceNormalization", "LpNormalization", "GroupNormalization"}


class Trial:
    """One region with the fixed operators that it hangs on, in order, ready to be run on some x."""

    def __init__(self, bench: Bench, region: Region, shape: Shape, flat: bool) -> None:
        self._bench, self._region, self._shape, self._flat = bench, region, shape, flat
        self._order = sorted(region.inside)
        self.clamps = any(
            bench.flow.operators[k].op_type in ("Clip", "Max", "Min", "Where", "Relu", "Abs") for k in self._order
        )

    def key(self) -> tuple[Any, ...]:
        """Return what equal regions have in common."""
        names: dict[str, Any] = {self._region.source: 0}
        key: list[Any] = [self._flat]
        for k in self._order:
            op = self._bench.flow.operators[k]
            key.append((op.op_type, op.domain, _frozen(op.attributes), tuple(self._known(n, names) for n in op.inputs)))
            for name in op.outputs:
                names[name] = len(names)
        return tuple(key)

    def _known(self, name: str, names: dict[str, Any]) -> Any:
        if name in names or not name:
            return names.get(name)
        value = self._bench.sizes.values.get(name)
        return name if value is None else (value.dtype.str, value.shape, value.tobytes())

    def run(self, x: Numbers) -> Numbers:
        """Return what the region makes of x.

        Raises:
            CannotRunError: an operator of it cannot be run.
        """
        flow, values = self._bench.flow, {self._region.source: x}
        fixed: dict[str, Numbers] = {}
        spent = [0]
        for k in self._order:
            op = flow.operators[k]
            operands = [self._operand(op, i, values, fixed, spent) for i in range(len(op.inputs))]
            if is_norm(op):
                operands = _unscaled(op, operands)
            self._bench.refuse_inexact(op)
            values.update(zip(op.outputs, run(op, operands, self._bench.opset), strict=False))
        return values[flow.operators[self._region.end].outputs[0]]

    def _operand(
        self, op: Operator, index: int, values: dict[str, Numbers], fixed: dict[str, Numbers], spent: list[int]
    ) -> Numbers | None:
        name = op.inputs[index]
        if not name:
            return None
        if name in values:
            return values[name]
        if is_norm(op) and index:
            return None
        value = self._fixed(name, values, fixed, spent, 0)
        if self._flat and value.size > 1 and value.dtype.kind == "f" and op.op_type in ("Mul", "Div", "Add", "Sub"):
            return np.full(value.shape, float(op.op_type in ("Mul", "Div")))
        if self._flat and value.ndim == 1 and op.op_type == "Einsum" and _is_kept(op, index):
            return np.ones(value.shape)
        return value

    def _fixed(
        self, name: str, values: dict[str, Numbers], fixed: dict[str, Numbers], spent: list[int], depth: int
    ) -> Numbers:
        """Return a value that hangs on constants and shapes alone; shapes are those of the values that run here."""
        if name in fixed:
            return fixed[name]
        flow, sizes = self._bench.flow, self._bench.sizes
        k = flow.producers.get(name)
        if k is None:
            return self._bench.constant(name)
        op = flow.operators[k]
        spent[0] += 1
        if spent[0] > _FIXED or depth > 40:
            raise CannotRunError("it hangs on too many constants")
        if op.op_type in ("Shape", "Size"):
            of = op.inputs[0]
            shape = values[of].shape if of in values else sizes.shapes.get(of)
            if shape is None or (of not in values and shape == sizes.shapes.get(self._region.source)):
                shape = self._shape
            results = run(op, [np.broadcast_to(np.zeros(()), shape)], self._bench.opset)
        else:
            self._bench.refuse_inexact(op)
            operands = [self._fixed(n, values, fixed, spent, depth + 1) if n else None for n in op.inputs]
            results = run(op, operands, self._bench.opset)
        fixed.update(zip(op.outputs, results, strict=False))
        return fixed[name]


def _is_kept(op: Operator, index: int) -> bool:
    """Whether the axis of a vector is one of the result: then it scales, and does not pool."""
    left, _, right = str(op.attributes.get("equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    return index < len(terms) and terms[index] in right


def is_norm(op: Operator) -> bool:
    """Whether an operator is a norm by itself, whatever it scales with."""
    return op.op_type in AS_NORM or (op.op_type == "BatchNormalization" and bool(op.attributes.get("training_mode", 0)))


def _unscaled(op: Operator, operands: list[Numbers | None]) -> list[Numbers | None]:
    """Return the operands of a fused norm with γ = 1 and β = 0."""
    x = operands[0]
    if x is None:
        raise CannotRunError(f"{op.op_type} of nothing")
    if op.op_type not in ("InstanceNormalization", "GroupNormalization", "BatchNormalization"):
        return [x]
    ones = np.ones(x.shape[1] if x.ndim > 1 else 1)
    return [x, ones, 0 * ones, 0 * ones, ones]


def _frozen(attributes: Any) -> Any:
    if isinstance(attributes, np.ndarray):
        return attributes.dtype.str, attributes.shape, attributes.tobytes()
    if isinstance(attributes, dict):
        return tuple(sorted((key, _frozen(value)) for key, value in attributes.items()))
    return attributes if isinstance(attributes, str | int | float | tuple) else repr(attributes)[:200]
