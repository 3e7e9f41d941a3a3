"""OpenVINO's operators in the vocabulary of ONNX, so that one set of patterns finds the norms of both.

Source: the operation specifications of OpenVINO (opset1 to opset16); attribute and input order are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Operator

_SAME_INPUTS = {
    "Multiply": "Mul", "Subtract": "Sub", "Divide": "Div", "Power": "Pow", "Convert": "Cast", "ConvertLike": "Cast",
    "SoftMax": "Softmax", "Broadcast": "Expand", "Select": "Where", "Maximum": "Max", "Minimum": "Min", "ReLU": "Relu",
    "Clamp": "Clip", "ShapeOf": "Shape", "StridedSlice": "Slice", "VariadicSplit": "Split", "Negative": "Neg",
    "FakeQuantize": "QuantizeLinear", "FakeConvert": "QuantizeLinear", "RMS": "RMSNormalization",
    "ScaledDotProductAttention": "MultiHeadAttention", "RoPE": "RotaryEmbedding", "NormalizeL2": "LpNormalization",
    "GroupNormalization": "GroupNormalization", "Result": "Identity", "ReadValue": "Identity", "TopK": "TopK",
    "ReduceL1": "ReduceL1", "Tile": "Expand", "Assign": "Identity", "PagedAttentionExtension": "PagedAttention",
}  # fmt: skip
_CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData"})


def translate(
    kind: str,
    version: str,
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    data: Mapping[str, str],
    rank: int,
    constant: Callable[[str], NDArray[Any] | None],
) -> tuple[Operator, ...]:
    """Return the operators that one layer is.

    Args:
        kind: type of the layer.
        version: operator set, or that of an extension.
        name: of the layer.
        inputs: values.
        outputs: values.
        data: attributes as written.
        rank: number of axes of the first input.
        constant: returns a small constant by the name of its value.
    """
    out = outputs[0] if outputs else ""

    def one(op_type: str, values: tuple[str, ...] | None = None, **attributes: Any) -> tuple[Operator, ...]:
        return (Operator(op_type, "", name, inputs if values is None else values, outputs, attributes),)

    if kind == "MVN":
        axes = _integers(constant(inputs[1])) if len(inputs) > 1 else None
        if data.get("normalize_variance", "true").lower() in ("false", "0"):
            mean = f"{out} (mean)"
            subtract = Operator("Sub", "", name, (inputs[0], mean), outputs)
            reduce = Operator("ReduceMean", "", f"{name} (mean)", inputs[:1], (mean,), {"axes": axes or ()})
            return reduce, subtract
        if axes is not None and rank and [a % rank for a in axes if -rank <= a < rank] == [rank - 1]:
            axes = (-1,)
        return one("MeanVarianceNormalization", inputs[:1], axes=axes or ())
    if kind == "MatMul" and len(inputs) == 2:
        flags: dict[str, Any] = {
            f"trans{side}": 1 for side in "AB" if data.get(f"transpose_{side.lower()}", "").lower() in ("true", "1")
        }
        return one("Gemm", **flags) if flags else one("MatMul")
    if kind in ("Gather", "Concat", "Split", "VariadicSplit"):
        axis = _integers(constant(inputs[2])) if kind == "Gather" and len(inputs) > 2 else None
        found = axis[0] if axis else _integer(data.get("axis"))
        values = inputs[:2] if kind == "Gather" else inputs
        return one("Split" if kind == "VariadicSplit" else kind, values, **_given(axis=found))
    if kind == "Transpose":
        perm = _integers(constant(inputs[1])) if len(inputs) > 1 else None
        return one(kind, inputs[:1], **_given(perm=perm))
    if kind == "SquaredDifference" and len(inputs) == 2:
        difference = f"{out} (difference)"
        return (
            Operator("Sub", "", f"{name} (difference)", inputs, (difference,)),
            Operator("Mul", "", name, (difference, difference), outputs),
        )
    if kind == "Power" and len(inputs) == 2:
        exponent = constant(inputs[1])
        if exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) == -1.0:
            return one("Reciprocal", inputs[:1])
    if kind in _CONVOLUTIONS:
        return one("ConvTranspose" if "Backprop" in kind else "Conv", **_given(group=2 if kind[0] == "G" else None))
    if kind == "BatchNormInference":
        if version == "opset1" and len(inputs) > 2:  # γ and β came first there
            inputs = (inputs[2], *inputs[:2], *inputs[3:])
        return one("BatchNormalization", inputs)
    return one(_SAME_INPUTS.get(kind, kind))


def _integers(array: NDArray[Any] | None) -> tuple[int, ...] | None:
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(n) for n in np.asarray(array).reshape(-1))


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdecimal() and len(text) < 10 else None


def _given(**attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if value is not None}
