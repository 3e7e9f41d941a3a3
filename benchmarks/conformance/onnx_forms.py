"""ONNX files that no exporter at hand writes, made node by node: tf2onnx, ONNX Runtime's model builder, its fused BERT.

Forms: norm-facts.md, sections 3.2 to 3.6. These need nothing but `onnx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .truth import Made, Truth

_WIDTH, _HIDDEN, _VOCABULARY, _LENGTH, _BLOCKS = 32, 96, 80, 8, 2
_MS = "com.microsoft"


class Writer:
    """A graph that is written a node at a time; an array argument becomes an initialiser, a float a constant."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._random = np.random.default_rng(0)

    def vector(self, *shape: int) -> Any:
        """Trained values: none is exactly 0 or 1."""
        return self._random.normal(1.0, 0.1, shape).astype(np.float32)

    def integers(self, *shape: int) -> Any:
        """Quantised values."""
        return self._random.integers(1, 127, shape, dtype=np.int8)

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """Add a node; return its first output, to which further ones add ``_1``, ``_2``, ..."""
        names = [value if isinstance(value, str) else self._stored(value) for value in inputs]
        first = f"v{len(self._nodes)}"
        given = [first, *(f"{first}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(op, names, given, domain=domain, **attributes))
        return first

    def _stored(self, value: Any) -> str:
        array = np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def mean(self, value: str, axes: list[int]) -> str:
        """ReduceMean, with its axes where the operator set wants them."""
        if self.opset < 18:
            return self("ReduceMean", value, axes=axes)
        return self("ReduceMean", value, np.array(axes))

    def linear(self, value: str, n_in: int, n_out: int) -> str:
        """Multiply with a matrix and add a bias."""
        matrix = self._random.normal(0.0, 0.1, (n_in, n_out)).astype(np.float32)
        return self("Add", self("MatMul", value, matrix), self.vector(n_out))

    def packed(self, value: str, n_in: int, n_out: int) -> str:
        """Multiply with a matrix of 4-bit blocks."""
        blocks = n_in // 16
        data = self._random.integers(0, 255, (n_out, blocks, 8), dtype=np.uint8)
        scales = self._random.uniform(0.01, 0.02, n_out * blocks).astype(np.float32)
        return self("MatMulNBits", value, data, scales, domain=_MS, K=n_in, N=n_out, bits=4, block_size=16)

    def save(self, output: str, directory: Path) -> Path:
        """Write the model, whose input is ``ids``."""
        ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [1, _LENGTH])
        result = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "network", [ids], [result], initializer=self._weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(_MS, 1)]
        path = directory / "model.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets), path)
        return path


Norm = Callable[[Writer, str], str]


def _scale_in_factor(w: Writer, x: str) -> str:
    """LayerNormalization of TensorFlow: x·s + (β - mean·s), where s holds the scale."""
    mean = w.mean(x, [2])
    centred = w("Sub", x, mean)
    root = w("Sqrt", w("Add", w.mean(w("Mul", centred, centred), [2]), 1e-3))
    factor = w("Mul", w("Reciprocal", root), w.vector(_WIDTH))
    return w("Add", w("Mul", x, factor), w("Sub", w.vector(_WIDTH), w("Mul", mean, factor)))


def _instance(w: Writer, x: str) -> str:
    """What tf2onnx makes of the same for three axes."""
    count = w("Slice", w("Shape", x), np.array([1]), np.array([2]))
    one, zero = (
        w("ConstantOfShape", count, value=numpy_helper.from_array(np.full(1, n, np.float32))) for n in (1.0, 0.0)
    )
    y = w("InstanceNormalization", x, one, zero)
    return w("Add", w("Mul", y, w.vector(_WIDTH)), w.vector(_WIDTH))


def _batch(w: Writer, x: str) -> str:
    """Keras' fused LayerNormalization: a batch norm whose every sample is a channel."""
    flat = w("Reshape", x, np.array([1, _LENGTH, _WIDTH, 1]))
    mean = w.mean(flat, [2, 3])
    squares = w("ReduceSumSquare", w("Sub", flat, w("Reshape", mean, np.array([1, _LENGTH, 1, 1]))), axes=[2, 3])
    ones, zeros = np.ones(_LENGTH, np.float32), np.zeros(_LENGTH, np.float32)
    flat_mean, variance = (w("Squeeze", value, np.array([0])) for value in (mean, w("Mul", squares, 1.0 / _WIDTH)))
    y = w("BatchNormalization", flat, ones, zeros, flat_mean, variance)
    y = w("Reshape", y, np.array([1, _LENGTH, _WIDTH]))
    return w("Add", w("Mul", y, w.vector(_WIDTH)), w.vector(_WIDTH))


def _pooled_rms(w: Writer, x: str) -> str:
    """Somebody's RMSNorm: for tf2onnx the mean over the last of three axes is a pooling."""
    root = w("Sqrt", w("Add", w("GlobalAveragePool", w("Mul", x, x)), 1e-6))
    return w("Mul", w("Mul", x, w("Reciprocal", root)), w.vector(_WIDTH))


