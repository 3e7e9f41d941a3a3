"""The operators that the probe runs, against the test data of the package `onnx`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.conformance import onnx_suite
from normsniff.anatomy.graph.arithmetic import MOST, CannotRunError, exact, run
from normsniff.checkpoint import Operator

# All that are in the table but for casts and quantisation, which are exact here on purpose
MODULES = (
    "abs", "add", "and_", "averagepool", "batch_normalization", "ceil", "clip", "concat", "constantofshape", "conv",
    "cos", "cumsum", "div", "einsum", "elu", "equal", "erf", "exp", "expand", "eyelike", "flatten", "floor", "gather",
    "gelu", "gemm", "globalaveragepool", "globalmaxpool", "greater", "greater_or_equal", "groupnormalization",
    "hardsigmoid", "hardswish", "identity", "instance_normalization", "isnan", "layernormalization", "leakyrelu",
    "less", "less_or_equal", "log", "logsoftmax", "lppool", "lpnormalization", "matmul", "max", "maxpool", "mean",
    "meanvariancenormalization", "min", "mish", "mod", "mul", "neg", "not_", "or_", "pad", "pow", "prelu", "rangeop",
    "reciprocal", "reduce_log_sum", "reduce_log_sum_exp", "reducel1", "reducel2", "reducemax", "reducemean",
    "reducemin", "reduceprod", "reducesum", "reducesumsquare", "relu", "reshape", "rmsnormalization", "round",
    "shape", "sigmoid", "sign", "sin", "size", "slice", "softmax", "softplus", "softsign", "split", "sqrt", "squeeze",
    "sub", "sum", "swish", "tan", "tanh", "tile", "transpose", "trilu", "unsqueeze", "where", "xor",
)  # fmt: skip
LEFT_OUT = ("string", "dilations", "ceil", "edge_pad", "reflect_pad", "wrap_pad", "pad_axes", "pad_negative", "uint8",
            "empty_set", "batch_diagonal", "maxpool_with_argmax")  # fmt: skip


def attributes(node: Any) -> dict[str, Any]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain: dict[str, Any] = {}
    for key, value in found.items():
        value = value.decode() if isinstance(value, bytes) else value
        value = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
        plain[key] = tuple(value) if isinstance(value, list) else value
    return plain


def test_operators_compute_what_the_suite_of_onnx_says() -> None:
    compared = set()
    for case in onnx_suite.models(MODULES):
        nodes = case.model.graph.node
        if len(nodes) != 1 or any(word in case.name for word in LEFT_OUT):
            continue
        node = nodes[0]
        op = Operator(node.op_type, "", "", tuple(node.input), tuple(node.output), attributes(node))
        given, expected = case.data_sets[0]
        opset = next(entry.version for entry in case.model.opset_import if not entry.domain)
        named = dict(zip((value.name for value in case.model.graph.input), given, strict=True))
        try:
            results = run(op, [exact(np.asarray(named[name])) if name else None for name in op.inputs], opset)
        except CannotRunError as error:
            if "not run here" in str(error):  # of another module that was imported before
                continue
            pytest.fail(f"{case.name}: {error}")
        for found, wanted in zip(results, expected, strict=False):
            array = exact(np.asarray(wanted)).astype(np.float64)
            assert found.shape == array.shape, case.name
            rough = np.asarray(wanted).dtype.itemsize < 4
            close = np.allclose(found, array, rtol=1e-2 if rough else 1e-4, atol=1e-3, equal_nan=True)
            assert close, case.name
        compared.add(op.op_type)
    assert len(compared) >= 80


@pytest.mark.parametrize(
    ("op_type", "values"),
    [
        ("Expand", [np.zeros(1), np.array([1 << 30])]),
        ("Tile", [np.zeros(8), np.array([1 << 40])]),
        ("ConstantOfShape", [np.array([1 << 15, 1 << 15])]),
        ("Range", [np.array(0.0), np.array(1e12), np.array(1.0)]),
        ("Pad", [np.zeros((2, 2)), np.array([1 << 20, 1 << 20, 0, 0])]),
        ("Mul", [np.zeros((MOST, 1)), np.zeros((1, MOST))]),
        ("MatMul", [np.zeros((MOST, 1)), np.zeros((1, MOST))]),
        ("Gather", [np.zeros((1, MOST)), np.zeros(64, np.int64)]),
    ],
)
def test_nothing_grows_beyond_bounds(op_type: str, values: list[Any]) -> None:
    with pytest.raises(CannotRunError):
        run(Operator(op_type, "", "", ("a", "b", "c")[: len(values)], ("y",)), values, 18)


LONG = 1200  # its square is more than may be
COLUMN, ROW, ONE = np.ones((LONG, 1)), np.ones((1, LONG)), np.ones(1)
IMAGE, CHANNELS = np.ones((1, 1, LONG)), np.ones(LONG)  # numbers for more channels than the one that there is


@pytest.mark.parametrize(
    ("op_type", "values", "attributes"),
    [
        ("Mean", [COLUMN, ROW], {}),
        ("Mod", [COLUMN, ROW], {}),
        ("Clip", [COLUMN, ROW, ROW], {}),
        ("BiasGelu", [COLUMN, ROW], {}),
        ("Gemm", [COLUMN, np.ones((1, 1)), ROW], {}),
        ("Conv", [IMAGE, np.ones((1, 1, 1)), CHANNELS], {}),
        ("LayerNormalization", [COLUMN, ROW, ROW], {"axis": -1}),
        ("InstanceNormalization", [IMAGE, CHANNELS, CHANNELS], {}),
        ("BatchNormalization", [IMAGE, CHANNELS, CHANNELS, CHANNELS, CHANNELS], {}),
        ("GroupNormalization", [IMAGE, CHANNELS, CHANNELS], {"num_groups": 1}),
        ("QuantizeLinear", [COLUMN, CHANNELS], {"axis": 1}),
        ("DequantizeLinear", [COLUMN, CHANNELS], {"axis": 1}),
        ("QLinearMul", [COLUMN, ONE, ROW, COLUMN, ONE, ROW, ONE], {}),
    ],
)
def test_operands_that_spread_over_each_other_are_refused_before_they_do(
    op_type: str, values: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(CannotRunError):
        run(Operator(op_type, "", "", tuple("abcdefg"[: len(values)]), ("y",), attributes), values, 21)


def test_what_is_not_in_the_table_is_unknown() -> None:
    with pytest.raises(CannotRunError, match="acme::LayerNorm is not run here"):
        run(Operator("LayerNorm", "acme", "", ("x",), ("y",)), [np.zeros(3)], 18)


def test_quantisation_rounds_nothing() -> None:
    x, scale, zero = np.array([0.3, -7.77]), np.array(0.1), np.array(5)
    (q,) = run(Operator("QuantizeLinear", "", "", ("x", "s", "z"), ("q",)), [x, scale, zero], 19)
    (y,) = run(Operator("DequantizeLinear", "", "", ("q", "s", "z"), ("y",)), [q, scale, zero], 19)
    assert np.allclose(x, y, atol=0, rtol=1e-12)


def test_a_signalling_nan_is_a_nan_without_a_word() -> None:
    assert np.isnan(exact(np.frombuffer(b"\x01\x00\x80\x7f", np.float32))).all()
