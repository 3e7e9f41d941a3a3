"""Operators of a graph run on a handful of numbers: what the probe needs to see what a region computes.

Everything is float64, int64 or bool: types of less precision are taken as exact, quantisation as if nothing were
rounded, since what matters is the function and not its error. An operator that is not in the table, or whose operands
are not, raises `CannotRunError`: unknown, which is never the same as *no*.

Source: Operators.md of ONNX, operator sets 1 to 26, and ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ...checkpoint import Operator

Numbers: TypeAlias = NDArray[Any]
MOST = 1 << 20
"""Elements of one value: 8 MB, and a few milliseconds for the slowest operator."""
_AXES = 12  # of a value; numpy takes 64, exporters of attention over windows use eight


class CannotRunError(Exception):
    """An operator that is not known here, or operands that it does not take."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator with its operands; absent ones are None."""

    op: Operator
    values: Sequence[Numbers | None]
    opset: int

    def __getitem__(self, index: int) -> Any:
        """Return an operand that must be there."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise CannotRunError(f"{self.op.op_type} without operand {index}")
        return value

    def optional(self, index: int) -> Numbers | None:
        """Return an operand, or None."""
        return self.values[index] if index < len(self.values) else None

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.op.attributes.get(name, default)

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return a list that is an attribute or, in newer operator sets, an operand; None where it is neither."""
        found = self.op.attributes.get(name)
        if found is None and (value := self.optional(index)) is not None:
            if value.dtype.kind not in "iu" or value.size > MOST:
                raise CannotRunError(f"{name} of {self.op.op_type} is no list of integers")
            found = value.reshape(-1).tolist()
        if found is None:
            return None
        return [int(n) for n in (found if isinstance(found, list | tuple) else [found])]


def exact(array: Numbers) -> Numbers:
    """Return an array in the type that is computed with.

    Raises:
        CannotRunError: it holds neither numbers nor truth values.
    """
    kind = array.dtype.kind
    if kind == "b":
        return array
    if kind in "iu":
        return array.astype(np.int64, copy=False)
    if kind == "c" or kind in "SUOMm":
        raise CannotRunError(f"values of type {array.dtype}")
    return array.astype(np.float64, copy=False)  # float16, bfloat16 and the like have the kinds f and V


def run(op: Operator, values: Sequence[Numbers | None], opset: int) -> tuple[Numbers, ...]:
    """Return what one operator makes of its operands.

    Raises:
        CannotRunError: it is not known, does not take these operands, or would make more than `MOST` elements.
    """
    function = _TABLE.get(op.op_type) if op.domain in ("", "com.microsoft") else None
    if function is None:
        raise CannotRunError(f"{op.domain + '::' if op.domain else ''}{op.op_type} is not run here")
    try:
        with np.errstate(all="ignore"):
            found = function(Operation(op, values, opset))
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise CannotRunError(f"{op.op_type}: {error}") from error
    results = found if isinstance(found, tuple) else (found,)
    return tuple(exact(np.asarray(result)) for result in results)


def _fits(shape: Sequence[int]) -> None:
    if len(shape) > _AXES or min(shape, default=0) < 0 or math.prod(shape) > MOST:
        raise CannotRunError(f"a value of shape {tuple(shape)[:_AXES]}")


# --- element by element ----------------------------------------------------------------------------------------------


def _sigmoid(x: Numbers) -> Numbers:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


_erf = np.vectorize(math.erf, otypes=[np.float64])

_UNARY: Mapping[str, Callable[[Numbers], Any]] = {
    "Abs": np.abs, "Neg": np.negative, "Sqrt": np.sqrt, "Rsqrt": lambda x: 1.0 / np.sqrt(x), "Exp": np.exp,
    "Log": np.log, "Reciprocal": lambda x: 1.0 / x, "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint,
    "Sign": np.sign, "Sin": np.sin, "Cos": np.cos, "Tan": np.tan, "Atan": np.arctan, "Tanh": np.tanh,
    "Sinh": np.sinh, "Cosh": np.cosh, "Asinh": np.arcsinh, "Sigmoid": _sigmoid, "Relu": lambda x: np.maximum(x, 0),
    "Erf": _erf, "Softplus": lambda x: np.logaddexp(0, x), "Softsign": lambda x: x / (1 + np.abs(x)),
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
_VARIADIC: Mapping[str, Callable[[Numbers, Numbers], Any]] = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}


