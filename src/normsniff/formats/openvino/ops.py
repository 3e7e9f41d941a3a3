"""OpenVINO's operators in the vocabulary of ONNX, so that one set of patterns finds the norms of both.

Source: the operation specifications of OpenVINO (opset1 to opset16); attribute and input order are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Operator
from .xml import IrLayer

_SAME_INPUTS = {
    "Multiply": "Mul", "Subtract": "Sub", "Divide": "Div", "Power": "Pow", "Convert": "Cast", "ConvertLike": "Cast",
    "SoftMax": "Softmax", "Broadcast": "Expand", "Select": "Where", "Maximum": "Max", "Minimum": "Min", "ReLU": "Relu",
    "Clamp": "Clip", "ShapeOf": "Shape", "StridedSlice": "Slice", "Negative": "Neg",
    "FakeQuantize": "QuantizeLinear", "FakeConvert": "QuantizeLinear", "RMS": "RMSNormalization",
    "ScaledDotProductAttention": "MultiHeadAttention", "RoPE": "RotaryEmbedding", "NormalizeL2": "LpNormalization",
    "GroupNormalization": "GroupNormalization", "Result": "Identity", "ReadValue": "Identity", "TopK": "TopK",
    "ReduceL1": "ReduceL1", "Tile": "Expand", "Assign": "Identity", "PagedAttentionExtension": "PagedAttention",
}  # fmt: skip

Constants = Callable[[str], NDArray[Any] | None]
"""Returns a small constant by the name of its value."""


def translate(
    layer: IrLayer, inputs: tuple[str, ...], outputs: tuple[str, ...], constant: Constants
) -> tuple[Operator, ...]:
    """Return the operators that one layer is.

    Args:
        layer: as written.
        inputs: values.
        outputs: values.
        constant: returns a small constant by the name of its value.
    """
    call = _LayerCall(layer, inputs, outputs, constant)
    rewrite = _REWRITTEN.get(layer.type)
    if rewrite is None and layer.type.startswith("Reduce"):
        rewrite = _reduced
    operators = () if rewrite is None else rewrite(call)
    return operators or call.one(_SAME_INPUTS.get(layer.type, layer.type))


@dataclass(frozen=True, slots=True)
class _LayerCall:
    """A layer among its values."""

    layer: IrLayer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constant: Constants

    def one(self, op_type: str, inputs: tuple[str, ...] | None = None, **attributes: Any) -> tuple[Operator, ...]:
        """Return one operator for the layer; attributes that are None are left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        # of no published operator set, and of no name that is known: an extension, which may do anything
        known = self.layer.version.startswith("opset") or not self.layer.version or self.layer.type in _SAME_INPUTS
        domain = "" if known or self.layer.type in _REWRITTEN else self.layer.version[:40]
        return (
            Operator(op_type, domain, self.layer.name, self.inputs if inputs is None else inputs, self.outputs, given),
        )

    def integers(self, index: int) -> tuple[int, ...] | None:
        """Return the constant that input `index` is."""
        array = self.constant(self.inputs[index]) if len(self.inputs) > index else None
        if array is None or array.dtype.kind not in "iu":
            return None
        return tuple(int(n) for n in np.asarray(array).reshape(-1))

    def axis(self) -> int | None:
        """Return the attribute of that name."""
        text = self.layer.data.get("axis")
        return int(text) if text is not None and text.lstrip("-").isdecimal() and len(text) < 10 else None

    def between(self, word: str) -> str:
        """Return the name of a value between the two operators that a layer is."""
        return f"{self.outputs[0] if self.outputs else ''} ({word})"


def _mean_variance(call: _LayerCall) -> tuple[Operator, ...]:
    if not call.inputs:
        return ()
    axes, rank = call.integers(1), call.layer.ranks[0] if call.layer.ranks else 0
    if call.layer.data.get("normalize_variance", "true").lower() in ("false", "0"):
        mean = call.between("mean")
        reduce = Operator("ReduceMean", "", f"{call.layer.name} (mean)", call.inputs[:1], (mean,), {"axes": axes or ()})
        return reduce, *call.one("Sub", (call.inputs[0], mean))
    if axes is not None and rank and [a % rank for a in axes if -rank <= a < rank] == [rank - 1]:
        axes = (-1,)
    return call.one("MeanVarianceNormalization", call.inputs[:1], axes=axes or ())


def _reduced(call: _LayerCall) -> tuple[Operator, ...]:
    kept = call.layer.data.get("keep_dims", "false").lower() in ("true", "1")
    return call.one(call.layer.type, keepdims=int(kept))


def _squared_difference(call: _LayerCall) -> tuple[Operator, ...]:
    if len(call.inputs) != 2:
        return ()
    difference = call.between("difference")
    subtract = Operator("Sub", "", f"{call.layer.name} (difference)", call.inputs, (difference,))
    return subtract, *call.one("Mul", (difference, difference))


def _product(call: _LayerCall) -> tuple[Operator, ...]:
    if len(call.inputs) != 2:
        return ()
    flags: dict[str, Any] = {
        f"trans{side}": 1
        for side in "AB"
        if call.layer.data.get(f"transpose_{side.lower()}", "").lower() in ("true", "1")
    }
    return call.one("Gemm", **flags) if flags else call.one("MatMul")


def _gathered(call: _LayerCall) -> tuple[Operator, ...]:
    axis = call.integers(2)
    return call.one("Gather", call.inputs[:2], axis=axis[0] if axis else call.axis())


def _power(call: _LayerCall) -> tuple[Operator, ...]:
    exponent = call.constant(call.inputs[1]) if len(call.inputs) == 2 else None
    if exponent is None or exponent.size != 1 or float(exponent.reshape(-1)[0]) != -1.0:
        return ()
    return call.one("Reciprocal", call.inputs[:1])


def _batch_norm(call: _LayerCall) -> tuple[Operator, ...]:
    inputs = call.inputs
    if call.layer.version == "opset1" and len(inputs) > 2:  # γ and β came first there
        inputs = (inputs[2], *inputs[:2], *inputs[3:])
    return call.one("BatchNormalization", inputs)


_REWRITTEN: Mapping[str, Callable[[_LayerCall], tuple[Operator, ...]]] = {
    # what differs from ONNX in more than its name; nothing returned: no rewriting after all
    "MVN": _mean_variance,
    "SquaredDifference": _squared_difference,
    "MatMul": _product,
    "Gather": _gathered,
    "Concat": lambda call: call.one("Concat", axis=call.axis()),
    "Split": lambda call: call.one("Split", axis=call.axis()),
    "VariadicSplit": lambda call: call.one("Split", axis=call.axis()),
    "Transpose": lambda call: call.one("Transpose", call.inputs[:1], perm=call.integers(1)),
    "Power": _power,
    "Convolution": lambda call: call.one("Conv"),
    "GroupConvolution": lambda call: call.one("Conv", group=2),  # more than one; how many is not asked
    "ConvolutionBackpropData": lambda call: call.one("ConvTranspose"),
    "BatchNormInference": _batch_norm,
}
