"""OpenVINO's operators in the vocabulary of ONNX: every row that is more than another name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from normsniff.formats.openvino.ops import translate
from normsniff.formats.openvino.xml import IrLayer

CONSTANTS = {"last": np.array([2]), "axes": np.array([1, 2]), "-1": np.array(-1.0), "0.5": np.array(0.5)}
Expected = list[tuple[str, str, str, Mapping[str, object]]]


@pytest.mark.parametrize(
    ("kind", "inputs", "data", "expected"),
    [
        ("Multiply", "x y", {}, [("Mul", "x y", "out", {})]),
        ("Relu", "x", {}, [("Relu", "x", "out", {})]),  # no row: the name stays
        ("MVN", "x last", {}, [("MeanVarianceNormalization", "x", "out", {"axes": (-1,)})]),
        ("MVN", "x axes", {}, [("MeanVarianceNormalization", "x", "out", {"axes": (1, 2)})]),
        (
            "MVN", "x last", {"normalize_variance": "false"},
            [("ReduceMean", "x", "out (mean)", {"axes": (2,)}), ("Sub", "x|out (mean)", "out", {})],
        ),
        (
            "SquaredDifference", "x y", {},
            [("Sub", "x y", "out (difference)", {}), ("Mul", "out (difference)|out (difference)", "out", {})],
        ),
        ("MatMul", "x y", {}, [("MatMul", "x y", "out", {})]),
        ("MatMul", "x y", {"transpose_a": "false", "transpose_b": "true"}, [("Gemm", "x y", "out", {"transB": 1})]),
        ("MatMul", "x y", {"transpose_a": "1"}, [("Gemm", "x y", "out", {"transA": 1})]),
        ("Gather", "x ids last", {}, [("Gather", "x ids", "out", {"axis": 2})]),
        ("Gather", "x ids", {"axis": "-1"}, [("Gather", "x ids", "out", {"axis": -1})]),
        ("Gather", "x ids unknown", {}, [("Gather", "x ids", "out", {})]),
        ("Concat", "x y", {"axis": "1"}, [("Concat", "x y", "out", {"axis": 1})]),
        ("Concat", "x y", {"axis": "9" * 12}, [("Concat", "x y", "out", {})]),
        ("Split", "x last", {}, [("Split", "x last", "out", {})]),
        ("VariadicSplit", "x last y", {}, [("Split", "x last y", "out", {})]),
        ("Transpose", "x axes", {}, [("Transpose", "x", "out", {"perm": (1, 2)})]),
        ("Power", "x -1", {}, [("Reciprocal", "x", "out", {})]),
        ("Power", "x 0.5", {}, [("Pow", "x 0.5", "out", {})]),
        ("Convolution", "x w", {}, [("Conv", "x w", "out", {})]),
        ("GroupConvolution", "x w", {}, [("Conv", "x w", "out", {"group": 2})]),
        ("ConvolutionBackpropData", "x w", {}, [("ConvTranspose", "x w", "out", {})]),
        ("BatchNormInference", "g b x m v", {}, [("BatchNormalization", "x g b m v", "out", {})]),
        *((kind, "", {"normalize_variance": "false"}, [(kind, "", "out", {})]) for kind in ("MVN", "MatMul", "Gather")),
    ],
)  # fmt: skip
def test_a_layer_is_these_operators(kind: str, inputs: str, data: dict[str, str], expected: Expected) -> None:
    layer = IrLayer("7", "name", kind, "opset1", data, ranks=[3])
    found = translate(layer, tuple(inputs.split()), ("out",), CONSTANTS.get)
    assert [(op.op_type, op.inputs, op.outputs, op.attributes) for op in found] == [
        (op_type, tuple(values.split("|") if "|" in values else values.split()), (out,), attributes)
        for op_type, values, out, attributes in expected
    ]


def test_later_operator_sets_have_the_data_of_a_batch_norm_first() -> None:
    layer = IrLayer("7", "name", "BatchNormInference", "opset5")
    assert translate(layer, tuple("xgbmv"), ("out",), CONSTANTS.get)[0].inputs == tuple("xgbmv")
