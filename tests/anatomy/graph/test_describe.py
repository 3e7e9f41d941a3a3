"""Norms and matrices found in graphs, each form of norm-facts.md sections 3.3 and 3.4 built by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from normsniff.anatomy.graph.describe import describe
from normsniff.anatomy.parts import Anatomy, Matrix, Site
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import BytesSource

D, F, V = 24, 40, 100
RNG = np.random.default_rng(3)


class Net:
    """Writes a graph a line at a time; a value is a name, an array argument becomes an initialiser."""

    def __init__(self, opset: int = 18, inputs: str = "x ids") -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs, self.opset = inputs.split(), opset

    def weight(self, value: Any, name: str = "") -> str:
        name = name or f"w{len(self.weights)}"
        self.weights.append(
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        )
        return name

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        values = [value if isinstance(value, str) else self.weight(value) for value in inputs]
        names = [f"v{len(self.nodes)}" + "_" * i for i in range(outputs)]
        self.nodes.append(helper.make_node(op, values, names, domain=domain, **attributes))
        return names[0]

    def anatomy(self, *outputs: str) -> Anatomy:
        ins, outs = ([helper.make_tensor_value_info(n, 1, None) for n in names] for names in (self.inputs, outputs))
        graph = helper.make_graph(self.nodes, "g", ins, outs, initializer=self.weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        data = helper.make_model(graph, opset_imports=opsets).SerializeToString()
        found = describe(read_checkpoint(BytesSource(data, "m.onnx"), Limits()))
        assert found is not None
        return found

    def reduce(self, op: str, value: str, axes: list[int] | None = None, **attributes: Any) -> str:
        axes = axes or [-1]
        if self.opset >= 18:
            return self(op, value, np.array(axes), **attributes)
        return self(op, value, axes=axes, **attributes)

    def mean(self, value: str, axes: list[int] | None = None) -> str:
        return self.reduce("ReduceMean", value, axes)

    def linear(self, value: str, n_in: int, n_out: int) -> str:
        return self("MatMul", value, vector(n_in, n_out))


def vector(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def number(value: float) -> Any:
    return np.array(value, np.float32)


EPS, ONE, TWO, HALF = number(1e-5), number(1.0), number(2.0), number(-0.5)


# --- the forms -------------------------------------------------------------------------------------------------------


def layer_norm(n: Net, x: str) -> str:  # TorchScript, opset 14
    c = n("Sub", x, n.mean(x))
    s = n("Sqrt", n("Add", n.mean(n("Pow", c, TWO)), EPS))
    return n("Add", n("Mul", n("Div", c, s), vector(D)), vector(D))


def layer_norm_attribute_axes(n: Net, x: str) -> str:
    n.opset = 14
    return layer_norm(n, x)


def layer_norm_without_bias(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x))
    return n("Mul", n("Div", c, n("Sqrt", n("Add", n.mean(n("Mul", c, c)), EPS))), vector(D))


def layer_norm_without_affine(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x))
    return n("Div", c, n("Sqrt", n("Add", n.mean(n("Pow", c, TWO)), EPS)))


def layer_norm_no_eps(n: Net, x: str) -> str:  # dynamo folds 1e-12 away
    c = n("Sub", x, n.mean(x))
    return n("Mul", n("Div", c, n("Sqrt", n.mean(n("Pow", c, TWO)))), vector(D))


def layer_norm_mean_subtracted_twice(n: Net, x: str) -> str:  # old PyTorch
    first, second = n("Sub", x, n.mean(x)), n("Sub", x, n.mean(x))
    s = n("Sqrt", n("Add", n.mean(n("Pow", second, TWO)), EPS))
    return n("Add", n("Mul", n("Div", first, s), vector(D)), vector(D))


def layer_norm_casts(n: Net, x: str) -> str:  # Cohere in half precision
    x = n("Cast", x, to=1)
    c = n("Sub", x, n.mean(x))
    r = n("Reciprocal", n("Sqrt", n("Add", n.mean(n("Pow", n("Cast", c, to=1), TWO)), EPS)))
    return n("Mul", n("Cast", n("Mul", c, r), to=10), n("Cast", vector(D), to=10))


def layer_norm_tensorflow(n: Net, x: str) -> str:  # tf2onnx: the scale goes into the factor
    m = n.mean(x)
    c = n("Sub", x, m)
    r = n("Reciprocal", n("Sqrt", n("Add", n.mean(n("Mul", c, c)), EPS)))
    s = n("Mul", r, vector(D))
    return n("Add", n("Mul", x, s), n("Sub", vector(D), n("Mul", m, s)))


def layer_norm_jax(n: Net, x: str) -> str:  # magika: E[x²] - E[x]² of sums, reshaped and broadcast again
    n.opset = 13
    count, shape = number(1 / D), np.array([1, 1, 1])
    m = n("Mul", n("ReduceSum", x, np.array([2]), keepdims=0), count)
    e = n("Mul", n("ReduceSum", n("Mul", x, x), np.array([2]), keepdims=0), count)
    v = n("Max", number(0), n("Sub", e, n("Mul", m, m)))
    r = n("Reciprocal", n("Sqrt", n("Add", n("Expand", n("Reshape", v, shape), "shape"), EPS)))
    c = n("Sub", x, n("Expand", n("Reshape", m, shape), "shape"))
    return n("Add", n("Mul", c, n("Mul", r, vector(1, 1, D))), vector(1, 1, D))


def layer_norm_scale_first(n: Net, x: str) -> str:  # γ·(x - mean) / (std + ε), unbiased: the annotated transformer
    c = n("Sub", x, n.mean(x))
    d = n("Cast", n("ReduceProd", n("Gather", n("Shape", x), np.array([-1])), keepdims=0), to=1)
    v = n("Div", n("Mul", n.mean(n("Mul", c, c)), d), n("Sub", d, ONE))
    return n("Add", n("Div", n("Mul", vector(D), c), n("Add", n("Sqrt", v), EPS)), vector(D))


def layer_norm_sum_square(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x))
    v = n("Div", n.reduce("ReduceSumSquare", c), number(D))
    return n("Mul", n("Mul", c, n("Pow", n("Add", v, EPS), HALF)), vector(D))


def layer_norm_channels_first(n: Net, x: str) -> str:  # ConvNeXt
    c = n("Sub", x, n.mean(x, [1]))
    s = n("Sqrt", n("Add", n.mean(n("Pow", c, TWO), [1]), EPS))
    w, b = (n("Unsqueeze", vector(D), np.array([1, 2])) for _ in range(2))
    return n("Add", n("Mul", n("Div", c, s), w), b)


def layer_norm_shift_only(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x))
    return n("Add", n("Div", c, n("Sqrt", n("Add", n.mean(n("Pow", c, TWO)), EPS))), vector(D))


def layer_norm_two_axes(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x, [-2, -1]))
    s = n("Sqrt", n("Add", n.mean(n("Pow", c, TWO), [-2, -1]), EPS))
    return n("Add", n("Mul", n("Div", c, s), vector(6, D)), vector(6, D))


def layer_norm_instance(n: Net, x: str) -> str:  # tf2onnx of a three-dimensional LayerNormalization
    channels = n("Slice", n("Shape", x), np.array([1]), np.array([2]))
    one = n("ConstantOfShape", channels, value=numpy_helper.from_array(np.ones(1, np.float32)))
    zero = n("ConstantOfShape", channels, value=numpy_helper.from_array(np.zeros(1, np.float32)))
    return n("Add", n("Mul", n("InstanceNormalization", x, one, zero), vector(D)), vector(D))


def layer_norm_batch(n: Net, x: str) -> str:  # tf2onnx of the fused batch norm that Keras' LayerNormalization used
    flat = n("Reshape", x, np.array([1, -1, D, 1]))
    m = n.mean(flat, [2, 3])
    v = n("Mul", n.reduce("ReduceSumSquare", n("Sub", flat, m), [2, 3]), number(1 / D))
    y = n("BatchNormalization", flat, np.ones(5, np.float32), np.zeros(5, np.float32), m, v)
    return n("Add", n("Mul", n("Reshape", y, np.array([0, -1, D])), vector(D)), vector(D))


def layer_norm_operator(n: Net, x: str) -> str:
    return n("LayerNormalization", x, vector(D), vector(D), axis=-1)


def layer_norm_operator_zero_bias(n: Net, x: str) -> str:
    return n("LayerNormalization", x, vector(D), np.zeros(D, np.float32), axis=-1)


def layer_norm_operator_no_bias(n: Net, x: str) -> str:
    return n("LayerNormalization", x, vector(D), axis=-1)


def layer_norm_operator_quantised(n: Net, x: str) -> str:  # quantize_static
    q = np.arange(D).astype(np.int8)
    scale = n("DequantizeLinear", q, number(0.1), np.array(0, np.int8))
    shift = n("DequantizeLinear", q.astype(np.int32), number(0.1), np.array(0, np.int32))
    return n("LayerNormalization", x, scale, shift, axis=-1)


def centred_then_rms_operator(n: Net, x: str) -> str:  # dynamo, opset 23, of a LayerNorm without bias
    return n("RMSNormalization", n("Sub", x, n.mean(x)), vector(D), axis=-1)


def centred_then_simplified(n: Net, x: str) -> str:  # ONNX Runtime's fusion of the same
    return n("SimplifiedLayerNormalization", n("Cast", n("Sub", x, n.mean(x)), to=1), vector(D), axis=-1)


def mean_variance(n: Net, x: str) -> str:
    return n("Add", n("Mul", n("MeanVarianceNormalization", x, axes=[-1]), vector(D)), vector(D))


def skip_layer_norm(n: Net, x: str) -> str:
    return n("SkipLayerNormalization", x, x, vector(D), vector(D), vector(D), domain="com.microsoft")


def rms_norm(n: Net, x: str) -> str:  # T5, Llama in TorchScript
    x = n("Cast", x, to=1)
    r = n("Div", ONE, n("Sqrt", n("Add", n.mean(n("Pow", x, TWO)), EPS)))
    return n("Mul", vector(D), n("Cast", n("Mul", x, r), to=1))


def rms_norm_reciprocal(n: Net, x: str) -> str:  # dynamo, opset 18
    r = n("Reciprocal", n("Sqrt", n("Add", n.mean(n("Pow", x, TWO)), EPS)))
    return n("Mul", n("Mul", x, r), vector(D))


def rms_norm_divided(n: Net, x: str) -> str:
    return n("Mul", n("Div", x, n("Sqrt", n("Add", n.mean(n("Mul", x, x)), EPS))), vector(D))


def rms_norm_without_scale(n: Net, x: str) -> str:
    return n("Div", x, n("Sqrt", n("Add", n.mean(n("Mul", x, x)), EPS)))


def rms_norm_zero_centred(n: Net, x: str) -> str:  # Gemma, not folded
    r = n("Pow", n("Add", n.mean(n("Pow", x, TWO)), EPS), HALF)
    return n("Mul", n("Mul", x, r), n("Add", ONE, vector(D)))


def rms_operator_zero_centred(n: Net, x: str) -> str:
    return n("RMSNormalization", x, n("Add", vector(D), ONE), axis=-1)


def rms_norm_quantised(n: Net, x: str) -> str:  # quantize_static in operator form
    s, z = number(0.02), np.array(0, np.uint8)
    r = n("Div", ONE, n("Sqrt", n("Add", n.mean(n("Pow", x, TWO)), EPS)))
    q, f = (n("QuantizeLinear", y, s, z) for y in (x, r))
    y = n("QLinearMul", q, s, z, f, s, z, s, z, domain="com.microsoft")
    return n("QLinearMul", np.arange(D).astype(np.uint8), s, z, y, s, z, s, z, domain="com.microsoft")


def rms_norm_by_length(n: Net, x: str) -> str:  # x / ‖x‖ · √d · γ
    length = n("Expand", n("Clip", n.reduce("ReduceL2", x), number(1e-12)), n("Shape", x))
    return n("Mul", n("Mul", n("Div", x, length), number(D**0.5)), vector(D))


def rms_operator(n: Net, x: str) -> str:
    return n("RMSNormalization", x, vector(D), axis=-1)


def rms_norm_by_length_of_a_computed_factor(n: Net, x: str) -> str:  # γ·x / (‖x‖·√(1/d) + ε)
    length = n("Mul", n.reduce("ReduceL2", x), n("Pow", number(D), number(-0.5)))
    return n("Div", n("Mul", vector(D), x), n("Add", length, EPS))


def simplified(n: Net, x: str) -> str:
    return n("SimplifiedLayerNormalization", x, vector(D), axis=-1)


def skip_simplified(n: Net, x: str) -> str:  # its fourth input is the bias of the layer before
    return n("SkipSimplifiedLayerNormalization", x, x, vector(D), vector(D), domain="com.microsoft")


def rms_norm_of_data_centred_over_time(n: Net, x: str) -> str:
    x = n("Sub", x, n.mean(x, [-2]))
    return n("Mul", n("Div", x, n("Sqrt", n("Add", n.mean(n("Mul", x, x)), EPS))), vector(D))


LAYER_NORMS = [
    layer_norm, layer_norm_attribute_axes, layer_norm_without_bias, layer_norm_without_affine, layer_norm_no_eps,
    layer_norm_mean_subtracted_twice, layer_norm_casts, layer_norm_tensorflow, layer_norm_jax, layer_norm_scale_first,
    layer_norm_sum_square, layer_norm_channels_first, layer_norm_shift_only, layer_norm_two_axes, layer_norm_instance,
    layer_norm_batch, layer_norm_operator, layer_norm_operator_zero_bias, layer_norm_operator_no_bias,
    layer_norm_operator_quantised, centred_then_rms_operator, centred_then_simplified, mean_variance, skip_layer_norm,
]  # fmt: skip
RMS_NORMS = [
    rms_norm, rms_norm_reciprocal, rms_norm_divided, rms_norm_without_scale, rms_norm_zero_centred,
    rms_operator_zero_centred, rms_norm_quantised, rms_norm_by_length, rms_norm_by_length_of_a_computed_factor,
    rms_operator, simplified, skip_simplified, rms_norm_of_data_centred_over_time,
]  # fmt: skip
NO_SCALE = {layer_norm_without_affine, layer_norm_shift_only, rms_norm_without_scale}
NO_SHIFT = {
    layer_norm_without_bias, layer_norm_without_affine, layer_norm_no_eps, layer_norm_casts, layer_norm_sum_square,
    layer_norm_operator_no_bias, centred_then_rms_operator, centred_then_simplified, *RMS_NORMS,
}  # fmt: skip
OFFSET = {rms_norm_zero_centred, rms_operator_zero_centred}
Form = Callable[[Net, str], str]


def only(anatomy: Anatomy) -> Site:
    assert len(anatomy.sites) == 1
    return anatomy.sites[0]


@pytest.mark.parametrize("form", LAYER_NORMS + RMS_NORMS, ids=lambda form: form.__name__)
def test_every_form(form: Form) -> None:
    net = Net()
    anatomy = net.anatomy(form(net, "x"))
    site = only(anatomy)
    assert site.kind == ("LayerNorm" if form in LAYER_NORMS else "RMSNorm")
    assert (site.scale is None) == (form in NO_SCALE)
    assert (site.shift is None) == (form in NO_SHIFT)
    assert site.offset == (1.0 if form in OFFSET else 0.0)
    assert site.why
    if site.scale is not None and form is not layer_norm_two_axes:
        assert site.width == site.scale.size == D
    assert not anatomy.others
    assert anatomy.basis == "graph"


@pytest.mark.parametrize("form", [layer_norm, layer_norm_tensorflow, rms_norm, rms_operator], ids=lambda f: f.__name__)
def test_names_do_not_matter(form: Form) -> None:
    net = Net()
    output = form(net, "x")
    values = {name for node in net.nodes for name in (*node.input, *node.output)} - {"x"}
    other = {name: f"RMSNorm.LayerNorm.layer_norm.{i}" for i, name in enumerate(sorted(values))}
    for node in net.nodes:
        node.name = "/rms_norm/LayerNormalization"
        for names in (node.input, node.output):
            names[:] = [other.get(name, name) for name in names]
    for weight in net.weights:
        weight.name = other[weight.name]
    assert only(net.anatomy(other[output])).kind == ("LayerNorm" if form in LAYER_NORMS else "RMSNorm")


def test_one_shared_scale_is_two_sites() -> None:  # the TorchScript exporter merges equal tensors
    net = Net()
    scale = net.weight(vector(D))
    first = net("LayerNormalization", "x", scale, axis=-1)
    second = net("LayerNormalization", net("Relu", first), scale, axis=-1)
    assert [site.scale.name for site in net.anatomy(second).sites if site.scale] == [scale, scale]


# --- what is neither -------------------------------------------------------------------------------------------------


def batch_norm(n: Net) -> str:
    return n("BatchNormalization", "x", vector(D), vector(D), vector(D), vector(D))


def instance_norm(n: Net) -> str:
    return n("InstanceNormalization", "x", vector(D), vector(D))


def group_norm(n: Net) -> str:  # PyTorch: Reshape, InstanceNormalization, Reshape, scale a channel
    y = n("InstanceNormalization", n("Reshape", "x", np.array([0, 4, -1])), np.ones(4, np.float32), vector(4))
    return n("Add", n("Mul", n("Reshape", y, n("Shape", "x")), vector(D, 1, 1)), vector(D, 1, 1))


def group_norm_operator(n: Net) -> str:
    return n("GroupNormalization", "x", vector(D), vector(D), num_groups=4)


def group_norm_spelled_out(n: Net) -> str:
    y = layer_norm_without_affine(n, n("Reshape", "x", np.array([0, 4, -1])))
    return n("Add", n("Mul", n("Reshape", y, n("Shape", "x")), vector(D, 1, 1)), vector(D, 1, 1))


def instance_norm_spelled_out(n: Net) -> str:
    c = n("Sub", "x", n.mean("x", [2, 3]))
    y = n("Div", c, n("Sqrt", n("Add", n.mean(n("Pow", c, TWO), [2, 3]), EPS)))
    return n("Mul", y, vector(D, 1, 1))


def scale_along_another_axis(n: Net) -> str:  # normalised over the last axis, scaled along the channels
    return n("Mul", layer_norm_without_affine(n, "x"), vector(D, 1))


def adaptive_instance_norm(n: Net) -> str:  # StyleTTS, Kokoro
    y = n("InstanceNormalization", "x", np.ones(D, np.float32), np.zeros(D, np.float32))
    style = n.linear("ids", 8, D)
    return n("Add", n("Mul", n("Add", style, ONE), y), style)


def batch_norm_in_training(n: Net) -> str:
    c = n("Sub", "x", n.mean("x", [0]))
    return n("Mul", n("Div", c, n("Sqrt", n("Add", n.mean(n("Mul", c, c), [0]), EPS))), vector(D))


def l2_norm(n: Net) -> str:
    return n("Div", "x", n("Clip", n.reduce("ReduceL2", "x"), number(1e-12)))


def l2_norm_spelled_out(n: Net) -> str:
    return n("Div", "x", n("Sqrt", n.reduce("ReduceSum", n("Mul", "x", "x"))))


def l2_operator(n: Net) -> str:
    return n("LpNormalization", "x", axis=-1, p=2)


def somebodys_own(n: Net) -> str:
    return n("SuperNorm", "x", vector(D), domain="acme")


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        (batch_norm, "BatchNorm"),
        (instance_norm, "InstanceNorm"),
        (group_norm, "InstanceNorm"),
        (group_norm_operator, "GroupNorm"),
        (group_norm_spelled_out, "GroupNorm"),
        (instance_norm_spelled_out, "InstanceNorm"),
        (scale_along_another_axis, "GroupNorm"),
        (adaptive_instance_norm, "InstanceNorm"),
        (batch_norm_in_training, "BatchNorm"),
        (l2_norm, "L2Norm"),
        (l2_norm_spelled_out, "L2Norm"),
        (l2_operator, "L2Norm"),
    ],
)
def test_other_normalisers_are_counted_and_no_sites(form: Callable[[Net], str], kind: str) -> None:
    net = Net()
    anatomy = net.anatomy(form(net))
    assert anatomy.sites == ()
    assert anatomy.others == {kind: 1}


def test_an_operator_that_nobody_defines_is_not_understood() -> None:
    net = Net()
    anatomy = net.anatomy(somebodys_own(net))
    assert not anatomy.others
    (thing,) = anatomy.unexplained
    assert (thing.what, thing.where) == ("operator", "v0")
    assert "acme::SuperNorm" in thing.why


def deviation_pooling(n: Net) -> str:  # the deviation goes on, nothing is divided by it
    c = n("Sub", "x", n.mean("x"))
    return n("Concat", n.mean("x"), n("Sqrt", n("Add", n.mean(n("Mul", c, c)), EPS)), axis=-1)


def softmax(n: Net) -> str:
    e = n("Exp", n("Sub", "x", n.reduce("ReduceMax", "x")))
    return n("Div", e, n.reduce("ReduceSum", e))


def something_else_divided(n: Net) -> str:
    c = n("Sub", "x", n.mean("x"))
    return n("Div", "ids", n("Sqrt", n("Add", n.mean(n("Mul", c, c)), EPS)))


def scaled_by_deviation_only(n: Net) -> str:  # divided by the deviation, the mean never subtracted
    c = n("Sub", "x", n.mean("x"))
    return n("Div", "x", n("Sqrt", n("Add", n.mean(n("Mul", c, c)), EPS)))


def cubed(n: Net) -> str:
    return n("Div", "x", n("Sqrt", n.mean(n("Pow", "x", number(3.0)))))


def gelu(n: Net) -> str:
    return n("Mul", "x", n("Add", n("Erf", n("Div", "x", number(2**0.5))), ONE))


def standardised_weight(n: Net) -> str:
    return n("MatMul", "x", layer_norm_without_affine(n, n.weight(vector(D, F))))


@pytest.mark.parametrize(
    "form",
    [deviation_pooling, softmax, something_else_divided, scaled_by_deviation_only, cubed, gelu, standardised_weight],
)
def test_what_only_looks_like_a_norm(form: Callable[[Net], str]) -> None:
    net = Net()
    anatomy = net.anatomy(form(net))
    assert anatomy.sites == ()
    assert not anatomy.others


# --- readers and writers ---------------------------------------------------------------------------------------------


def matrices(anatomy: Anatomy, role: str) -> list[Matrix]:
    return [matrix for matrix in anatomy.matrices if matrix.role == role]


def int8(*shape: int) -> Any:
    return RNG.integers(-9, 9, shape).astype(np.int8)


def dynamic_quantised(n: Net, x: str, n_in: int, n_out: int) -> str:
    name = f"v{len(n.nodes)}"
    n("DynamicQuantizeLinear", x, outputs=3)
    product = n("MatMulInteger", name, int8(n_in, n_out), name + "__", np.array(0, np.int8))
    return n("Mul", n("Cast", product, to=1), n("Mul", name + "_", number(0.1)))


def static_quantised(n: Net, x: str, n_in: int, n_out: int) -> str:
    scale, zero = number(0.1), np.array(0, np.int8)
    q = n("QuantizeLinear", x, scale, zero)
    y = n("QLinearMatMul", q, scale, zero, int8(n_in, n_out), scale, zero, scale, zero)
    return n("DequantizeLinear", y, scale, zero)


def transposed_qdq(n: Net, x: str, n_in: int, n_out: int) -> str:
    x = n("DequantizeLinear", n("QuantizeLinear", x, number(0.1)), number(0.1))
    return n("MatMul", x, n("Transpose", n("DequantizeLinear", int8(n_out, n_in), number(0.1)), perm=[1, 0]))


def on_the_left(n: Net, x: str, n_in: int, n_out: int) -> str:
    y = n("MatMul", vector(n_out, n_in), n("Transpose", x, perm=[0, 2, 1]))
    return n("Transpose", y, perm=[0, 2, 1])


def convolution(n: Net, x: str, n_in: int, n_out: int) -> str:
    y = n("Conv", n("Transpose", x, perm=[0, 2, 1]), vector(n_out, n_in, 3), kernel_shape=[3], pads=[1, 1])
    return n("Transpose", y, perm=[0, 2, 1])


def two_dimensional_convolution(n: Net, x: str, n_in: int, n_out: int) -> str:
    x = n("Transpose", n("Unsqueeze", x, np.array([1])), perm=[0, 3, 1, 2])
    y = n("Transpose", n("Conv", x, vector(n_out, n_in, 1, 1), kernel_shape=[1, 1]), perm=[0, 2, 3, 1])
    return n("Squeeze", y, np.array([1]))


def gemm(n: Net, x: str, n_in: int, n_out: int) -> str:
    y = n("Gemm", n("Reshape", x, np.array([-1, n_in])), vector(n_in, n_out), vector(n_out))
    return n("Reshape", y, np.array([2, -1, n_out]))


def gemm_transposed(n: Net, x: str, n_in: int, n_out: int) -> str:
    y = n("Gemm", n("Reshape", x, np.array([-1, n_in])), vector(n_out, n_in), vector(n_out), transB=1)
    return n("Reshape", y, np.array([2, -1, n_out]))


def fused_transposed(n: Net, x: str, n_in: int, n_out: int) -> str:
    return n("FusedMatMul", x, vector(n_out, n_in), transB=1, domain="com.microsoft")


def biased(n: Net, x: str, n_in: int, n_out: int) -> str:
    return n("Add", n.linear(x, n_in, n_out), vector(n_out))


def reshaped_weight(n: Net, x: str, n_in: int, n_out: int) -> str:  # heads kept apart in the file
    return n("MatMul", x, n("Reshape", vector(n_in, n_out // 4, 4), np.array([n_in, n_out])))


def block_quantised(n: Net, x: str, n_in: int, n_out: int) -> str:
    packed = RNG.integers(0, 255, (n_out, -(-n_in // 32), 16)).astype(np.uint8)
    scales = vector(*packed.shape[:2])
    return n("MatMulNBits", x, packed, scales, domain="com.microsoft", K=n_in, N=n_out, bits=4, block_size=32)


Linear = Callable[[Net, str, int, int], str]


@pytest.mark.parametrize(
    ("linear", "axis_in", "axis_out"),
    [
        (Net.linear, 0, 1),
        (biased, 0, 1),
        (gemm, 0, 1),
        (gemm_transposed, 1, 0),
        (fused_transposed, 1, 0),
        (transposed_qdq, 1, 0),
        (on_the_left, 1, 0),
        (convolution, 1, 0),
        (two_dimensional_convolution, 1, 0),
        (dynamic_quantised, 0, 1),
        (static_quantised, 0, 1),
        (block_quantised, 1, 0),
    ],
)
@pytest.mark.parametrize("norm", [layer_norm, rms_norm, rms_operator], ids=lambda form: form.__name__)
def test_a_block_in_every_kind_of_product(norm: Form, linear: Linear, axis_in: int, axis_out: int) -> None:
    net = Net()
    x = net("Add", net.linear("x", 8, D), net.linear("ids", 9, D))
    y = net("Add", x, linear(net, net("Gelu", linear(net, norm(net, x), D, F)), F, D))
    anatomy = net.anatomy(net("Relu", norm(net, y)))
    assert [site.role for site in anatomy.sites] == ["stream", "stream"]
    assert anatomy.widths == {"main": D}
    (reader,) = matrices(anatomy, "reader")
    assert (reader.axis, reader.tensor.shape[reader.axis], reader.site) == (axis_in, D, 0)
    axes = {(m.axis, m.tensor.shape[m.axis]) for m in matrices(anatomy, "writer") if F in m.tensor.shape}
    assert axes == {(axis_out, D)}
    assert len(matrices(anatomy, "writer")) == 3


def test_a_weight_stored_with_its_heads_apart() -> None:
    net = Net()
    anatomy = net.anatomy(net("Relu", reshaped_weight(net, layer_norm(net, net("Add", "x", "ids")), D, F)))
    (reader,) = matrices(anatomy, "reader")
    assert (reader.tensor.shape, reader.axis) == ((D, F // 4, 4), 0)


def test_a_convolution_over_positions_reads_nothing() -> None:  # magika: the normalised axis is not the one summed over
    net = Net()
    y = net("Transpose", net("Unsqueeze", layer_norm(net, "x"), np.array([-1])), perm=[0, 1, 2, 3])
    anatomy = net.anatomy(net("Relu", net("Conv", y, vector(F, D, 1, 1))))
    assert anatomy.matrices == ()


def attention(n: Net, x: str, norm: Form | None) -> str:
    heads = np.array([0, 0, 4, 6])
    q, k, v = (n("Reshape", n.linear(x, D, D), heads) for _ in range(3))
    if norm is not None:
        q, k = (n("Mul", n("Div", y, n("Sqrt", n.mean(n("Mul", y, y)))), vector(6)) for y in (q, k))
        q, k = (n("Add", n("Mul", y, "cos"), n("Mul", n("Neg", y), "sin")) for y in (q, k))
    q, v = (n("Transpose", y, perm=[0, 2, 1, 3]) for y in (q, v))
    weights = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 2, 3, 1])))
    merged = n("Reshape", n("Transpose", n("MatMul", weights, v), perm=[0, 2, 1, 3]), np.array([0, 0, -1]))
    return n.linear(merged, D, D)


def transformer(norm: Form, *, query_key: bool = False, post: bool = False, tied: bool = False, layers: int = 2) -> Net:
    n = Net(inputs="ids x cos sin")
    table = n.weight(vector(V, D), "table")
    positions = n("Gather", vector(64, D), n("Range", number(0), n("Shape", "ids"), ONE))
    x = n("Add", n("Gather", table, "ids"), positions)
    for _ in range(layers):
        if post:
            x = norm(n, n("Add", x, attention(n, x, None)))
            x = norm(n, n("Add", n.linear(n("Relu", n.linear(x, D, F)), F, D), x))
        else:
            x = n("Add", x, attention(n, norm(n, x), norm if query_key else None))
            x = n("Add", n.linear(n("Relu", n.linear(norm(n, x), D, F)), F, D), x)
    if not post:
        x = norm(n, x)
    head = n("Transpose", table, perm=[1, 0]) if tied else vector(D, V)
    n("Softmax", n("MatMul", x, head))
    return n


def last(net: Net) -> str:
    name: str = net.nodes[-1].output[0]
    return name


@pytest.mark.parametrize(
    "norm", [layer_norm, layer_norm_without_affine, rms_norm, rms_operator], ids=lambda f: f.__name__
)
def test_a_transformer(norm: Form) -> None:
    net = transformer(norm)
    anatomy = net.anatomy(last(net))
    assert Counter(site.role for site in anatomy.sites) == {"stream": 5}
    assert {site.width for site in anatomy.sites} == {D}
    roles = Counter(matrix.role for matrix in anatomy.matrices)
    assert roles == {"reader": 8, "writer": 4, "embedding": 1, "position": 1, "unembedding": 1}
    assert all(matrix.tensor.shape[matrix.axis] == D for matrix in anatomy.matrices)
    assert {(m.tensor.shape, m.axis) for m in matrices(anatomy, "writer")} == {((D, D), 1), ((F, D), 1)}
    assert {(m.tensor.shape, m.axis) for m in matrices(anatomy, "reader")} == {((D, D), 0), ((D, F), 0)}
    assert [m.site for m in matrices(anatomy, "reader")] == [0, 0, 0, 1, 2, 2, 2, 3]
    assert matrices(anatomy, "unembedding")[0].site == 4


def test_query_and_key_norms_are_not_of_the_stream() -> None:
    net = transformer(rms_operator, query_key=True)
    anatomy = net.anatomy(last(net))
    assert Counter((site.role, site.width) for site in anatomy.sites) == {("stream", D): 5, ("query-key", 6): 4}
    assert anatomy.widths == {"main": D}
    assert Counter(m.role for m in anatomy.matrices)["writer"] == 4


def test_post_norm() -> None:
    net = transformer(layer_norm, post=True)
    anatomy = net.anatomy(last(net))
    roles = Counter(matrix.role for matrix in anatomy.matrices)
    # the first attention reads the sum of the embeddings, which no norm has touched
    assert roles == {"reader": 5, "writer": 4, "embedding": 1, "position": 1, "unembedding": 1}


def test_a_tied_embedding_is_both() -> None:
    net = transformer(rms_norm, tied=True)
    anatomy = net.anatomy(last(net))
    tied = [(m.role, m.axis) for m in anatomy.matrices if m.tensor.name == "table"]
    assert sorted(tied) == [("embedding", 1), ("unembedding", 1)]


def test_fused_operators_of_onnx_runtime() -> None:
    net = Net(inputs="ids mask")
    ms = "com.microsoft"
    x = net("EmbedLayerNormalization", "ids", "", vector(V, D), vector(64, D), "", vector(D), vector(D), domain=ms)
    a = net.linear(net("Attention", x, vector(D, 3 * D), vector(3 * D), num_heads=4, domain=ms), D, D)
    y = net("SkipLayerNormalization", a, x, vector(D), vector(D), vector(D), domain=ms)
    f = net.linear(net("FastGelu", net.linear(y, D, F), vector(F), domain=ms), F, D)
    anatomy = net.anatomy(net("SkipLayerNormalization", f, y, vector(D), vector(D), vector(D), domain=ms))
    assert [site.kind for site in anatomy.sites] == ["LayerNorm"] * 3
    found = {(m.role, m.tensor.shape, m.axis) for m in anatomy.matrices}
    assert found == {
        ("embedding", (V, D), 1), ("position", (64, D), 1), ("reader", (D, 3 * D), 0), ("writer", (D, D), 1),
        ("reader", (D, F), 0), ("writer", (F, D), 1),
    }  # fmt: skip


def test_the_sum_that_a_fused_norm_hands_on() -> None:
    net = Net()
    first, total = net("SkipSimplifiedLayerNormalization", net.linear("x", 9, D), net.linear("x", 8, D), vector(D),
                       outputs=4, domain="com.microsoft"), "v2___"  # fmt: skip
    second = net("SkipSimplifiedLayerNormalization", net.linear(net("Relu", net.linear(first, D, F)), F, D), total,
                 vector(D), domain="com.microsoft")  # fmt: skip
    anatomy = net.anatomy(second)
    assert [site.kind for site in anatomy.sites] == ["RMSNorm", "RMSNorm"]
    assert sorted(m.tensor.shape for m in matrices(anatomy, "writer")) == [(8, D), (9, D), (F, D)]


def test_norms_inside_attention_operators() -> None:
    net = Net()
    q = net.linear("x", D, D)
    empty = [""] * 11
    out = net("GroupQueryAttention", q, q, q, *empty, vector(6), vector(6), domain="com.microsoft", num_heads=4)
    anatomy = net.anatomy(out)
    assert [(site.kind, site.role, site.width) for site in anatomy.sites] == [("RMSNorm", "query-key", 6)] * 2


def test_layer_scale_position_table_and_class_token() -> None:  # a vision transformer
    net = Net()
    patches = net("Conv", "x", vector(D, 3, 4, 4), kernel_shape=[4, 4], strides=[4, 4])
    tokens = net("Transpose", net("Reshape", patches, np.array([0, D, -1])), perm=[0, 2, 1])
    x = net("Add", net("Concat", net("Expand", vector(1, 1, D), "ids"), tokens, axis=1), vector(1, 17, D))
    x = net("Add", x, net("Mul", net.linear(net("Relu", net.linear(layer_norm(net, x), D, F)), F, D), vector(D)))
    pooled = net("Gather", layer_norm(net, x), np.array(0), axis=1)
    anatomy = net.anatomy(net("Gemm", pooled, vector(10, D), vector(10), transB=1))
    found = {(m.role, m.tensor.shape, m.axis) for m in anatomy.matrices}
    assert found == {
        ("writer", (D, 3, 4, 4), 0), ("position", (1, 17, D), 2), ("reader", (D, F), 0), ("writer", (F, D), 1),
        ("unembedding", (10, D), 1),
    }  # fmt: skip


def test_a_cached_key_is_no_unembedding() -> None:
    net = Net()
    y = rms_norm(net, net("Add", "x", "ids"))
    k = net("Reshape", net.linear(y, D, F), np.array([0, 0, 4, 10]))
    scores = net("MatMul", net("Reshape", net.linear(y, D, F), np.array([0, 0, 4, 10])), k)
    assert Counter(m.role for m in net.anatomy(k, net("Relu", scores)).matrices) == {"reader": 2}


def test_a_norm_inside_a_block_is_other() -> None:
    net = transformer(layer_norm)
    inner = net("Mul", net.linear(last(net), V, F), "x")
    net("MatMul", net("LayerNormalization", inner, vector(F), axis=-1), vector(F, 7))
    anatomy = net.anatomy(last(net))
    assert [site.role for site in anatomy.sites] == ["stream"] * 5 + ["other"]
    assert anatomy.widths == {"main": D}


def test_without_norms() -> None:
    net = Net()
    anatomy = net.anatomy(net("Relu", net.linear("x", D, F)))
    assert anatomy == Anatomy((), (), {}, "graph", (), {})


def test_layers_are_taken_from_names_where_there_are_any() -> None:
    net = Net()
    out = net("LayerNormalization", "x", net.weight(vector(D), "model.layers.7.norm.weight"), axis=-1)
    net.nodes[-1].name = "/model/layers.7/norm/LayerNormalization"
    site = only(net.anatomy(out))
    assert (site.layer, site.name) == (7, "/model/layers.7/norm")


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_operands_does_not_matter(order: list[int]) -> None:
    net = Net()
    output = layer_norm_tensorflow(net, "x")
    for index in order[: len(order) // 2]:
        node = net.nodes[index % len(net.nodes)]
        if node.op_type in ("Mul", "Add"):
            node.input[:] = list(reversed(node.input))
    site = only(net.anatomy(output))
    assert site.kind == "LayerNorm"
    assert site.scale is not None
    assert site.shift is not None
