"""Norms that a functional Keras model spells out in operations: its nodes in the words of ONNX, for the same search.

`keras.ops` called on a symbolic tensor makes a node of its own (``"module": "keras.src.ops.numpy"``), with arguments
and shapes in the configuration. Layers stay what they are: values go in and come out, what they compute is not asked.
Source: keras/src/ops/{numpy,nn,math,core}.py and keras/src/ops/operation.py of keras 3.15.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...checkpoint import Checkpoint, Graph, Operator
from ..parts import Anatomy, Site
from .norms import Norm, find_norms
from .unmatched import complete
from .view import GraphView

_MOST = 20_000  # nodes of one model
_SAME = {
    "Subtract": "Sub", "Add": "Add", "Multiply": "Mul", "TrueDivide": "Div", "Divide": "Div", "Power": "Pow",
    "Sqrt": "Sqrt", "Rsqrt": "Rsqrt", "Reciprocal": "Reciprocal", "Negative": "Neg", "Absolute": "Abs", "Abs": "Abs",
    "Exp": "Exp", "Log": "Log", "Maximum": "Max", "Minimum": "Min", "Tanh": "Tanh", "Sigmoid": "Sigmoid",
    "Relu": "Relu", "Erf": "Erf", "Sign": "Sign", "Matmul": "MatMul", "Identity": "Identity", "Cast": "Identity",
}  # fmt: skip
_REDUCTIONS = {"Mean": "ReduceMean", "Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin", "Prod": "ReduceProd"}
_MERGING = {"Add": "Add", "Multiply": "Mul", "Subtract": "Sub", "Maximum": "Max", "Minimum": "Min"}  # layers
_ORDERS = (2, None, "fro", "euclidean")  # of a length


def describe(config: Mapping[str, Any]) -> Anatomy | None:
    """Return the norms among the operations of a functional model; None if it has no operations.

    Args:
        config: the serialised model.
    """
    inner = config.get("config")
    listed = inner.get("layers") if isinstance(inner, Mapping) else None
    nodes = [node for node in listed if isinstance(node, Mapping)] if isinstance(listed, list) else []
    if not any(_is_operation(node) for node in nodes) or len(nodes) > _MOST:
        return None
    builder = _Builder()
    for node in nodes:
        builder.add(node)
    graph = Graph(tuple(builder.operators), tuple(builder.inputs), (), builder.constants, shapes=builder.shapes)
    checkpoint = Checkpoint("Keras", None, {}, (), "", graph=graph)
    view = GraphView(checkpoint, graph)
    norms, others, unexplained = complete(view, checkpoint, graph, find_norms(view))
    sites = tuple(_site(norm, builder) for norm in norms)
    widths = Counter(site.width for site in sites if site.width is not None)
    main = {"main": widths.most_common(1)[0][0]} if widths else {}
    return Anatomy(
        sites, (), main, "names", others=dict(others) or None, explained=len(sites) + others.total(),
        unexplained=unexplained,
    )  # fmt: skip


def _site(norm: Norm, builder: _Builder) -> Site:
    shape = builder.shapes.get(norm.sources[0]) if norm.sources else None
    name = builder.places.get(norm.output) or norm.op.name
    return Site(name, None, None, kind=norm.kind, width=shape[-1] if shape else None, why=norm.why)


def _is_operation(node: Mapping[str, Any]) -> bool:
    """Whether a node is a call of `keras.ops`: by its module, which legacy HDF5 leaves out, or by what layers have."""
    if "module" in node:
        return str(node["module"]).startswith(("keras.src.ops.", "keras.ops"))
    config, kind = node.get("config"), node.get("class_name")
    known = kind in _SAME or kind in _REDUCTIONS or kind in _SPECIAL
    return known and isinstance(config, Mapping) and "trainable" not in config


class _Builder:
    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.inputs: list[str] = []
        self.constants: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.places: dict[str, str] = {}

    def add(self, node: Mapping[str, Any]) -> None:
        """Add every call of a layer or an operation."""
        calls = node.get("inbound_nodes")
        name, kind = str(node.get("name", ""))[:200], str(node.get("class_name", ""))
        if not isinstance(calls, list) or not calls:
            self.inputs.append(_value(name, 0, 0))
            return
        config = node.get("config")
        for index, call in enumerate(calls):
            given = [self._operand(one, f"{name}/{index}/{i}") for i, one in enumerate(_arguments(call))]
            out = (_value(name, index, 0), _value(name, index, 1))
            self.places[out[0]] = name
            if None not in given and self._write(node, kind, config, [g for g in given if g], out):
                continue
            known = tuple(g for g in given if g)
            self.operators.append(Operator("Layer", "keras", name, known, out))

    def _operand(self, argument: Any, name: str) -> str | None:
        """Return the value that an argument is; None for what is neither a tensor nor a number."""
        if isinstance(argument, bool) or argument is None:
            return ""
        if isinstance(argument, int | float):
            self.constants[name] = np.array(float(argument))
            return name
        if not isinstance(argument, Mapping) or argument.get("class_name") != "__keras_tensor__":
            return None
        inner = argument.get("config")
        history = inner.get("keras_history") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(history, list) or len(history) != 3:
            return None
        value = _value(*history)
        shape = inner.get("shape")
        if isinstance(shape, list) and all(n is None or (isinstance(n, int) and n >= 0) for n in shape):
            self.shapes[value] = tuple(shape)
        return value

    def _write(
        self, node: Mapping[str, Any], kind: str, config: Any, given: Sequence[str], out: tuple[str, str]
    ) -> bool:
        """Add what a node computes in the words of ONNX; return False if there are none for it."""
        if not isinstance(config, Mapping) or not given:
            return False
        if not _is_operation(node):
            known = _MERGING.get(kind) if str(node.get("module", "")).startswith("keras.layers") else None
            return known is not None and len(given) == 2 and self._put(known, given, out[0])
        if kind in _SAME:
            return self._put(_SAME[kind], given, out[0])
        if kind in _REDUCTIONS:
            return self._put(_REDUCTIONS[kind], given[:1], out[0], **_reduction(config))
        special = _SPECIAL.get(kind)
        return special is not None and special(self, config, given, out)

    def _put(self, op_type: str, given: Sequence[str], out: str, **attributes: Any) -> bool:
        self.operators.append(Operator(op_type, "", self.places.get(out, out), tuple(given), (out,), attributes))
        return True

    def square(self, _config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a square."""
        return self._put("Mul", (given[0], given[0]), out[0])

    def variance(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a variance, which pools twice."""
        x, axes = given[0], _reduction(config).get("axes")
        over = {"axes": axes} if axes else {}
        mean, centred, squared = (f"{out[0]} ({word})" for word in ("mean", "centred", "squared"))
        self._put("ReduceMean", (x,), mean, keepdims=1, **over)
        self._put("Sub", (x, mean), centred)
        self._put("Mul", (centred, centred), squared)
        return self._put("ReduceMean", (squared,), out[0], **_reduction(config))

    def deviation(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a standard deviation."""
        variance = f"{out[0]} (variance)"
        self.variance(config, given, (variance, ""))
        return self._put("Sqrt", (variance,), out[0])

    def moments(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a mean and a variance."""
        self._put("ReduceMean", given[:1], out[0], **_reduction(config))
        return self.variance(config, given, (out[1], ""))

    def length(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a length."""
        if config.get("ord") not in _ORDERS:
            return False
        return self._put("ReduceL2", given[:1], out[0], **_reduction(config))

    def unit(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add a division by a length."""
        axis, order = config.get("axis", -1), config.get("order", 2)
        if not isinstance(axis, int) or order not in (1, 2):
            return False
        return self._put("LpNormalization", given[:1], out[0], axis=axis, p=order)

    def root_mean_square(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add ``ops.rms_normalization``."""
        return _last(config.get("axis", -1)) and self._put("RMSNormalization", given, out[0], axis=-1)

    def layer_norm(self, config: Mapping[str, Any], given: Sequence[str], out: tuple[str, str]) -> bool:
        """Add ``ops.layer_normalization``."""
        if config.get("rms_scaling"):
            return self.root_mean_square(config, given, out)
        return _last(config.get("axis", -1)) and self._put("LayerNormalization", given, out[0], axis=-1)


_Special = Callable[[_Builder, Mapping[str, Any], Sequence[str], tuple[str, str]], bool]
_SPECIAL: Mapping[str, _Special] = {
    "Square": _Builder.square, "Var": _Builder.variance, "Std": _Builder.deviation, "Moments": _Builder.moments,
    "Norm": _Builder.length, "Normalize": _Builder.unit, "RMSNorm": _Builder.root_mean_square,
    "LayerNorm": _Builder.layer_norm,
}  # fmt: skip


def _value(name: Any, call: Any, output: Any) -> str:
    return f"{name}@{call}:{output}"


def _arguments(call: Any) -> Iterator[Any]:
    """Yield the arguments of one call, in their order."""
    if not isinstance(call, Mapping):
        return
    given = call.get("args")
    for one in given if isinstance(given, list) else ():
        if isinstance(one, list):  # a merging layer takes a list
            yield from one
        else:
            yield one
    named = call.get("kwargs")
    if isinstance(named, Mapping):  # ops.rms_normalization(x, scale=...)
        yield from (one for one in named.values() if isinstance(one, Mapping))


def _reduction(config: Mapping[str, Any]) -> dict[str, Any]:
    axis = config.get("axis", config.get("axes"))
    axes = tuple(axis) if isinstance(axis, list) else (axis,) if isinstance(axis, int) else ()
    kept = {"keepdims": int(bool(config.get("keepdims")))}
    return {"axes": axes, **kept} if axes and all(isinstance(a, int) for a in axes) else kept


def _last(axis: Any) -> bool:
    return axis in (-1, [-1])
