"""Ways to write a norm in ONNX, and what only looks like one: each in a small transformer, node by node.

The truth of a form is measured, not named: `measured` runs the norm alone in the reference evaluator of the package
`onnx` and looks at what it ignores. Needs nothing but `onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .truth import Made, Truth

Label = Literal["LayerNorm", "RMSNorm", "none", "undetermined"]
D, TOKENS, WORDS, BLOCKS = 48, 8, 80, 2
_NEWEST_IR = 10  # of models that the evaluators at hand read


class Net:
    """Writes a graph a line at a time; a value is a name, an array argument becomes an initialiser."""

    def __init__(self, opset: int = 18, *, tokens: int = TOKENS, plain: bool = False, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.functions: list[Any] = []
        self.opset, self.d, self.tokens = opset, D, tokens
        self.rng, self.plain, self.prefix = np.random.default_rng(0), plain, prefix

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its first output, the others have an underscore more each."""
        values = [value if isinstance(value, str) else self.weight(value) for value in inputs]
        names = [f"{self.prefix}v{len(self.nodes)}" + "_" * i for i in range(outputs)]
        self.nodes.append(helper.make_node(op, values, names, domain=domain, **attributes))
        return names[0]

    def weight(self, value: Any) -> str:
        """Add an initialiser; return its name."""
        name = f"{self.prefix}w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def matrix(self, *shape: int) -> NDArray[Any]:
        """Return a trained-looking matrix."""
        return (self.rng.standard_normal(shape) * 0.05).astype(np.float32)

    def scale(self, *shape: int) -> NDArray[Any]:
        """Return a trained-looking scale."""
        if self.plain:
            return np.ones(shape or (self.d,), np.float32)
        return (1 + 0.1 * self.rng.standard_normal(shape or (self.d,))).astype(np.float32)

    def shift(self, *shape: int) -> NDArray[Any]:
        """Return a trained-looking shift."""
        if self.plain:
            return np.zeros(shape or (self.d,), np.float32)
        return (0.05 * self.rng.standard_normal(shape or (self.d,))).astype(np.float32)

    def reduce(self, op: str, x: str, axes: tuple[int, ...] = (-1,), keepdims: int = 1) -> str:
        """Add a reduction as the operator set wants it."""
        if self.opset >= 18 or (op == "ReduceSum" and self.opset >= 13):
            return self(op, x, np.array(axes, np.int64), keepdims=keepdims)
        return self(op, x, axes=list(axes), keepdims=keepdims)

    def mean(self, x: str, axes: tuple[int, ...] = (-1,), keepdims: int = 1) -> str:
        """Add a mean."""
        return self.reduce("ReduceMean", x, axes, keepdims)

    def square(self, x: str) -> str:
        """Add a square."""
        return self("Mul", x, x)

    def centred(self, x: str) -> str:
        """Subtract the mean over the channels."""
        return self("Sub", x, self.mean(x))

    def divided(self, x: str, mean_square: str) -> str:
        """Divide by the root of a mean square."""
        return self("Div", x, self("Sqrt", self("Add", mean_square, EPS)))

    def affine(self, x: str) -> str:
        """Scale and shift."""
        return self("Add", self("Mul", x, self.scale()), self.shift())

    def scaled(self, x: str) -> str:
        """Scale."""
        return self("Mul", x, self.scale())

    def linear(self, x: str, n_in: int, n_out: int) -> str:
        """Add a linear layer."""
        return self("Add", self("MatMul", x, self.matrix(n_in, n_out)), self.shift(n_out))

    def block(self, x: str, norm: Callable[[Net, str], str]) -> str:
        """Add attention and MLP, each behind a norm."""
        d = self.d
        h = norm(self, x)
        q, k, v = (self.linear(h, d, d) for _ in range(3))
        scores = self("Mul", self("MatMul", q, self("Transpose", k, perm=[0, 2, 1])), _number(0.125))
        x = self("Add", x, self.linear(self("MatMul", self("Softmax", scores, axis=-1), v), d, d))
        h = self("Relu", self.linear(norm(self, x), d, 4 * d))
        return self("Add", x, self.linear(h, 4 * d, d))

    def transformer(self, norm: Callable[[Net, str], str], *, dynamic: bool = False) -> Any:
        """Return a small pre-norm transformer."""
        x = self("Gather", self.matrix(WORDS, self.d), "ids")
        for _ in range(BLOCKS):
            x = self.block(x, norm)
        out = self("MatMul", norm(self, x), self.matrix(self.d, WORDS))
        shape = ["batch", "positions"] if dynamic else [1, self.tokens]
        return self.model([helper.make_tensor_value_info("ids", TensorProto.INT64, shape)], [out])

    def model(self, inputs: list[Any], outputs: list[str]) -> Any:
        """Return what was written so far as a model."""
        named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b", "c"]) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", inputs, named, initializer=self.weights)
        domains = {node.domain for node in self.nodes} | {f.domain for f in self.functions} | {""}
        opsets = [helper.make_opsetid(domain, self.opset if not domain else 1) for domain in sorted(domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_NEWEST_IR, functions=self.functions)


def _number(value: float) -> NDArray[Any]:
    return np.array(value, np.float32)


def _axes(*axes: int) -> NDArray[Any]:
    return np.array(axes, np.int64)


EPS, ONE, HALF = _number(1e-5), _number(1.0), _number(0.5)


@dataclass(frozen=True)
class Form:
    """A way to write a norm.

    Attributes:
        write: writes one norm; returns its output.
        truth: what it is.
        opset: version of the operator set.
        square: whether the network has as many positions as channels (where a wrong broadcast goes unnoticed).
        runs: whether the reference evaluator runs it, so that its truth can be measured.
    """

    write: Callable[[Net, str], str]
    truth: Label
    opset: int = 18
    square: bool = False
    runs: bool = True

    @property
    def tokens(self) -> int:
        """Positions of the network."""
        return D if self.square else TOKENS


FORMS: dict[str, Form] = {}


def _form(truth: Label, opset: int = 18, *, square: bool = False, runs: bool = True) -> Callable[[Any], Any]:
    def add(write: Callable[[Net, str], str]) -> Callable[[Net, str], str]:
        FORMS[write.__name__.strip("_").replace("_", " ")] = Form(write, truth, opset, square, runs)
        return write

    return add


def measured(form: Form) -> Label:
    """Run a form alone, scale 1 and shift 0, and say what it is by what it ignores.

    A norm ignores a factor of every token by itself and gives every token a mean square of 1 (0.98 where the variance
    is divided by n - 1). LayerNorm ignores an added constant as well.
    """
    from onnx.reference import ReferenceEvaluator

    net = Net(form.opset, tokens=form.tokens, plain=True)
    y = form.write(net, "x")
    shape = [1, form.tokens, D]
    evaluator = ReferenceEvaluator(net.model([helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [y]))
    rng = np.random.default_rng(1)
    x = (2 * rng.standard_normal(shape) + 0.6).astype(np.float32)
    each = (1 + rng.random((1, form.tokens, 1))).astype(np.float32)  # every token by itself

    def run(value: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(all="ignore"):
            (found,) = evaluator.run(None, {"x": value.astype(np.float32)})
        return np.asarray(found, np.float64)

    plain = run(x)
    same = bool(np.allclose(run(x * each), plain, atol=2e-2))
    of_size_one = bool(np.allclose(np.square(plain).mean(axis=-1), 1, atol=0.03))
    if not same or not of_size_one:
        return "none"
    return "LayerNorm" if np.allclose(run(x + 2 * each), plain, atol=2e-2) else "RMSNorm"


def cases(only: str | None) -> Iterator[Made]:
    """Yield every form in a network with fixed sizes, and in one whose batch and positions are open."""
    for name, form in FORMS.items():
        if only is None or name == only:
            for dynamic in (False, True)[: 1 if form.square else 2]:
                group = f"forms of {form.truth if form.truth != 'none' else 'no norm'}"
                yield Made(name, group, Truth(form.truth, None, 0, 0), _writer(form, dynamic), "dynamic" * dynamic)


def _writer(form: Form, dynamic: bool) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        model = Net(form.opset, tokens=form.tokens).transformer(form.write, dynamic=dynamic)
        path = directory / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


# --- LayerNorm -------------------------------------------------------------------------------------------------------


@_form("LayerNorm", 13)
def _ln_spelled_out(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n.divided(c, n.mean(n("Pow", c, _number(2)))))


@_form("LayerNorm")
def _ln_by_reciprocal(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Mul", c, n("Reciprocal", n("Sqrt", n("Add", n.mean(n.square(c)), EPS)))))


@_form("LayerNorm")
def _ln_by_power(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Mul", c, n("Pow", n("Add", n.mean(n.square(c)), EPS), _number(-0.5))))


@_form("LayerNorm")
def _ln_by_exp_and_log(n: Net, x: str) -> str:
    c = n.centred(x)
    v = n("Log", n("Add", n.mean(n.square(c)), EPS))
    return n.affine(n("Mul", c, n("Exp", n("Mul", v, _number(-0.5)))))


@_form("LayerNorm")
def _ln_mean_by_vector(n: Net, x: str) -> str:
    ones = np.full((n.d, 1), 1 / n.d, np.float32)
    c = n("Sub", x, n("MatMul", x, ones))
    return n.affine(n.divided(c, n("MatMul", n.square(c), ones)))


@_form("LayerNorm")
def _ln_mean_by_matrix(n: Net, x: str) -> str:
    every = np.full((n.d, n.d), 1 / n.d, np.float32)
    c = n("Sub", x, n("MatMul", x, every))
    return n.affine(n.divided(c, n("MatMul", n.square(c), every)))


@_form("LayerNorm")
def _ln_centring_matrix(n: Net, x: str) -> str:
    c = n("MatMul", x, (np.eye(n.d) - 1 / n.d).astype(np.float32))
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("LayerNorm")
def _ln_centring_matrix_on_two_axes(n: Net, x: str) -> str:
    flat = n("Gemm", n("Reshape", x, _axes(-1, n.d)), (np.eye(n.d) - 1 / n.d).astype(np.float32), transB=1)
    c = n("Reshape", flat, _axes(-1, n.tokens, n.d))
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("LayerNorm")
def _ln_einsum(n: Net, x: str) -> str:
    ones = np.full(n.d, 1 / n.d, np.float32)
    c = n("Sub", x, n("Unsqueeze", n("Einsum", x, ones, equation="btd,d->bt"), _axes(-1)))
    v = n("Unsqueeze", n("Einsum", n.square(c), ones, equation="...d,d->..."), _axes(-1))
    return n.affine(n.divided(c, v))


@_form("LayerNorm")
def _ln_average_pool(n: Net, x: str) -> str:
    def mean(value: str) -> str:  # a window as wide as the channels
        return n("AveragePool", value, kernel_shape=[n.d])

    c = n("Sub", x, mean(x))
    return n.affine(n.divided(c, mean(n.square(c))))


@_form("LayerNorm")
def _ln_global_average_pool(n: Net, x: str) -> str:
    c = n("Sub", x, n("GlobalAveragePool", x))
    return n.affine(n.divided(c, n("GlobalAveragePool", n.square(c))))


@_form("LayerNorm")
def _ln_mean_by_convolution(n: Net, x: str) -> str:
    z, ones = n("Transpose", x, perm=[0, 2, 1]), np.full((1, n.d, 1), 1 / n.d, np.float32)
    c = n("Sub", z, n("Conv", z, ones))
    y = n.divided(c, n("Conv", n.square(c), ones))
    y = n("Add", n("Mul", y, n.scale(n.d, 1)), n.shift(n.d, 1))
    return n("Transpose", y, perm=[0, 2, 1])


@_form("LayerNorm")
def _ln_moments(n: Net, x: str) -> str:
    m = n.mean(x)
    v = n("Sub", n.mean(n.square(x)), n.square(m))
    return n.affine(n.divided(n("Sub", x, m), v))


@_form("LayerNorm", 13)
def _ln_sums_times_a_number(n: Net, x: str) -> str:
    part = _number(1 / n.d)
    m = n("Mul", n.reduce("ReduceSum", x), part)
    v = n("Sub", n("Mul", n.reduce("ReduceSum", n.square(x)), part), n.square(m))
    return n.affine(n.divided(n("Sub", x, m), v))


@_form("LayerNorm")
def _ln_sums_by_a_computed_count(n: Net, x: str) -> str:
    count = n("Cast", n("Gather", n("Shape", x), np.array(-1)), to=1)
    c = n("Sub", x, n("Div", n.reduce("ReduceSum", x), count))
    return n.affine(n.divided(c, n("Div", n.reduce("ReduceSum", n.square(c)), count)))


@_form("LayerNorm")
def _ln_scaled_before_the_square(n: Net, x: str) -> str:
    c = n.centred(x)
    v = n.reduce("ReduceSum", n.square(n("Mul", c, _number(n.d**-0.5))))
    return n.affine(n.divided(c, v))


@_form("LayerNorm")
def _ln_of_the_negative(n: Net, x: str) -> str:
    c = n("Sub", n.mean(x), x)
    return n.affine(n("Neg", n.divided(c, n.mean(n.square(c)))))


@_form("LayerNorm")
def _ln_adds_the_negative_mean(n: Net, x: str) -> str:
    c = n("Add", x, n("Neg", n.mean(x)))
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("LayerNorm")
def _ln_adds_minus_one_means(n: Net, x: str) -> str:
    c = n("Add", n("Mul", n.mean(x), _number(-1)), x)
    return n.affine(n.divided(c, n("ReduceSumSquare", n("Mul", c, _number(n.d**-0.5)), _axes(-1))))


@_form("LayerNorm")
def _ln_dropped_axis(n: Net, x: str) -> str:
    c = n("Sub", x, n("Unsqueeze", n.mean(x, keepdims=0), _axes(-1)))
    return n.affine(n.divided(c, n("Unsqueeze", n.mean(n.square(c), keepdims=0), _axes(-1))))


@_form("LayerNorm")
def _ln_positions_last(n: Net, x: str) -> str:  # the dropped axis is where a broadcast puts it
    z = n("Transpose", x, perm=[2, 0, 1])
    c = n("Sub", z, n.mean(z, (0,), keepdims=0))
    y = n.divided(c, n.mean(n.square(c), (0,), keepdims=0))
    return n.affine(n("Transpose", y, perm=[1, 2, 0]))


@_form("LayerNorm")
def _ln_unbiased(n: Net, x: str) -> str:
    c = n.centred(x)
    v = n("Div", n.reduce("ReduceSum", n.square(c)), _number(n.d - 1))
    return n.affine(n("Div", c, n("Add", n("Sqrt", v), EPS)))


@_form("LayerNorm")
def _ln_scale_in_the_factor(n: Net, x: str) -> str:
    m = n.mean(x)
    r = n("Reciprocal", n("Sqrt", n("Add", n.mean(n.square(n("Sub", x, m))), EPS)))
    r = n("Mul", r, n.scale())
    return n("Add", n("Mul", x, r), n("Sub", n.shift(), n("Mul", m, r)))


@_form("LayerNorm")
def _ln_scale_first(n: Net, x: str) -> str:
    c = n.centred(x)
    return n("Add", n.divided(n.scaled(c), n.mean(n.square(c))), n.shift())


@_form("LayerNorm")
def _ln_shift_before_scale(n: Net, x: str) -> str:
    c = n.centred(x)
    return n("Mul", n("Add", n.divided(c, n.mean(n.square(c))), n.shift()), n.scale())


@_form("LayerNorm")
def _ln_divided_then_subtracted(n: Net, x: str) -> str:
    m = n.mean(x)
    s = n("Sqrt", n("Add", n.mean(n.square(n("Sub", x, m))), EPS))
    return n.affine(n("Sub", n("Div", x, s), n("Div", m, s)))


@_form("LayerNorm")
def _ln_mean_variance_operator(n: Net, x: str) -> str:
    return n.affine(n("MeanVarianceNormalization", x, axes=[-1]))


@_form("LayerNorm")
def _ln_by_instance_norm(n: Net, x: str) -> str:
    z = n("Reshape", x, _axes(1, -1, n.d))
    count = n.tokens
    y = n("InstanceNormalization", z, np.ones(count, np.float32), np.zeros(count, np.float32))
    return n.affine(n("Reshape", y, n("Shape", x)))


@_form("LayerNorm")
def _ln_by_length(n: Net, x: str) -> str:
    y = n("LpNormalization", n.centred(x), axis=-1, p=2)
    return n.affine(n("Mul", y, _number(n.d**0.5)))


@_form("LayerNorm", 23)
def _ln_centred_then_rms_operator(n: Net, x: str) -> str:
    return n("Add", n("RMSNormalization", n.centred(x), n.scale(), axis=-1), n.shift())


@_form("LayerNorm", 23)
def _ln_centring_matrix_then_rms_operator(n: Net, x: str) -> str:
    c = n("MatMul", x, (np.eye(n.d) - 1 / n.d).astype(np.float32))
    return n("RMSNormalization", c, n.scale(), axis=-1)


@_form("LayerNorm", 23)
def _ln_centred_scaled_then_rms_operator(n: Net, x: str) -> str:
    return n("RMSNormalization", n("Mul", n.centred(x), _number(3)), n.scale(), axis=-1)


@_form("LayerNorm")
def _ln_operator_and_scale_apart(n: Net, x: str) -> str:
    y = n("LayerNormalization", x, np.ones(n.d, np.float32), axis=-1)
    return n.affine(y)


@_form("LayerNorm")
def _ln_operator_without_scale(n: Net, x: str) -> str:
    ones = n("ConstantOfShape", np.array([n.d]), value=numpy_helper.from_array(np.ones(1, np.float32)))
    return n("LayerNormalization", x, ones, axis=-1)


@_form("LayerNorm")
def _ln_without_scale(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.divided(c, n.mean(n.square(c)))


@_form("LayerNorm")
def _ln_rescaled_against_overflow(n: Net, x: str) -> str:
    c = n.centred(x)
    m = n("Max", n.reduce("ReduceMax", n("Abs", c)), _number(1e-6))
    z = n("Div", c, m)
    return n.affine(n("Div", c, n("Mul", n("Sqrt", n("Add", n.mean(n.square(z)), EPS)), m)))


@_form("LayerNorm")
def _ln_casts(n: Net, x: str) -> str:
    c = n.centred(n("Cast", x, to=TensorProto.DOUBLE))
    v = n("Add", n.mean(n("Pow", c, np.array(2.0))), np.array(1e-5))
    return n.affine(n("Cast", n("Div", c, n("Sqrt", v)), to=1))


@_form("LayerNorm")
def _ln_guarded_variance(n: Net, x: str) -> str:
    c = n.centred(x)
    v = n.mean(n.square(c))
    v = n("Where", n("Greater", v, EPS), v, EPS)
    return n.affine(n("Div", c, n("Sqrt", v)))


@_form("LayerNorm")
def _ln_by_length_of_the_centred(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Mul", n("Div", c, n("Add", n.reduce("ReduceL2", c), EPS)), _number(n.d**0.5)))


@_form("LayerNorm")
def _ln_mean_by_running_sum(n: Net, x: str) -> str:
    def mean(value: str) -> str:
        total = n("Slice", n("CumSum", value, np.array(-1)), _axes(n.d - 1), _axes(n.d), _axes(-1))
        return n("Div", total, _number(n.d))

    c = n("Sub", x, mean(x))
    return n.affine(n.divided(c, mean(n.square(c))))


@_form("LayerNorm")
def _ln_channels_first(n: Net, x: str) -> str:
    z = n("Unsqueeze", n("Transpose", x, perm=[0, 2, 1]), _axes(2))
    c = n("Sub", z, n.mean(z, (1,)))
    y = n.divided(c, n.mean(n.square(c), (1,)))
    y = n("Add", n("Mul", y, n.scale(1, n.d, 1, 1)), n.shift(1, n.d, 1, 1))
    return n("Transpose", n("Squeeze", y, _axes(2)), perm=[0, 2, 1])


@_form("LayerNorm")
def _ln_split_in_halves(n: Net, x: str) -> str:  # the mean of two means
    n("Split", x, axis=-1, num_outputs=2, outputs=2)
    first, second = n.nodes[-1].output
    m = n("Mul", n("Add", n.mean(first), n.mean(second)), HALF)
    c = n("Sub", x, m)
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("LayerNorm")
def _ln_centred_twice(n: Net, x: str) -> str:
    c, again = n.centred(x), n.centred(x)
    return n.affine(n.divided(c, n.mean(n("Mul", c, again))))


@_form("LayerNorm", 19, runs=False)
def _ln_quantised_around(n: Net, x: str) -> str:
    scale, zero = _number(0.01), np.array(0, np.int8)
    c = n.centred(n("DequantizeLinear", n("QuantizeLinear", x, scale, zero), scale, zero))
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("LayerNorm")
def _ln_as_a_function(n: Net, x: str) -> str:
    if not n.functions:
        body = Net(n.opset)
        eps, axis = body("Constant", value_float=1e-5), body("Constant", value_ints=[-1])
        c = body("Sub", "x", body("ReduceMean", "x", axis))
        v = body("ReduceMean", body("Mul", c, c), axis)
        y = body("Add", body("Mul", body("Div", c, body("Sqrt", body("Add", v, eps))), "g"), "b")
        opsets = [helper.make_opsetid("", n.opset)]
        n.functions.append(helper.make_function("acme", "Standardise", ["x", "g", "b"], [y], body.nodes, opsets))
    return n("Standardise", x, n.scale(), n.shift(), domain="acme")


@_form("LayerNorm")
def _ln_in_a_branch(n: Net, x: str) -> str:
    def branch(name: str, write: Callable[[Net, str], str]) -> Any:
        inner = Net(n.opset, plain=n.plain, prefix=f"{name}{len(n.nodes)}_")
        output = helper.make_tensor_value_info(write(inner, x), TensorProto.FLOAT, None)
        return helper.make_graph(inner.nodes, name, [], [output], initializer=inner.weights)

    return n("If", np.array(True), then_branch=branch("then", _ln_moments), else_branch=branch("else", _ln_by_power))


@_form("LayerNorm", runs=False)
def _ln_in_a_loop(n: Net, x: str) -> str:
    inner = Net(n.opset, plain=n.plain, prefix=f"loop{len(n.nodes)}_")
    again, carried = f"{inner.prefix}again", f"{inner.prefix}carried"
    inner.nodes.append(helper.make_node("Identity", [f"{inner.prefix}go"], [again]))
    results = [(again, TensorProto.BOOL), (_ln_scale_first(inner, carried), TensorProto.FLOAT)]
    given: list[Any] = [(f"{inner.prefix}i", TensorProto.INT64, []), (f"{inner.prefix}go", TensorProto.BOOL, [])]
    given.append((carried, TensorProto.FLOAT, None))
    body = helper.make_graph(
        inner.nodes, "body", [helper.make_tensor_value_info(*one) for one in given],
        [helper.make_tensor_value_info(*one, None) for one in results], initializer=inner.weights,
    )  # fmt: skip
    return n("Loop", np.array(1), np.array(True), x, body=body)


# --- RMSNorm ---------------------------------------------------------------------------------------------------------


@_form("RMSNorm", 13)
def _rms_spelled_out(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n.mean(n("Pow", x, _number(2)))))


@_form("RMSNorm")
def _rms_by_reciprocal(n: Net, x: str) -> str:
    return n.scaled(n("Mul", x, n("Reciprocal", n("Sqrt", n("Add", n.mean(n.square(x)), EPS)))))


@_form("RMSNorm")
def _rms_by_length(n: Net, x: str) -> str:
    return n.scaled(n("Mul", n("Div", x, n.reduce("ReduceL2", x)), _number(n.d**0.5)))


@_form("RMSNorm")
def _rms_by_bounded_length(n: Net, x: str) -> str:
    r = n("Max", n.reduce("ReduceL2", x), _number((n.d * 1e-6) ** 0.5))
    return n.scaled(n("Div", n("Mul", x, _number(n.d**0.5)), r))


@_form("RMSNorm")
def _rms_by_scaled_length(n: Net, x: str) -> str:
    r = n("Add", n("Mul", n.reduce("ReduceL2", x), _number(n.d**-0.5)), EPS)
    return n.scaled(n("Div", x, r))


@_form("RMSNorm")
def _rms_rescaled_against_overflow(n: Net, x: str) -> str:
    m = n("Max", n.reduce("ReduceMax", n("Abs", x)), _number(1e-6))
    r = n("Mul", n("Sqrt", n("Add", n.mean(n.square(n("Div", x, m))), EPS)), m)
    return n.scaled(n("Div", x, r))


@_form("RMSNorm")
def _rms_mean_by_vector(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n("MatMul", n.square(x), np.full((n.d, 1), 1 / n.d, np.float32))))


@_form("RMSNorm")
def _rms_mean_by_matrix(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n("MatMul", n.square(x), np.full((n.d, n.d), 1 / n.d, np.float32))))


@_form("RMSNorm")
def _rms_by_lp_operator(n: Net, x: str) -> str:
    return n.scaled(n("Mul", n("LpNormalization", x, axis=-1, p=2), _number(n.d**0.5)))


@_form("RMSNorm")
def _rms_root_in_the_scale(n: Net, x: str) -> str:
    return n("Mul", n("LpNormalization", x, axis=-1, p=2), (n.scale() * n.d**0.5).astype(np.float32))


@_form("RMSNorm")
def _rms_root_in_the_scale_spelled_out(n: Net, x: str) -> str:
    r = n("Sqrt", n("Add", n.reduce("ReduceSum", n.square(x)), EPS))
    return n("Mul", n("Div", x, r), (n.scale() * n.d**0.5).astype(np.float32))


@_form("RMSNorm")
def _rms_by_mirrored_layer_norm(n: Net, x: str) -> str:  # the mean of [x, -x] is 0
    y = n("LayerNormalization", n("Concat", x, n("Neg", x), axis=-1), n.scale(2 * n.d), axis=-1)
    return n("Slice", y, _axes(0), _axes(n.d), _axes(-1))


@_form("RMSNorm")
def _rms_by_mirrored_spelled_out(n: Net, x: str) -> str:
    z = n("Concat", x, n("Mul", x, _number(-1)), axis=-1)
    c = n.centred(z)
    y = n.divided(c, n.mean(n.square(c)))
    return n.scaled(n("Slice", y, _axes(0), _axes(n.d), _axes(-1)))


@_form("RMSNorm", 23)
def _rms_operator(n: Net, x: str) -> str:
    return n("RMSNormalization", x, n.scale(), axis=-1)


@_form("RMSNorm", runs=False)
def _rms_simplified(n: Net, x: str) -> str:
    return n("SimplifiedLayerNormalization", x, n.scale(), axis=-1)


@_form("RMSNorm")
def _rms_einsum(n: Net, x: str) -> str:
    v = n("Mul", n("Einsum", x, x, equation="btd,btd->bt"), _number(1 / n.d))
    return n.scaled(n.divided(x, n("Unsqueeze", v, _axes(-1))))


@_form("RMSNorm")
def _rms_einsum_divides(n: Net, x: str) -> str:
    r = n("Reciprocal", n("Sqrt", n("Add", n.mean(n.square(x), keepdims=0), EPS)))
    return n("Einsum", x, r, n.scale(), equation="btd,bt,d->btd")


@_form("RMSNorm")
def _rms_inner_product(n: Net, x: str) -> str:
    v = n("MatMul", n("Unsqueeze", x, _axes(-2)), n("Unsqueeze", x, _axes(-1)))
    v = n("Div", n("Squeeze", v, _axes(-1)), _number(n.d))
    return n.scaled(n.divided(x, v))


@_form("RMSNorm", runs=False)
def _rms_pooled_length(n: Net, x: str) -> str:
    r = n("Mul", n("GlobalLpPool", x), _number(n.d**-0.5))
    return n.scaled(n("Div", x, n("Add", r, EPS)))


@_form("RMSNorm")
def _rms_by_exp_and_log(n: Net, x: str) -> str:
    v = n("Log", n("Add", n.mean(n.square(x)), EPS))
    return n.scaled(n("Mul", x, n("Exp", n("Mul", v, _number(-0.5)))))


@_form("RMSNorm")
def _rms_zero_centred(n: Net, x: str) -> str:
    return n("Mul", n.divided(x, n.mean(n.square(x))), n("Add", n.shift(), ONE))


@_form("RMSNorm")
def _rms_scale_before_division(n: Net, x: str) -> str:
    return n.divided(n.scaled(x), n.mean(n.square(x)))


@_form("RMSNorm")
def _rms_dropped_axis(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n("Unsqueeze", n.mean(n.square(x), keepdims=0), _axes(2))))


@_form("RMSNorm")
def _rms_square_of_the_size(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n.mean(n("Pow", n("Abs", x), _number(2)))))


@_form("RMSNorm")
def _rms_root_by_power(n: Net, x: str) -> str:
    return n.scaled(n("Div", x, n("Pow", n("Add", n.mean(n.square(x)), EPS), HALF)))


@_form("RMSNorm")
def _rms_average_pool(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n("AveragePool", n.square(x), kernel_shape=[n.d])))


@_form("RMSNorm")
def _rms_without_scale(n: Net, x: str) -> str:
    return n.divided(x, n.mean(n.square(x)))


@_form("RMSNorm")
def _rms_quotient_of_squares(n: Net, x: str) -> str:  # sign(x)·√(x² / mean x²)
    q = n("Div", n.square(x), n("Add", n.mean(n.square(x)), EPS))
    return n.scaled(n("Mul", n("Sign", x), n("Sqrt", q)))


@_form("RMSNorm")
def _rms_of_negated_parts(n: Net, x: str) -> str:
    r = n("Sqrt", n("Add", n("Neg", n.mean(n("Mul", x, n("Neg", x)))), EPS))
    return n.scaled(n("Neg", n("Div", n("Neg", x), r)))


# --- neither ---------------------------------------------------------------------------------------------------------


@_form("none")
def _dynamic_tanh(n: Net, x: str) -> str:
    return n.affine(n("Tanh", n("Mul", x, HALF)))


@_form("none")
def _dynamic_erf(n: Net, x: str) -> str:
    return n.affine(n("Erf", n("Add", n("Mul", x, HALF), _number(0.01))))


@_form("none")
def _nothing(n: Net, x: str) -> str:
    return n("Identity", x)


@_form("none")
def _scale_and_shift(n: Net, x: str) -> str:
    return n.affine(x)


@_form("none")
def _batch_norm(n: Net, x: str) -> str:
    z = n("Transpose", x, perm=[0, 2, 1])
    y = n("BatchNormalization", z, n.scale(), n.shift(), n.shift(), np.abs(n.scale()))
    return n("Transpose", y, perm=[0, 2, 1])


@_form("none")
def _group_norm(n: Net, x: str) -> str:
    z = n("Reshape", n("Transpose", x, perm=[0, 2, 1]), _axes(0, 4, -1))
    y = n("InstanceNormalization", z, np.ones(4, np.float32), np.zeros(4, np.float32))
    y = n("Reshape", y, _axes(-1, n.d, n.tokens))
    y = n("Add", n("Mul", y, n.scale(n.d, 1)), n.shift(n.d, 1))
    return n("Transpose", y, perm=[0, 2, 1])


@_form("none")
def _group_norm_spelled_out(n: Net, x: str) -> str:
    z = n("Reshape", n("Transpose", x, perm=[0, 2, 1]), _axes(0, 4, -1))
    c = n.centred(z)
    y = n("Reshape", n.divided(c, n.mean(n.square(c))), _axes(-1, n.d, n.tokens))
    y = n("Add", n("Mul", y, n.scale(n.d, 1)), n.shift(n.d, 1))
    return n("Transpose", y, perm=[0, 2, 1])


@_form("none")
def _instance_norm(n: Net, x: str) -> str:
    z = n("Transpose", x, perm=[0, 2, 1])
    y = n("InstanceNormalization", z, n.scale(), n.shift())
    return n("Transpose", y, perm=[0, 2, 1])


@_form("none")
def _standardised_over_time(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x, (1,)))
    return n.affine(n.divided(c, n.mean(n.square(c), (1,))))


