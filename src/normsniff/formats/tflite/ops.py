"""TensorFlow Lite's operators in the vocabulary of ONNX, so that one set of patterns finds the norms of both.

Source: TensorFlow Lite's schema.fbs (BuiltinOperator and the options of each).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Operator
from .flatbuffer import Table

# BuiltinOperator -> what it is called in ONNX, where inputs correspond; some are rewritten below
NAMES: Mapping[int, str] = {
    0: "Add", 2: "Concat", 3: "Conv", 4: "Conv", 6: "DequantizeLinear", 7: "Gather", 9: "Gemm", 11: "LpNormalization",
    13: "LRN", 14: "Sigmoid", 18: "Mul", 19: "Relu", 22: "Reshape", 25: "Softmax", 28: "Tanh", 32: "Custom",
    34: "Pad", 36: "Gather", 39: "Transpose", 40: "ReduceMean", 41: "Sub", 42: "Div", 43: "Squeeze", 45: "Slice",
    47: "Exp", 49: "Split", 50: "LogSoftmax", 53: "Cast", 55: "Max", 56: "ArgMax", 57: "Min", 59: "Neg", 60: "Pad",
    64: "Where", 65: "Slice", 66: "Sin", 67: "ConvTranspose", 69: "Expand", 70: "Unsqueeze", 73: "Log",
    74: "ReduceSum", 75: "Sqrt", 76: "Rsqrt", 77: "Shape", 78: "Pow", 80: "QuantizeLinear", 81: "ReduceProd",
    82: "ReduceMax", 83: "Pack", 88: "Split", 89: "ReduceMin", 92: "Square", 99: "SquaredDifference", 101: "Abs",
    102: "Split", 106: "Sum", 114: "QuantizeLinear", 118: "If", 119: "Loop", 123: "Where", 126: "MatMul",
    130: "Expand", 150: "Gelu", 206: "Composite",
}  # fmt: skip
IF, WHILE, COMPOSITE = 118, 119, 206
_REDUCTIONS = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
_HANDED_ON = frozenset(["QuantizeLinear", "DequantizeLinear", "Cast", "Reshape"])


class OperatorCall(NamedTuple):
    """One operator as stored: code, values, options, and number of axes of the first input and of the first output."""

    code: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Table | None
    rank: int
    result_rank: int = 0


class Translator:
    """Translates one operator after the other; it remembers which values are negated ones."""

    def __init__(self, constant: Callable[[str], NDArray[Any] | None]) -> None:
        self._constant = constant
        self._negated: dict[str, str] = {}

    def translate(self, call: OperatorCall) -> Iterator[Operator]:
        """Yield the operators that one is."""
        kind, inputs, outputs = NAMES.get(call.code, f"TFLite_{call.code}"), call.inputs, call.outputs
        options, out = call.options, outputs[0] if outputs else ""

        def one(
            op_type: str, values: tuple[str, ...] = inputs, results: tuple[str, ...] = outputs, **more: Any
        ) -> Operator:
            return Operator(op_type, "", call.name, values, results, more)

        axis = self._integers(inputs[1]) if len(inputs) > 1 else None
        if kind in _REDUCTIONS:
            fits = axis is not None and all(-call.rank <= a < call.rank for a in axis)
            axes = tuple(a % call.rank - call.rank for a in axis) if fits and axis else axis
            kept = call.rank == call.result_rank if options is None else options.scalar(0, "B") != 0
            yield one(kind, inputs[:1], axes=axes or (), keepdims=int(kept))
        elif kind == "Transpose":
            attributes: dict[str, Any] = {"perm": axis} if axis else {}
            yield one(kind, inputs[:1], **attributes)
        elif kind == "Unsqueeze":
            yield one(kind, inputs[:1], axes=axis or ())
        elif kind == "Reshape" and len(inputs) < 2:
            shape = tuple(options.array(0, "<i4").tolist()) if options is not None else ()
            yield one(kind, shape=shape)
        elif kind == "Gather":
            values = inputs[:2] if call.code == 36 else inputs[1::-1]  # EMBEDDING_LOOKUP has the rows first
            yield one(kind, values, axis=0 if options is None or call.code != 36 else options.scalar(0, "i"))
        elif kind == "Concat":
            yield one(kind, axis=0 if options is None else options.scalar(0, "i"))
        elif kind == "Gemm":
            yield one(kind, tuple(name for name in inputs if name), transB=1)
        elif kind == "MatMul" and options is not None and (options.scalar(0, "b") or options.scalar(1, "b")):
            flags: dict[str, Any] = {
                key: 1 for index, key in enumerate(("transA", "transB")) if options.scalar(index, "b")
            }
            yield one("Gemm", **flags)
        elif call.code == 4:  # depthwise
            yield one(kind, group=2)
        elif kind == "Square":
            yield one("Mul", (*inputs[:1], *inputs[:1]))
        elif kind == "SquaredDifference" and len(inputs) == 2:
            difference = f"{out} (difference)"
            yield one("Sub", inputs, (difference,))
            yield one("Mul", (difference, difference))
        else:
            yield from self._with_signs(kind, inputs, out, one)

    def _with_signs(
        self, kind: str, inputs: tuple[str, ...], out: str, one: Callable[..., Operator]
    ) -> Iterator[Operator]:
        """Write ``b + (-a)`` as ``b - a``: the converter negates the mean of a LayerNorm and adds it."""
        negative = next((name for name in inputs[:2] if name in self._negated), None)
        if kind == "Neg" and inputs:
            self._negated[out] = inputs[0]
        elif negative is not None and kind == "Add" and len(inputs) == 2:
            other = inputs[1] if inputs[0] == negative else inputs[0]
            yield one("Sub", (other, self._negated[negative]))
            return
        elif negative is not None and (kind == "Mul" and len(inputs) == 2 and inputs[0] != inputs[1]):
            positive = self._negated[out] = f"{out} (negated)"
            yield one("Mul", tuple(self._negated[n] if n == negative else n for n in inputs), (positive,))
            yield one("Neg", (positive,))
            return
        elif negative is not None and kind in _HANDED_ON and inputs[0] == negative:
            positive = self._negated[out] = f"{out} (negated)"
            yield one(kind, (self._negated[negative], *inputs[1:]), (positive,))
            yield one("Neg", (positive,))
            return
        yield one(kind)

    def _integers(self, value: str) -> tuple[int, ...] | None:
        array = self._constant(value)
        if array is None or array.dtype.kind not in "iu":
            return None
        return tuple(int(n) for n in np.asarray(array).reshape(-1))