def _plain(norm: Norm, directory: Path) -> Path:
    """Blocks of one MLP each."""
    w = Writer(13)
    x = w("Gather", w.vector(_VOCABULARY, _WIDTH), "ids")
    for _ in range(_BLOCKS):
        y = w("Relu", w.linear(norm(w, x), _WIDTH, _HIDDEN))
        x = w("Add", x, w.linear(y, _HIDDEN, _WIDTH))
    return w.save(w.linear(norm(w, x), _WIDTH, _VOCABULARY), directory)


def _genai(inner: bool, directory: Path) -> Path:
    """A decoder as ONNX Runtime's model builder writes it: fused norms, 4-bit blocks, q and k norms in attention."""
    w = Writer(21)
    total = w("Gather", w.vector(_VOCABULARY, _WIDTH), "ids")
    x = w("SimplifiedLayerNormalization", total, w.vector(_WIDTH), axis=-1, epsilon=1e-5)
    for _ in range(_BLOCKS):
        q, k, v = (w.packed(x, _WIDTH, _WIDTH) for _ in range(3))
        past = [np.zeros((1, 4, 0, 8), np.float32)] * 2
        lengths = [np.array([_LENGTH], np.int32), np.array([_LENGTH], np.int32)]
        norms = [*[""] * 7, w.vector(8), w.vector(8)] if inner else []
        y = w("GroupQueryAttention", q, k, v, *past, *lengths, *norms, domain=_MS, num_heads=4, kv_num_heads=4)
        for part in ("attention", "mlp"):
            if part == "mlp":
                y = w.packed(w("Sigmoid", w.packed(x, _WIDTH, _HIDDEN)), _HIDDEN, _WIDTH)
            x = w(
                "SkipSimplifiedLayerNormalization", total, w.packed(y, _WIDTH, _WIDTH) if part == "attention" else y,
                w.vector(_WIDTH), outputs=4, domain=_MS, epsilon=1e-5,
            )  # fmt: skip
            total = f"{x}_3"
    return w.save(w.packed(x, _WIDTH, _VOCABULARY), directory)


def _embedded(w: Writer) -> str:
    tables = (w.vector(n, _WIDTH) for n in (_VOCABULARY, _LENGTH, 2))
    affine = w.vector(_WIDTH), w.vector(_WIDTH)
    return w("EmbedLayerNormalization", "ids", "ids", *tables, *affine, outputs=2, domain=_MS)


def _embedded_int8(w: Writer) -> str:
    rows = (_VOCABULARY, _LENGTH, 2)
    tables = [w.integers(n, _WIDTH) for n in rows] + [w.integers(_WIDTH), w.integers(_WIDTH)]
    scales, zeros = [0.01] * 5, [np.zeros((), np.int8)] * 5
    return w("QEmbedLayerNormalization", "ids", "ids", *tables, "", *scales, *zeros, outputs=2, domain=_MS)


def _fused_bert(embedded: Callable[[Writer], str], directory: Path) -> Path:
    """BERT as ONNX Runtime's optimiser leaves it. The last input of each norm is the bias of the layer before."""
    w = Writer(14)
    x = embedded(w)
    for _ in range(_BLOCKS):
        y = w("Attention", x, w.vector(_WIDTH, 3 * _WIDTH), w.vector(3 * _WIDTH), domain=_MS, num_heads=4)
        for part in ("attention", "mlp"):
            if part == "mlp":
                y = w("FastGelu", w("MatMul", x, w.vector(_WIDTH, _HIDDEN)), w.vector(_HIDDEN), domain=_MS)
            y = w("MatMul", y, w.vector(_WIDTH if part == "attention" else _HIDDEN, _WIDTH))
            gamma, beta, bias = (w.vector(_WIDTH) for _ in range(3))
            x = w("SkipLayerNormalization", x, y, gamma, beta, bias, domain=_MS)
    return w.save(w("Tanh", x), directory)


def cases(only: str | None = None) -> Iterator[Made]:
    """Every file made by hand, or one."""
    return (made for made in _cases() if only in (None, made.name))


def _cases() -> Iterator[Made]:
    n, blocks = _BLOCKS + 1, 2 * _BLOCKS + 1
    for name, norm, truth in (
        ("LayerNormalization, scale in the factor", _scale_in_factor, Truth("LayerNorm", n, n, n)),
        ("LayerNormalization as InstanceNormalization", _instance, Truth("LayerNorm", n, n, n)),
        ("LayerNormalization as BatchNormalization", _batch, Truth("LayerNorm", n, n, n)),
        ("RMSNorm with a pooling", _pooled_rms, Truth("RMSNorm", n, n, 0)),
    ):
        yield Made(name, "ONNX as tf2onnx writes it", truth, partial(_plain, norm))
    group = "ONNX of ONNX Runtime's tools"
    yield Made("decoder of 4 bits", group, Truth("RMSNorm", blocks, blocks, 0), partial(_genai, False))
    inner = blocks + 2 * _BLOCKS
    yield Made("decoder with q and k norms", group, Truth("RMSNorm", inner, inner, 0), partial(_genai, True))
    for name, embedded in (("fused BERT", _embedded), ("fused BERT of int8", _embedded_int8)):
        yield Made(name, group, Truth("LayerNorm", blocks, blocks, blocks), partial(_fused_bert, embedded))