@_form("none")
def _rms_over_time(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n.mean(n.square(x), (1,))))


@_form("none")
def _one_norm_for_all_positions(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x, (1, 2)))
    return n.affine(n.divided(c, n.mean(n.square(c), (1, 2))))


@_form("none")
def _unit_length(n: Net, x: str) -> str:
    return n("LpNormalization", x, axis=-1, p=2)


@_form("none")
def _unit_length_spelled_out(n: Net, x: str) -> str:
    return n("Div", x, n("Max", n.reduce("ReduceL2", x), _number(1e-12)))


@_form("none")
def _unit_length_times_a_number(n: Net, x: str) -> str:
    return n("Mul", n("Div", x, n.reduce("ReduceL2", x)), _number(10.0))


@_form("none")
def _sum_of_sizes(n: Net, x: str) -> str:
    return n.scaled(n("LpNormalization", x, axis=-1, p=1))


@_form("none")
def _largest_size(n: Net, x: str) -> str:
    return n.scaled(n("Div", x, n("Add", n.reduce("ReduceMax", n("Abs", x)), EPS)))


@_form("none")
def _mean_size(n: Net, x: str) -> str:
    return n.scaled(n("Div", x, n("Add", n.mean(n("Abs", x)), EPS)))


@_form("none")
def _centred_mean_size(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Div", c, n("Add", n.mean(n("Abs", c)), EPS)))


@_form("none")
def _cubes(n: Net, x: str) -> str:
    m = n.mean(n("Pow", n("Abs", x), _number(3)))
    return n.scaled(n("Div", x, n("Pow", n("Add", m, EPS), _number(1 / 3))))


@_form("none")
def _deviation_without_centring(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n.mean(n.square(n.centred(x)))))


