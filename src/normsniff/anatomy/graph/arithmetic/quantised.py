"""Quantisation, as if nothing were rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from .operation import CannotRunError, Numbers, Operation, Table, fit_together


def _sides(call: Operation, scale: Numbers, zero: Numbers | None) -> tuple[Any, Any]:
    """Lay scale and zero point along their axis."""
    x, axis = call[0], call.attribute("axis", 1)
    if call.attribute("block_size", 0) or (scale.ndim > 1 and scale.size > 1):
        raise CannotRunError("quantisation in blocks")
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    sides = [None if v is None else v.reshape(shape if v.size > 1 else [1] * x.ndim) for v in (scale, zero)]
    fit_together(x, *sides)
    return sides[0], 0 if sides[1] is None else sides[1]


def _quantise(call: Operation) -> Numbers:
    if len(call.values) in (1, 5):  # TFLite's, which has its scale elsewhere; OpenVINO's FakeQuantize
        return np.asarray(call[0])
    scale, zero = _sides(call, call[1], call.optional(2))
    return np.asarray(call[0] / scale + zero)


def _dequantise(call: Operation) -> Numbers:
    if len(call.values) == 1:
        return np.asarray(call[0])
    scale, zero = _sides(call, call[1], call.optional(2))
    return np.asarray((call[0] - zero) * scale)


def _quantise_dynamically(call: Operation) -> tuple[Numbers, Numbers, Numbers]:
    return call[0], np.array(1.0), np.array(0.0)


def _quantised_arithmetic(call: Operation) -> Numbers:
    fit_together(*(call[i] for i in range(7)), call.optional(7))
    a, b = ((call[i] - call[i + 2]) * call[i + 1] for i in (0, 3))
    result = a * b if call.op.op_type == "QLinearMul" else a + b
    return np.asarray(result / call[6] + (0 if call.optional(7) is None else call[7]))


TABLE: Table = {
    "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise, "DynamicQuantizeLinear": _quantise_dynamically,
    "QLinearAdd": _quantised_arithmetic, "QLinearMul": _quantised_arithmetic,
}  # fmt: skip