def _unary(call: Operation) -> Numbers:
    return np.asarray(_UNARY[call.op.op_type](call[0]))


def _binary(call: Operation) -> Numbers:
    a, b = _aligned(call, call[0], call[1])
    _fits(np.broadcast_shapes(a.shape, b.shape))
    return np.asarray(_BINARY[call.op.op_type](a, b))


def _aligned(call: Operation, a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Before operator set 7 the second operand was laid along the first from an axis on."""
    axis = call.attribute("axis", None)
    if call.opset < 7 and call.attribute("broadcast", 0) and axis is not None and 0 <= axis <= a.ndim - b.ndim:
        b = b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))
    return a, b


def _modulo(call: Operation) -> Numbers:
    return np.asarray((np.fmod if call.attribute("fmod", 0) else np.mod)(call[0], call[1]))


def _eye(call: Operation) -> Numbers:
    _fits(call[0].shape)
    rows, columns = call[0].shape
    return np.asarray(np.eye(rows, columns, k=call.attribute("k", 0)))


def _triangle(call: Operation) -> Numbers:
    k = 0 if call.optional(1) is None else int(call[1].reshape(-1)[0])
    return np.asarray((np.triu if call.attribute("upper", 1) else np.tril)(call[0], k))


def _variadic(call: Operation) -> Numbers:
    total: Numbers = call[0]
    for index in range(1, len(call.values)):
        value = call[index]
        _fits(np.broadcast_shapes(total.shape, value.shape))
        total = np.asarray(_VARIADIC[call.op.op_type](total, value))
    return total


def _mean_of_several(call: Operation) -> Numbers:
    total: Numbers = call[0]
    for index in range(1, len(call.values)):
        total = total + call[index]
    return np.asarray(total / len(call.values))


def _where(call: Operation) -> Numbers:
    _fits(np.broadcast_shapes(call[0].shape, call[1].shape, call[2].shape))
    return np.asarray(np.where(call[0].astype(bool), call[1], call[2]))


def _clip(call: Operation) -> Numbers:
    low = call.attribute("min", None) if call.optional(1) is None else call[1]
    high = call.attribute("max", None) if call.optional(2) is None else call[2]
    return np.asarray(call[0] if low is None and high is None else np.clip(call[0], low, high))


_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 12, 13, 21, 22})  # TensorProto.DataType
_BOOL = 9


def _cast(call: Operation) -> Numbers:
    to, value = call.attribute("to", None), call[0]
    if to in _INTEGERS:
        return np.asarray(value).astype(np.int64)
    return np.asarray(value != 0) if to == _BOOL else np.asarray(value, np.float64)


def _gelu(call: Operation) -> Numbers:
    x = call[0] if call.optional(1) is None else call[0] + call[1]  # BiasGelu
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _swish(call: Operation) -> Numbers:
    return np.asarray(
        call[0] * _sigmoid(call.attribute("alpha", 1.0 if call.op.op_type == "Swish" else 1.702) * call[0])
    )


def _elu(call: Operation) -> Numbers:
    return np.asarray(np.where(call[0] > 0, call[0], call.attribute("alpha", 1.0) * np.expm1(np.minimum(call[0], 0))))


def _leaky(call: Operation) -> Numbers:
    return np.asarray(np.where(call[0] < 0, call.attribute("alpha", 0.01) * call[0], call[0]))


def _hard_sigmoid(call: Operation) -> Numbers:
    return np.asarray(np.clip(call[0] * call.attribute("alpha", 0.2) + call.attribute("beta", 0.5), 0, 1))


# --- along axes ------------------------------------------------------------------------------------------------------


def _axes(found: Sequence[int], rank: int) -> tuple[int, ...]:
    if any(not -rank <= a < rank for a in found):
        raise CannotRunError(f"axes {tuple(found)[:_AXES]} of {rank}")
    return tuple(sorted({a % rank for a in found}))


_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "Mean": np.mean, "Sum": np.sum, "Max": np.max, "Min": np.min, "Prod": np.prod,
    "L1": lambda x, **k: np.sum(np.abs(x), **k), "L2": lambda x, **k: np.sqrt(np.sum(np.square(x), **k)),
    "SumSquare": lambda x, **k: np.sum(np.square(x), **k), "LogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "LogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}  # fmt: skip


def _reduce(call: Operation) -> Numbers:
    found, x = call.integers("axes", 1), call[0]
    if not found and call.attribute("noop_with_empty_axes", 0):
        return np.asarray(_REDUCTIONS[call.op.op_type[6:]](x[..., None], axis=-1))
    axes = _axes(found, x.ndim) if found else tuple(range(x.ndim))
    return np.asarray(_REDUCTIONS[call.op.op_type[6:]](x, axis=axes, keepdims=bool(call.attribute("keepdims", 1))))


def _softmax(call: Operation) -> Numbers:
    x, axis = call[0], call.attribute("axis", -1 if call.opset >= 13 else 1)
    over = tuple(range(_axes([axis], x.ndim)[0], x.ndim)) if call.opset < 13 else (axis,)
    raised = np.exp(x - x.max(axis=over, keepdims=True))
    result = raised / raised.sum(axis=over, keepdims=True)
    return np.asarray(np.log(result) if call.op.op_type == "LogSoftmax" else result)


def _cumulative(call: Operation) -> Numbers:
    x, axis = call[0], int(call[1].reshape(-1)[0])
    x = np.flip(x, axis) if call.attribute("reverse", 0) else x
    total = np.cumsum(x, axis) - (x if call.attribute("exclusive", 0) else 0)
    return np.asarray(np.flip(total, axis) if call.attribute("reverse", 0) else total)


# --- products and windows --------------------------------------------------------------------------------------------


def _matmul(call: Operation) -> Numbers:
    a, b = call[0], call[1]
    if a.ndim and b.ndim:
        _fits((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:]))
    return np.asarray(call.attribute("alpha", 1.0) * np.matmul(a, b))


def _gemm(call: Operation) -> Numbers:
    """Gemm; also a batched product with flags, which the readers of TFLite and OpenVINO write so."""
    a, b = call[0], call[1]
    a = np.swapaxes(a, -1, -2) if call.attribute("transA", 0) else a
    b = np.swapaxes(b, -1, -2) if call.attribute("transB", 0) else b
    _fits((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:]))
    product = call.attribute("alpha", 1.0) * np.matmul(a, b)
    added = call.optional(2)
    return np.asarray(product if added is None else product + call.attribute("beta", 1.0) * added)


def _einsum(call: Operation) -> Numbers:
    equation = str(call.attribute("equation", "")).replace(" ", "")
    operands = [call[index] for index in range(len(call.values))]
    letters: dict[str, int] = {}
    work = 1
    for term, value in zip(equation.partition("->")[0].split(","), operands, strict=True):
        named = term.replace("...", "")
        work = max(work, math.prod(value.shape[: value.ndim - len(named)]))  # axes that an ellipsis stands for
        for letter, n in zip(named[::-1], value.shape[::-1], strict=False):
            letters[letter] = max(n, letters.get(letter, 1))
    if len(operands) > 3 or work * math.prod(letters.values()) > 8 * MOST:  # the work of a plain einsum
        raise CannotRunError(f"Einsum {equation[:40]}")
    return np.asarray(np.einsum(equation, *operands))


def _windows(call: Operation, x: Numbers, kernel: Sequence[int], pad_with: float = 0.0) -> tuple[Numbers, Numbers]:
    """Return all windows of the spatial axes, and in how many elements of each the data lies."""
    rank = x.ndim - 2
    if len(kernel) != rank or rank < 1 or any(d != 1 for d in call.attribute("dilations", ())):
        raise CannotRunError(f"{call.op.op_type} with such a kernel")
    strides = list(call.attribute("strides", ())) or [1] * rank
    pads = list(call.attribute("pads", ())) or [0] * (2 * rank)
    padding = str(call.attribute("auto_pad", "NOTSET"))
    if padding.startswith("SAME"):
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if padding == "SAME_UPPER" else more + less
    around = [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))]
    _fits([n + a + b for n, (a, b) in zip(x.shape, around, strict=True)])
    if min((b for pair in around for b in pair), default=0) < 0:
        raise CannotRunError("negative pads")
    spread = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
    axes = tuple(range(2, rank + 2))
    found = sliding_window_view(np.pad(x, around, constant_values=pad_with), tuple(kernel), axes)[tuple(spread)]
    inside = sliding_window_view(np.pad(np.ones(x.shape), around), tuple(kernel), axes)[tuple(spread)]
    _fits(found.shape)
    return found, inside


def _pool(call: Operation) -> Numbers:
    x, kind, kernel = call[0], call.op.op_type, list(call.attribute("kernel_shape", ()))
    if call.attribute("ceil_mode", 0):
        raise CannotRunError("ceil_mode")
    found, inside = _windows(call, x, kernel, -np.inf if kind == "MaxPool" else 0.0)
    over = tuple(range(-len(kernel), 0))
    if kind == "MaxPool":
        return np.asarray(found.max(axis=over))
    if kind == "LpPool":
        p = call.attribute("p", 2)
        return np.asarray((np.abs(found) ** p).sum(axis=over) ** (1 / p))
    count = math.prod(kernel) if call.attribute("count_include_pad", 0) else inside.sum(axis=over)
    return np.asarray(found.sum(axis=over) / count)


def _global_pool(call: Operation) -> Numbers:
    x, kind, p = call[0], call.op.op_type, call.attribute("p", 2)
    over = tuple(range(2, x.ndim))
    if kind == "GlobalMaxPool":
        return np.asarray(x.max(axis=over, keepdims=True))
    if kind == "GlobalLpPool":
        return np.asarray((np.abs(x) ** p).sum(axis=over, keepdims=True) ** (1 / p))
    return np.asarray(x.mean(axis=over, keepdims=True))


def _conv(call: Operation) -> Numbers:
    x, weight, bias, group = call[0], call[1], call.optional(2), call.attribute("group", 1)
    if x.shape[1] != group * weight.shape[1] or weight.shape[0] % group:
        raise CannotRunError("Conv of other channels than its kernel has")
    found, _ = _windows(call, x, weight.shape[2:])
    rank = weight.ndim - 2
    over = (1, *range(-rank, 0))
    parts = [
        np.tensordot(piece, kernel, (over, (1, *range(2, rank + 2))))
        for piece, kernel in zip(np.split(found, group, 1), np.split(weight, group, 0), strict=True)
    ]
    result = np.moveaxis(np.concatenate(parts, -1), -1, 1)
    return np.asarray(result if bias is None else result + bias.reshape(1, -1, *(1,) * rank))


# --- norms -----------------------------------------------------------------------------------------------------------


def _normalised(x: Numbers, axes: tuple[int, ...], epsilon: float, *, centred: bool) -> Numbers:
    x = x - x.mean(axis=axes, keepdims=True) if centred else x
    return np.asarray(x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + epsilon))


def _trailing_norm(call: Operation) -> Numbers:
    centred = call.op.op_type == "LayerNormalization"
    x, axis = call[0], call.attribute("axis", -1)
    over = tuple(range(_axes([axis], x.ndim)[0], x.ndim))
    y = _normalised(x, over, call.attribute("epsilon", 1e-5), centred=centred)
    scale, shift = call.optional(1), call.optional(2) if centred else None
    y = y if scale is None else y * scale
    _fits(np.shape(y))
    return np.asarray(y if shift is None else y + shift)


def _along_channels(value: Numbers, rank: int) -> Numbers:
    return value.reshape(-1, *(1,) * (rank - 2))


def _instance_norm(call: Operation) -> Numbers:
    x = call[0]
    y = _normalised(x, tuple(range(2, x.ndim)), call.attribute("epsilon", 1e-5), centred=True)
    return np.asarray(y * _along_channels(call[1], x.ndim) + _along_channels(call[2], x.ndim))


def _group_norm(call: Operation) -> Numbers:
    x, groups = call[0], call.attribute("num_groups", 0)
    grouped = x.reshape(x.shape[0], groups, -1)
    y = _normalised(grouped, (2,), call.attribute("epsilon", 1e-5), centred=True)
    if call.opset < 21 and call[1].size == groups:
        return np.asarray((y * call[1].reshape(-1, 1) + call[2].reshape(-1, 1)).reshape(x.shape))
    return np.asarray(y.reshape(x.shape) * _along_channels(call[1], x.ndim) + _along_channels(call[2], x.ndim))


def _mean_variance(call: Operation) -> Numbers:
    x = call[0]
    axes = call.attribute("axes", (0, 2, 3))
    return _normalised(x, _axes(axes, x.ndim), 1e-9, centred=True)


def _batch_norm(call: Operation) -> Numbers:
    x, axes = call[0], (0, *range(2, call[0].ndim))
    mean, variance = call[3], call[4]
    if call.attribute("training_mode", 0):
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    scale, shift, mean, variance = (_along_channels(v, x.ndim) for v in (call[1], call[2], mean, variance))
    return np.asarray((x - mean) / np.sqrt(variance + call.attribute("epsilon", 1e-5)) * scale + shift)


def _lp_norm(call: Operation) -> Numbers:
    x, p = call[0], call.attribute("p", 2)
    axes = call.integers("axes", 1)  # OpenVINO's NormalizeL2
    over = _axes([call.attribute("axis", -1)] if axes is None else axes, x.ndim)
    length = (np.abs(x) ** p).sum(axis=over, keepdims=True) ** (1 / p)
    return np.asarray(np.divide(x, length, out=np.zeros_like(x), where=length > 0))


# --- shapes ----------------------------------------------------------------------------------------------------------


def _reshape(call: Operation) -> Numbers:
    x, target = call[0], call.integers("shape", 1)
    if target is None:
        raise CannotRunError("Reshape to an unknown shape")
    if not call.attribute("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return np.asarray(x.reshape(target))


def _transpose(call: Operation) -> Numbers:
    return np.asarray(np.transpose(call[0], call.attribute("perm", None)))


def _squeeze(call: Operation) -> Numbers:
    x, axes = call[0], call.integers("axes", 1)
    return np.asarray(np.squeeze(x) if axes is None else np.squeeze(x, _axes(axes, x.ndim)))


def _unsqueeze(call: Operation) -> Numbers:
    axes = call.integers("axes", 1) or []
    return np.asarray(np.expand_dims(call[0], _axes(axes, call[0].ndim + len(axes))))


def _flatten(call: Operation) -> Numbers:
    x, axis = call[0], call.attribute("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return np.asarray(x.reshape(math.prod(x.shape[:axis]), -1))


def _expand(call: Operation) -> Numbers:
    shape = np.broadcast_shapes(call[0].shape, tuple(call.integers("shape", 1) or ()))
    _fits(shape)
    return np.asarray(np.broadcast_to(call[0], shape))


def _tile(call: Operation) -> Numbers:
    repeats = call.integers("repeats", 1) or []
    _fits([n * r for n, r in zip(call[0].shape, repeats, strict=True)])
    return np.asarray(np.tile(call[0], repeats))


def _concat(call: Operation) -> Numbers:
    parts = [call[index] for index in range(len(call.values))]
    if sum(part.size for part in parts) > MOST:
        raise CannotRunError("Concat of so much")
    return np.asarray(np.concatenate(parts, call.attribute("axis", 1)))


def _split(call: Operation) -> tuple[Numbers, ...]:
    x, sizes = call[0], call.integers("split", 1)
    axis = _axes([call.attribute("axis", 0)], x.ndim)[0]
    if sizes is None:
        each = -(-x.shape[axis] // max(len(call.op.outputs), 1))
        sizes = [each] * len(call.op.outputs)
    return tuple(np.split(x, np.cumsum(sizes)[:-1].tolist(), axis))


def _slice(call: Operation) -> Numbers:
    x, starts, ends = call[0], call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None:
        raise CannotRunError("Slice from somewhere")
    axes, steps = call.integers("axes", 3) or list(range(len(starts))), call.integers("steps", 4) or [1] * len(starts)
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return np.asarray(x[tuple(taken)])


def _gather(call: Operation) -> Numbers:
    x, indices, axis = call[0], call[1], call.attribute("axis", 0)
    _fits((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 or x.ndim :]))
    return np.asarray(np.take(x, indices, axis))


def _pad(call: Operation) -> Numbers:
    pads, x = call.integers("pads", 1) or [], call[0]
    around = [(pads[i], pads[i + x.ndim]) for i in range(x.ndim)]
    _fits([n + a + b for n, (a, b) in zip(x.shape, around, strict=True)])
    if str(call.attribute("mode", "constant")) != "constant" or call.optional(3) is not None or min(pads) < 0:
        raise CannotRunError("Pad of such a kind")
    value = call.optional(2)
    return np.asarray(
        np.pad(x, around, constant_values=call.attribute("value", 0.0) if value is None else value.reshape(-1)[0])
    )


def _shape(call: Operation) -> Numbers:
    return np.array(call[0].shape[call.attribute("start", 0) : call.attribute("end", None)], np.int64)


def _constant_of_shape(call: Operation) -> Numbers:
    shape = tuple(call[0].reshape(-1).tolist())
    _fits(shape)
    value = call.attribute("value", None)
    return np.asarray(np.full(shape, 0.0 if value is None else exact(np.asarray(value)).reshape(-1)[0]))


def _range(call: Operation) -> Numbers:
    start, stop, step = (call[index].reshape(-1)[0] for index in range(3))
    _fits([max(math.ceil((stop - start) / step), 0)])
    return np.asarray(np.arange(start, stop, step))


# --- quantisation, as if nothing were rounded ------------------------------------------------------------------------


def _sides(call: Operation, scale: Numbers, zero: Numbers | None) -> tuple[Any, Any]:
    """Lay scale and zero point along their axis."""
    x, axis = call[0], call.attribute("axis", 1)
    if call.attribute("block_size", 0) or (scale.ndim > 1 and scale.size > 1):
        raise CannotRunError("quantisation in blocks")
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    sides = [None if v is None else v.reshape(shape if v.size > 1 else [1] * x.ndim) for v in (scale, zero)]
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
    a, b = ((call[i] - call[i + 2]) * call[i + 1] for i in (0, 3))
    _fits(np.broadcast_shapes(a.shape, b.shape))
    result = a * b if call.op.op_type == "QLinearMul" else a + b
    return np.asarray(result / call[6] + (0 if call.optional(7) is None else call[7]))


_TABLE: Mapping[str, Callable[[Operation], Any]] = {
    **dict.fromkeys(_UNARY, _unary), **dict.fromkeys(_BINARY, _binary), **dict.fromkeys(_VARIADIC, _variadic),
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS}, "Mean": _mean_of_several, "Mod": _modulo, "EyeLike": _eye,
    "Trilu": _triangle,
    "Where": _where, "Clip": _clip,
    "Cast": _cast, "CastLike": lambda call: call[0], "Dropout": lambda call: call[0], "Gelu": _gelu,
    "BiasGelu": _gelu, "Swish": _swish, "QuickGelu": _swish, "Elu": _elu, "LeakyRelu": _leaky,
    "HardSigmoid": _hard_sigmoid, "Softmax": _softmax, "LogSoftmax": _softmax,
    "CumSum": _cumulative, "MatMul": _matmul, "FusedMatMul": _gemm, "Gemm": _gemm, "Einsum": _einsum, "Conv": _conv,
    "AveragePool": _pool, "MaxPool": _pool, "LpPool": _pool, "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool, "GlobalLpPool": _global_pool, "LayerNormalization": _trailing_norm,
    "RMSNormalization": _trailing_norm, "SimplifiedLayerNormalization": _trailing_norm,
    "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance, "BatchNormalization": _batch_norm, "LpNormalization": _lp_norm,
    "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Flatten": _flatten,
    "Expand": _expand, "Tile": _tile, "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather,
    "Pad": _pad, "Shape": _shape, "Size": lambda call: np.array(call[0].size), "ConstantOfShape": _constant_of_shape,
    "Range": _range, "QuantizeLinear": _quantise, "DequantizeLinear": _dequantise,
    "DynamicQuantizeLinear": _quantise_dynamically, "QLinearAdd": _quantised_arithmetic,
    "QLinearMul": _quantised_arithmetic,
}  # fmt: skip
