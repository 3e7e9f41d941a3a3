"""Norms in graphs as public reports show them: each in a small transformer, written a node at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .graph_forms import Net

_EPS, _TWO, _MS = np.array(1e-5, np.float32), np.array(2.0, np.float32), "com.microsoft"


class GraphReport(NamedTuple):
    """One thread.

    Attributes:
        source: repository on GitHub.
        path: of the thread in it.
        truth: what the norm is that the thread shows; "undetermined" for an operator that nothing defines.
        write: writes the norm behind a value and returns its output.
        opset: of the standard operators.
        square: whether the network has as many positions as channels.
    """

    source: str
    path: str
    truth: str
    write: Callable[[Net, str], str]
    opset: int = 17
    square: bool = False


def _centred(n: Net, x: str) -> str:
    return n("Sub", x, n.mean(x))


def _standardised(n: Net, x: str) -> str:
    c = _centred(n, x)
    variance = n.mean(n("Pow", c, _TWO))
    return n("Div", c, n("Sqrt", n("Add", variance, _EPS)))


def _scale_in_front(n: Net, x: str) -> str:
    return n("Add", n("Mul", n.scale(), _standardised(n, x)), n.shift())


def _scale_of_one_number(n: Net, x: str) -> str:
    return n("Add", n("Mul", _standardised(n, x), np.array([1.3], np.float32)), n.shift())


def _dropped_axis(n: Net, x: str) -> str:
    c = n("Sub", x, n("ReduceMean", x, np.array([-1]), keepdims=0))
    variance = n("ReduceMean", n("Mul", c, c), np.array([-1]), keepdims=0)
    return n.affine(n("Div", c, n("Sqrt", n("Add", variance, _EPS))))


def _plain_operator(n: Net, x: str) -> str:
    return n("LayerNormalization", x, n.scale(), n.shift(), axis=-1)


def _skip_simplified(n: Net, x: str) -> str:
    return n("SkipSimplifiedLayerNormalization", x, x, n.scale(), domain=_MS, epsilon=1e-5)


def _skip(n: Net, x: str) -> str:
    return n("SkipLayerNormalization", x, x, n.scale(), n.shift(), n.shift(), domain=_MS, epsilon=1e-5)


def _plugin(name: str) -> Callable[[Net, str], str]:
    return lambda n, x: n(name, x, n.scale(), n.shift(), axis=-1, epsilon=1e-5)


def _square_of_the_mean(n: Net, x: str) -> str:
    mean = n.mean(x)
    variance = n("Sub", n.mean(n("Pow", x, _TWO)), n("Pow", mean, _TWO))
    return n.affine(n("Div", n("Sub", x, mean), n("Sqrt", n("Add", variance, _EPS))))


def _aten(operator: str) -> Callable[[Net, str], str]:
    return lambda n, x: n("ATen", x, n.scale(), n.shift(), domain="org.pytorch.aten", operator=operator)


def _root_mean_square(n: Net, x: str) -> str:
    root = n("Sqrt", n("Add", n.mean(n("Pow", x, _TWO)), _EPS))
    return n("Mul", n("Mul", x, n("Reciprocal", root)), n.scale())


def _factor_of_tensorflow(n: Net, x: str) -> str:
    mean = n.mean(x)
    difference = n("Sub", x, mean)
    variance = n.mean(n("Mul", difference, difference))
    factor = n("Mul", n("Reciprocal", n("Sqrt", n("Add", variance, _EPS))), n.scale())
    return n("Add", n("Mul", x, factor), n("Sub", n.shift(), n("Mul", mean, factor)))


GRAPHS: tuple[GraphReport, ...] = (
    GraphReport("microsoft/onnxruntime", "issues/31980", "LayerNorm", _scale_in_front, 18),
    GraphReport("microsoft/onnxruntime", "issues/25855", "LayerNorm", _scale_of_one_number, 18),
    GraphReport("microsoft/onnxruntime", "issues/30513", "none", _dropped_axis, 18, square=True),
    GraphReport("microsoft/onnxruntime", "issues/4293", "LayerNorm", _skip),
    GraphReport(
        "sonos/tract", "issues/2646", "RMSNorm",
        lambda n, x: n("SimplifiedLayerNormalization", x, n.scale(), axis=-1, epsilon=1e-5),
    ),
    GraphReport("sonos/tract", "pull/2749", "RMSNorm", _skip_simplified),
    GraphReport("NVIDIA/TensorRT", "issues/1988", "LayerNorm", _plain_operator),
    GraphReport("NVIDIA/TensorRT", "issues/2708", "LayerNorm", _plugin("LayerNormPlugin")),
    GraphReport("NVIDIA/TensorRT", "issues/3346", "LayerNorm", _plugin("LayerNorm")),
    GraphReport("NVIDIA/TensorRT", "issues/3230", "LayerNorm", lambda n, x: n.affine(_standardised(n, x)), 18),
    GraphReport(
        "onnx/onnx-tensorrt", "pull/1046", "RMSNorm", lambda n, x: n("RMSNormalization", x, n.scale(), axis=-1), 23
    ),
    GraphReport("pytorch/pytorch", "pull/22265", "LayerNorm", _square_of_the_mean, 18),
    GraphReport("pytorch/pytorch", "issues/16442", "LayerNorm", _aten("layer_norm")),
    GraphReport("pytorch/pytorch", "issues/43736", "undetermined", _aten("cumsum")),
    GraphReport("pytorch/pytorch", "issues/159249", "RMSNorm", _root_mean_square, 18),
    GraphReport("tensorflow/tensorflow", "issues/56983", "LayerNorm", _factor_of_tensorflow, 18),
)  # fmt: skip
