"""Operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .operation import Numbers, Operation, Table, fit_together, fits


def sigmoid(x: Numbers) -> Numbers:
    """Return the logistic function."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


erf = np.vectorize(math.erf, otypes=[np.float64])

_UNARY: Mapping[str, Callable[[Numbers], Any]] = {
    "Abs": np.abs, "Neg": np.negative, "Sqrt": np.sqrt, "Rsqrt": lambda x: 1.0 / np.sqrt(x), "Exp": np.exp,
    "Log": np.log, "Reciprocal": lambda x: 1.0 / x, "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint,
    "Sign": np.sign, "Sin": np.sin, "Cos": np.cos, "Tan": np.tan, "Atan": np.arctan, "Tanh": np.tanh,
    "Sinh": np.sinh, "Cosh": np.cosh, "Asinh": np.arcsinh, "Sigmoid": sigmoid, "Relu": lambda x: np.maximum(x, 0),
    "Erf": erf, "Softplus": lambda x: np.logaddexp(0, x), "Softsign": lambda x: x / (1 + np.abs(x)),
    "Not": np.logical_not, "IsNaN": np.isnan, "Identity": lambda x: x, "Square": np.square,
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "Mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}  # fmt: skip


def _divide(a: Numbers, b: Numbers) -> Numbers:
    if a.dtype.kind == "i" and b.dtype.kind == "i":
        return np.asarray(np.trunc(a / b)).astype(np.int64)  # towards zero, as C does
    return np.asarray(a / b)


def _power(a: Numbers, b: Numbers) -> Numbers:
    result = np.power(a.astype(np.float64), b)
    return np.asarray(result.astype(np.int64) if a.dtype.kind == "i" else result)


_BINARY: Mapping[str, Callable[[Numbers, Numbers], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": _power,
    "Equal": np.equal, "Greater": np.greater, "Less": np.less, "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal, "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor,
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
}  # fmt: skip
_VARIADIC: Mapping[str, Callable[[Numbers, Numbers], Any]] = {
    "Max": np.maximum, "Min": np.minimum, "Sum": np.add, "Mean": np.add,
}  # fmt: skip


def _unary(call: Operation) -> Numbers:
    return np.asarray(_UNARY[call.op.op_type](call[0]))


def _binary(call: Operation) -> Numbers:
    a, b = _aligned(call, call[0], call[1])
    fit_together(a, b)
    return np.asarray(_BINARY[call.op.op_type](a, b))


def _aligned(call: Operation, a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Before operator set 7 the second operand was laid along the first from an axis on."""
    axis = call.attribute("axis", None)
    if call.opset < 7 and call.attribute("broadcast", 0) and axis is not None and 0 <= axis <= a.ndim - b.ndim:
        b = b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))
    return a, b


def _modulo(call: Operation) -> Numbers:
    fit_together(call[0], call[1])
    return np.asarray((np.fmod if call.attribute("fmod", 0) else np.mod)(call[0], call[1]))


def _eye(call: Operation) -> Numbers:
    fits(call[0].shape)
    rows, columns = call[0].shape
    return np.asarray(np.eye(rows, columns, k=call.attribute("k", 0)))


def _triangle(call: Operation) -> Numbers:
    k = 0 if call.optional(1) is None else int(call[1].reshape(-1)[0])
    return np.asarray((np.triu if call.attribute("upper", 1) else np.tril)(call[0], k))


def _variadic(call: Operation) -> Numbers:
    total: Numbers = call[0]
    for index in range(1, len(call.values)):
        fit_together(total, call[index])
        total = np.asarray(_VARIADIC[call.op.op_type](total, call[index]))
    return total


def _mean_of_several(call: Operation) -> Numbers:
    return np.asarray(_variadic(call) / len(call.values))


def _where(call: Operation) -> Numbers:
    fit_together(call[0], call[1], call[2])
    return np.asarray(np.where(call[0].astype(bool), call[1], call[2]))


def _clip(call: Operation) -> Numbers:
    low = call.attribute("min", None) if call.optional(1) is None else call[1]
    high = call.attribute("max", None) if call.optional(2) is None else call[2]
    fit_together(call[0], low, high)
    return np.asarray(call[0] if low is None and high is None else np.clip(call[0], low, high))


_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13, 21, 22})  # TensorProto.DataType
_BOOL = 9


def _cast(call: Operation) -> Numbers:
    to, value = call.attribute("to", None), call[0]
    if to in _INTEGERS:
        return np.asarray(value).astype(np.int64)
    return np.asarray(value != 0) if to == _BOOL else np.asarray(value, np.float64)


def _gelu(call: Operation) -> Numbers:
    fit_together(call[0], call.optional(1))
    x = call[0] if call.optional(1) is None else call[0] + call[1]  # BiasGelu
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def _swish(call: Operation) -> Numbers:
    return np.asarray(
        call[0] * sigmoid(call.attribute("alpha", 1.0 if call.op.op_type == "Swish" else 1.702) * call[0])
    )


def _elu(call: Operation) -> Numbers:
    return np.asarray(np.where(call[0] > 0, call[0], call.attribute("alpha", 1.0) * np.expm1(np.minimum(call[0], 0))))


def _leaky(call: Operation) -> Numbers:
    return np.asarray(np.where(call[0] < 0, call.attribute("alpha", 0.01) * call[0], call[0]))


def _hard_sigmoid(call: Operation) -> Numbers:
    return np.asarray(np.clip(call[0] * call.attribute("alpha", 0.2) + call.attribute("beta", 0.5), 0, 1))


TABLE: Table = {
    **dict.fromkeys(_UNARY, _unary), **dict.fromkeys(_BINARY, _binary), **dict.fromkeys(_VARIADIC, _variadic),
    "Mean": _mean_of_several, "Mod": _modulo, "EyeLike": _eye, "Trilu": _triangle, "Where": _where, "Clip": _clip,
    "Cast": _cast, "CastLike": lambda call: call[0], "Dropout": lambda call: call[0], "Gelu": _gelu,
    "BiasGelu": _gelu, "Swish": _swish, "QuickGelu": _swish, "Elu": _elu, "LeakyRelu": _leaky,
    "HardSigmoid": _hard_sigmoid,
}  # fmt: skip
