"""An ONNX model as one flat list of operators: sub-graphs opened, functions expanded, every value name unique."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import meter
from ...checkpoint import ArraySlab, Graph, Operator, TensorInfo
from ...dtypes import FLOATS
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from .tensors import SMALL, TensorReader, text_of

_NUMBER_BYTES = 40  # of a list of Python's numbers, with its place in a tuple
_TENSOR, _GRAPH, _GRAPHS = 4, 5, 10  # AttributeProto.AttributeType
_PLAIN = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}
_CONSTANTS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


class _Scope:
    """Names of one graph or function body. Lookups go outwards, so nothing is copied a level."""

    def __init__(self, outer: _Scope | None, prefix: str) -> None:
        self._outer, self._prefix = outer, prefix
        self._names: dict[str, str] = {}
        self.reserved: dict[str, str] = {}  # names that the caller already gave to what this body returns

    def define(self, name: str) -> str:
        if not name:  # an optional output that is not wanted
            return ""
        unique = self.reserved.get(name) or self._prefix + text_of(name)
        self._names[name] = unique
        return unique

    def bind(self, name: str, unique: str) -> None:
        self._names[name] = unique

    def owns(self, name: str) -> bool:
        return name in self._names

    def resolve(self, name: str) -> str:
        scope: _Scope | None = self
        while name and scope is not None:
            meter.charge(1, "resolving names")
            if name in scope._names:
                return scope._names[name]
            scope = scope._outer
        return text_of(name)  # the name of nothing: left as it is, no operator produces it


class GraphBuilder:
    """Flattens one ModelProto (a skeleton of it).

    Attributes:
        tensors: stored weights: initialisers, and constants that are large or floating-point vectors.
        stored: all of them, with the scalars that are `Constant` nodes.
        operators: nodes in execution order.
        constants: small values, decoded.
    """

    def __init__(self, model: Any, reader: TensorReader, limits: Limits, where: str) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.stored: dict[str, TensorInfo] = {}
        self.operators: list[Operator] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._reader, self._limits, self._where = reader, limits, where
        self._functions = {_key(f.domain, f.name, f.overload): f for f in model.functions}
        self._spent = self._bodies = 0
        scope = _Scope(None, "")
        self._inputs = tuple(scope.define(value.name) for value in model.graph.input)
        self._shapes = {
            name: tuple(n.dim_value if n.HasField("dim_value") else None for n in value.type.tensor_type.shape.dim)
            for name, value in zip(self._inputs, model.graph.input, strict=True)
            if value.type.tensor_type.HasField("shape")
        }
        self._open(model.graph, scope, None, 0)
        self._outputs = tuple(scope.resolve(value.name) for value in model.graph.output)

    def graph(self) -> Graph:
        """Return the flat graph; initialisers that are also listed as inputs (IR version 3) are not inputs."""
        inputs = tuple(name for name in self._inputs if name not in self.stored)
        ranks = {name: len(shape) for name, shape in self._shapes.items()}
        return Graph(tuple(self.operators), inputs, self._outputs, self.constants, ranks, self._shapes)

    def _open(self, graph: Any, scope: _Scope, call: Mapping[str, Any] | None, depth: int) -> None:
        for proto in graph.initializer:
            name = scope.define(proto.name)
            if name in self.stored:
                raise FormatError("duplicate-tensor", f"{self._where} @ {name[:200]}", "two initialisers with one name")
            self._store(proto, name, constant=False)
        self._nodes(graph.node, scope, call, depth)

    def _nodes(self, nodes: Iterable[Any], scope: _Scope, call: Mapping[str, Any] | None, depth: int) -> None:
        if depth > self._limits.nesting:
            raise LimitExceeded(self._where, "depth of functions and sub-graphs", self._limits.nesting, depth)
        for node in nodes:
            meter.charge_operator(len(node.input) + len(node.output), "flattening the graph")
            # Calls count too, and inside functions so does the size of what is repeated: both could multiply.
            self._spend(1 if call is None else 1 + node.ByteSize() // 256)
            attributes = {text_of(a.name): self._referred(a, call) for a in node.attribute}
            inputs = tuple(scope.resolve(name) for name in node.input)
            function = self._functions.get(_key(node.domain, node.op_type, node.overload))
            if function is not None:
                self._call(function, node, inputs, attributes, scope, depth)
            elif node.op_type == "Constant" and _domain(node.domain) == "" and node.output:
                self._constant(attributes, scope.define(node.output[0]))
            else:
                inputs += self._bodies_of(attributes, inputs, scope, call, depth)
                outputs = tuple(scope.define(name) for name in node.output)
                plain = {k: v for k, a in attributes.items() if a is not None and (v := self._value(a)) is not None}
                self.operators.append(
                    Operator(text_of(node.op_type), _domain(node.domain), text_of(node.name), inputs, outputs, plain)
                )

    def _spend(self, n: int) -> None:
        self._spent += n
        if self._spent > self._limits.operators:
            raise LimitExceeded(self._where, "operators", self._limits.operators, self._spent)

    def _referred(self, attribute: Any, call: Mapping[str, Any] | None) -> Any:
        """Inside a function, an attribute may stand for one of the call."""
        return (call or {}).get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute

    def _call(
        self, function: Any, node: Any, inputs: tuple[str, ...], given: dict[str, Any], caller: _Scope, depth: int
    ) -> None:
        self._spend((len(function.input) + len(function.attribute_proto)) // 8)
        bound = len(function.input) + len(function.output) + len(function.attribute_proto)
        meter.charge_operator(bound, "calling functions")
        scope = self._scope(None, text_of(function.name))
        for formal, actual in zip(function.input, inputs, strict=False):
            scope.bind(formal, actual)
        for formal in function.input[len(inputs) :]:
            scope.bind(formal, "")
        results = [(f, caller.define(a)) for f, a in zip(function.output, node.output, strict=False) if a]
        scope.reserved = {formal: actual for formal, actual in results if not scope.owns(formal)}
        call = {a.name: a for a in function.attribute_proto} | {k: a for k, a in given.items() if a is not None}
        self._nodes(function.node, scope, call, depth + 1)
        for formal, actual in results:
            if scope.resolve(formal) != actual:  # an input handed through, or two names for one result
                self.operators.append(Operator("Identity", "", text_of(node.name), (scope.resolve(formal),), (actual,)))

    def _bodies_of(
        self,
        attributes: Mapping[str, Any],
        inputs: tuple[str, ...],
        scope: _Scope,
        call: Mapping[str, Any] | None,
        depth: int,
    ) -> tuple[str, ...]:
        """Flatten the bodies of If, Loop and Scan in front of them; what they return becomes further inputs."""
        results: list[str] = []
        for attribute in attributes.values():
            graphs = () if attribute is None else _graphs(attribute)
            for graph in graphs:
                inner = self._scope(scope, attribute.name)
                # The formal inputs of Loop and Scan bodies stand in the places of the operator's own; If has none.
                meter.charge_operator(len(graph.input) + len(inputs) + len(graph.output), "opening bodies")
                for formal, actual in zip(graph.input, inputs, strict=False):
                    self.operators.append(Operator("Identity", "", "", (actual,), (inner.define(formal.name),)))
                self._open(graph, inner, call, depth + 1)
                results += [inner.resolve(value.name) for value in graph.output]
        return tuple(results)

    def _scope(self, outer: _Scope | None, label: str) -> _Scope:
        self._bodies += 1
        return _Scope(
            outer, f"{label[:40]}#{self._bodies}/"
        )  # not the caller's prefix too: names would grow with depth

    def _constant(self, attributes: Mapping[str, Any], name: str) -> None:
        for key, attribute in attributes.items():
            if attribute is None:
                continue
            if key == "value":
                self._store(attribute.t, name, constant=True)
            elif key in _CONSTANTS:
                array = np.asarray(getattr(attribute, _PLAIN.get(attribute.type, "f")), _CONSTANTS[key])
                dtype = "F32" if array.dtype == np.float32 else "I64"
                self._keep(TensorInfo(name, dtype, array.shape, ArraySlab(array)), constant=True)

    def _store(self, proto: Any, name: str, *, constant: bool) -> None:
        tensor = self._reader.describe(proto, name)
        if tensor is not None:
            self._keep(tensor, constant=constant)

    def _keep(self, tensor: TensorInfo, *, constant: bool) -> None:
        if len(self.stored) >= self._limits.tensors:
            raise LimitExceeded(self._where, "tensors", self._limits.tensors, len(self.stored) + 1)
        meter.charge_tensors(1, "reading tensors")
        self.stored[tensor.name] = tensor
        if tensor.size <= SMALL and isinstance(tensor.storage, ArraySlab):
            self.constants[tensor.name] = tensor.storage.array
        if not constant or tensor.size > SMALL or (tensor.size > 1 and tensor.dtype in FLOATS):
            self.tensors[tensor.name] = tensor

    def _value(self, attribute: Any) -> Any:
        """Return a plain attribute, or a small tensor as an array; None for sub-graphs and everything bulky."""
        if attribute.type == _TENSOR:
            tensor = self._reader.describe(attribute.t, attribute.name)
            return tensor.storage.array if tensor is not None and isinstance(tensor.storage, ArraySlab) else None
        field = _PLAIN.get(attribute.type)
        if field is None:
            return None
        value = getattr(attribute, field)
        if field in ("floats", "ints", "strings", "s"):
            meter.charge(len(value) // 8, "reading attributes")
            meter.hold(_NUMBER_BYTES * len(value), "reading attributes")
        if field == "s":
            return value.decode("utf-8", "replace")
        if field == "strings":
            return tuple(text.decode("utf-8", "replace") for text in value)
        return tuple(value) if field in ("floats", "ints") else value


def _graphs(attribute: Any) -> tuple[Any, ...]:
    if attribute.type == _GRAPH:
        return (attribute.g,)
    return tuple(attribute.graphs) if attribute.type == _GRAPHS else ()


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else text_of(domain)


def _key(domain: str, name: str, overload: str) -> tuple[str, str, str]:
    return _domain(domain), name, overload