@_form("none")
def _centred_but_not_the_square(n: Net, x: str) -> str:
    return n.affine(n.divided(n.centred(x), n.mean(n.square(x))))


@_form("none")
def _centred_only(n: Net, x: str) -> str:
    return n.affine(n.centred(x))


@_form("none")
def _divided_by_the_variance(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Div", c, n("Add", n.mean(n.square(c)), EPS)))


@_form("none")
def _softmax_gate(n: Net, x: str) -> str:
    e = n("Exp", n("Sub", x, n.reduce("ReduceMax", x)))
    return n("Mul", x, n("Div", e, n.reduce("ReduceSum", e)))


@_form("none")
def _clipped_length(n: Net, x: str) -> str:
    r = n("Min", n("Div", ONE, n.reduce("ReduceL2", x)), ONE)
    return n("Mul", x, r)


@_form("none")
def _squashed(n: Net, x: str) -> str:
    s = n.reduce("ReduceSumSquare", x)
    return n("Mul", n("Div", s, n("Add", s, ONE)), n("Div", x, n("Sqrt", n("Add", s, EPS))))


@_form("none")
def _response_norm(n: Net, x: str) -> str:
    g = n.reduce("ReduceL2", x, (1,))
    return n("Add", n.affine(n("Mul", x, n("Div", g, n("Add", n.mean(g), EPS)))), x)


@_form("none", square=True)
def _mean_of_the_wrong_position(n: Net, x: str) -> str:  # the dropped axis is broadcast along the channels
    c = n("Sub", x, n.mean(x, keepdims=0))
    return n.affine(n.divided(c, n.mean(n.square(c))))


@_form("none", square=True)
def _rms_of_the_wrong_position(n: Net, x: str) -> str:
    return n.scaled(n.divided(x, n.mean(n.square(x), keepdims=0)))


@_form("none")
def _another_values_deviation(n: Net, x: str) -> str:
    other = n("Relu", n.linear(x, n.d, n.d))
    return n.affine(n.divided(n.centred(x), n.mean(n.square(n.centred(other)))))


# --- what surrounds a norm, and what is near one ----------------------------------------------------------------------


@_form("LayerNorm", runs=False)
def _relu_then_ln(n: Net, x: str) -> str:
    return n("LayerNormalization", n("Relu", x), n.scale(), n.shift(), axis=-1)


@_form("LayerNorm")
def _ln_of_xx(n: Net, x: str) -> str:
    y = n("LayerNormalization", n("Concat", x, x, axis=-1), n.scale(2 * n.d), n.shift(2 * n.d), axis=-1)
    return n("Slice", y, _axes(0), _axes(n.d), _axes(-1))


@_form("LayerNorm", 23)
def _conv_centering_rms(n: Net, x: str) -> str:
    z = n("Transpose", x, perm=[0, 2, 1])
    matrix = (np.eye(n.d) - 1 / n.d).astype(np.float32)[:, :, None]
    z = n("Conv", z, matrix)
    return n("RMSNormalization", n("Transpose", z, perm=[0, 2, 1]), n.scale(), axis=-1)


@_form("LayerNorm")
def _ln_mean_conv1x1_full(n: Net, x: str) -> str:
    z = n("Transpose", x, perm=[0, 2, 1])
    every = np.full((n.d, n.d, 1), 1 / n.d, np.float32)
    c = n("Sub", z, n("Conv", z, every))
    y = n.divided(c, n("Conv", n.square(c), every))
    return n.affine(n("Transpose", y, perm=[0, 2, 1]))


@_form("LayerNorm", runs=False)
def _ln_batchnorm_training(n: Net, x: str) -> str:
    z = n("Reshape", x, _axes(1, -1, n.d))
    y = n(
        "BatchNormalization",
        z,
        np.ones(n.tokens, np.float32),
        np.zeros(n.tokens, np.float32),
        np.zeros(n.tokens, np.float32),
        np.ones(n.tokens, np.float32),
        outputs=3,
        training_mode=1,
    )
    return n.affine(n("Reshape", y, n("Shape", x)))


@_form("LayerNorm")
def _ln_variance_by_wrong_then_right(n: Net, x: str) -> str:
    m = n.mean(x)
    v = n("Sub", n.mean(n.square(x)), n("Pow", m, _number(2)))
    v = n("Max", v, _number(0))
    return n.affine(n("Mul", n("Sub", x, m), n("Pow", n("Add", v, EPS), _number(-0.5))))


@_form("LayerNorm")
def _ln_mul_matmul_diag(n: Net, x: str) -> str:
    c = n.centred(x)
    y = n.divided(c, n.mean(n.square(c)))
    return n("Add", n("MatMul", y, np.diag(n.scale()).astype(np.float32)), n.shift())


@_form("LayerNorm", runs=False)
def _large_eps(n: Net, x: str) -> str:
    c = n.centred(x)
    return n.affine(n("Div", c, n("Sqrt", n("Add", n.mean(n.square(c)), _number(0.5)))))


@_form("LayerNorm")
def _fp16ish_clip(n: Net, x: str) -> str:
    x = n("Clip", x, _number(-65504), _number(65504))
    c = n.centred(x)
    v = n("Clip", n.mean(n.square(c)), _number(0), _number(65504))
    return n.affine(n.divided(c, v))


@_form("RMSNorm")
def _ln_of_xmx_channelfirst(n: Net, x: str) -> str:
    z = n("Transpose", x, perm=[0, 2, 1])
    z = n("Concat", z, n("Neg", z), axis=1)
    z = n("Transpose", z, perm=[0, 2, 1])
    y = n("LayerNormalization", z, n.scale(2 * n.d), axis=-1)
    return n("Gather", y, np.arange(n.d), axis=-1)


@_form("RMSNorm")
def _ln_of_xmx_split(n: Net, x: str) -> str:
    y = n("LayerNormalization", n("Concat", n("Neg", x), x, axis=-1), n.scale(2 * n.d), axis=-1)
    n("Split", y, axis=-1, num_outputs=2, outputs=2)
    return str(n.nodes[-1].output[1])


@_form("RMSNorm", runs=False)
def _rms_gated(n: Net, x: str) -> str:
    g = n("Sigmoid", n.linear(x, n.d, n.d))
    return n("Mul", n.scaled(n.divided(x, n.mean(n.square(x)))), g)


@_form("RMSNorm", runs=False)
def _rms_of_gated(n: Net, x: str) -> str:
    z = n("Mul", x, n("Sigmoid", n.linear(x, n.d, n.d)))
    return n.scaled(n.divided(z, n.mean(n.square(z))))


@_form("RMSNorm", runs=False)
def _scalar_gain(n: Net, x: str) -> str:
    return n("Mul", n.divided(x, n.mean(n.square(x))), np.array([1.3], np.float32))


@_form("RMSNorm", runs=False)
def _headwise(n: Net, x: str) -> str:
    z = n("Reshape", x, _axes(0, 0, 4, n.d // 4))
    y = n.divided(z, n.mean(n.square(z)))
    return n.scaled(n("Reshape", y, _axes(0, 0, n.d)))


@_form("none")
def _l2_per_channel_gate(n: Net, x: str) -> str:
    return n("Mul", n("LpNormalization", x, axis=-1, p=2), n("Sigmoid", n.linear(x, n.d, n.d)))


@_form("none")
def _ngpt(n: Net, x: str) -> str:
    return n("Div", x, n("Sqrt", n.reduce("ReduceSum", n.square(x))))


@_form("none")
def _std_pool(n: Net, x: str) -> str:
    c = n("Sub", x, n.mean(x, (1,)))
    s = n("Sqrt", n("Add", n.mean(n.square(c), (1,)), EPS))
    return n("Add", x, s)


@_form("none")
def _se(n: Net, x: str) -> str:
    p = n.mean(x, (1,))
    g = n("Div", n("Clip", n("Add", n.linear(p, n.d, n.d), _number(3)), _number(0), _number(6)), _number(6))
    return n("Mul", x, g)


@_form("none")
def _attn_pool(n: Net, x: str) -> str:
    s = n("MatMul", x, n.matrix(n.d, 1))
    e = n("Exp", n("Sub", s, n.reduce("ReduceMax", s, (1,))))
    w = n("Div", e, n.reduce("ReduceSum", e, (1,)))
    return n("Add", x, n.reduce("ReduceSum", n("Mul", x, w), (1,)))


@_form("none")
def _linear_attention(n: Net, x: str) -> str:
    q = n("Exp", n.linear(x, n.d, n.d))
    k = n("Exp", n.linear(x, n.d, n.d))
    z = n("MatMul", q, n("Transpose", n.reduce("ReduceSum", k, (1,)), perm=[0, 2, 1]))
    return n("Div", n("MatMul", q, n("MatMul", n("Transpose", k, perm=[0, 2, 1]), x)), z)


@_form("none")
def _minmax(n: Net, x: str) -> str:
    lo = n.reduce("ReduceMin", x)
    hi = n.reduce("ReduceMax", x)
    return n.affine(n("Div", n("Sub", x, lo), n("Add", n("Sub", hi, lo), EPS)))


@_form("none", runs=False)
def _prms(n: Net, x: str) -> str:
    p = n("Slice", x, _axes(0), _axes(12), _axes(-1))
    return n.scaled(n.divided(x, n.mean(n.square(p))))


# --- only named ------------------------------------------------------------------------------------------------------


@_form("LayerNorm", runs=False)
def _named_plugin(n: Net, x: str) -> str:
    return n("LayerNormPlugin", x, n.scale(), n.shift(), domain="trt.plugins")


@_form("RMSNorm", runs=False)
def _named_rms(n: Net, x: str) -> str:
    return n("RMSNorm", x, n.scale(), domain="trt.plugins")


@_form("LayerNorm", runs=False)
def _named_by_an_attribute(n: Net, x: str) -> str:
    return n("ATen", x, n.scale(), n.shift(), domain="org.pytorch.aten", operator="layer_norm")


@_form("undetermined", runs=False)
def _named_after_nobody(n: Net, x: str) -> str:
    return n("Whiten", x, n.scale(), n.shift(), domain="acme")


@_form("undetermined", runs=False)
def _named_some_norm(n: Net, x: str) -> str:
    return n("SuperNorm", x, n.scale(), domain="acme")


BY_TRUTH: Mapping[str, tuple[str, ...]] = {
    truth: tuple(name for name, form in FORMS.items() if form.truth == truth)
    for truth in ("LayerNorm", "RMSNorm", "none", "undetermined")
}
