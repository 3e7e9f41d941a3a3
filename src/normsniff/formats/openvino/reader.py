"""OpenVINO IR: an XML file with the graph, and a file of weights beside it, which are not read here.

Source: OpenVINO's "Intermediate Representation" documentation, IR versions 10 and 11. `xml` parses, `ops` translates
operators, `weights` knows packed weights.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ... import meter
from ...checkpoint import MOST_AXES, Checkpoint, Graph, Operator, TensorInfo
from ...dtypes import FLOATS, NUMPY, UNITS, numpy_type
from ...errors import FormatError, LimitExceeded, SourceError
from ...limits import Limits
from ...source.local import ByteSource
from ...source.places import is_file, is_inside, open_file
from ...source.views import Extent
from .ops import translate
from .weights import dequantised
from .xml import IrLayer, Net, parse

_SMALL = 64  # elements; constants up to this size are decoded at once, they may be axes, exponents, epsilons, shapes

# ov::element::Type; those of less than a byte are packed lowest bits first, but for u1
_DTYPES = {
    "f32": "F32", "f16": "F16", "bf16": "BF16", "f64": "F64", "i8": "I8", "u8": "U8", "i16": "I16", "u16": "U16",
    "i32": "I32", "u32": "U32", "i64": "I64", "u64": "U64", "boolean": "BOOL", "u4": "U4", "i4": "I4", "u2": "U2",
    "f8e4m3": "F8_E4M3", "f8e5m2": "F8_E5M2", "f8e8m0": "F8_E8M0", "f4e2m1": "F4",
}  # fmt: skip
_PACKED = frozenset(["U8", "I8", "U4", "I4", "U2", "F8_E4M3", "F8_E5M2"])


def looks_like_model(prefix: bytes) -> bool:
    """Whether a file that starts with `prefix` is the XML half of a model."""
    text = prefix.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<?xml"):
        text = text.partition(b"?>")[2].lstrip()
    while text.startswith(b"<!--"):
        text = text.partition(b"-->")[2].lstrip()
    doctype = text.startswith(b"<!DOCTYPE net")  # recognised, to be refused with a reason
    return doctype or text.startswith((b"<net ", b"<net\t", b"<net\n", b"<net\r"))


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse a model; the file of weights is opened, only small constants in it are read.

    Raises:
        FormatError: not a model, or its parts contradict each other, or the weights are not there.
        LimitExceeded: it asks for more than `limits` allows.
    """
    if source.size > limits.graph_bytes:
        raise LimitExceeded(source.name, "bytes of the graph", limits.graph_bytes, source.size)
    data = bytes(source.read_at(0, source.size))
    document = parse(data, source, limits)
    weights = _open_weights(source)
    builder = _NetFlattener(source, weights, limits)
    try:
        builder.add(document.net, "", {}, 0)
        graph = builder.graph()
    except Exception:
        if weights is not None:
            weights.close()
        raise
    return Checkpoint(
        format="OpenVINO",
        version=None if document.version is None else f"IR {document.version[:20]}",
        tensors=builder.tensors,
        sources=(source,) if weights is None else (source, weights),
        header_sha256=hashlib.sha256(data).hexdigest(),
        metadata=document.metadata,
        graph=graph,
        warnings=tuple(
            f"{n:,} constants of type {kind[:20]}, which is not decoded" for kind, n in builder.opaque.items()
        ),
    )


def _open_weights(source: ByteSource) -> ByteSource | None:
    if source.path is None:
        return None
    path = source.path.with_suffix(".bin")
    if not is_file(path):
        return None
    if not is_inside(source.path.parent, path):
        raise FormatError("unsafe-path", str(path), "a symbolic link that leaves the model's folder")
    try:
        return open_file(path)
    except SourceError:
        return None


def _sizes(text: str) -> tuple[int | None, ...]:
    """Return the sizes of a parameter: ``"?,3,1..224"``, where what is no plain number is open."""
    parts = [part.strip() for part in text.split(",", MOST_AXES)] if text else []
    return tuple(
        int(part) if part.isascii() and part.isdigit() and len(part) < 10 else None for part in parts[:MOST_AXES]
    )


class _NetFlattener:
    """Flattens a net and its bodies.

    Attributes:
        tensors: constants that may be weights.
        opaque: constants of unknown types, counted.
    """

    def __init__(self, source: ByteSource, weights: ByteSource | None, limits: Limits) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.opaque: Counter[str] = Counter()
        self._source, self._weights, self._limits = source, weights, limits
        self._stored: dict[str, TensorInfo] = {}
        self._constants: dict[str, NDArray[Any]] = {}
        self._operators: list[Operator] = []
        self._producers: dict[str, Operator] = {}
        self._inputs: list[str] = []
        self._shapes: dict[str, tuple[int | None, ...]] = {}
        self._outputs: list[str] = []
        self._names: set[str] = set()

    def graph(self) -> Graph:
        """Return the flat graph, with packed weights known as such."""
        operators = tuple(self._unpacked(op) for op in self._operators)
        return Graph(operators, tuple(self._inputs), tuple(self._outputs), self._constants, shapes=self._shapes)

    def add(self, net: Net, prefix: str, bound: Mapping[str, str], depth: int) -> list[str]:
        """Add the layers of a net.

        Args:
            net: the net.
            prefix: of all names in it.
            bound: for parameters of a body, the outer value that each is.
            depth: of bodies.

        Returns:
            What the net returns.
        """
        if depth > self._limits.nesting:
            raise LimitExceeded(self._source.name, "depth of sub-graphs", self._limits.nesting, depth)
        values: dict[tuple[str, str], str] = {}
        for layer in net.layers.values():
            name = self._unique(prefix + layer.name, layer.id)
            for index, port in enumerate(layer.outputs):
                values[layer.id, port] = name if index == 0 else f"{name}:{port[:20]}"
        results: list[str] = []
        for layer in net.layers.values():
            meter.charge(3 + len(layer.inputs) + len(layer.outputs), "flattening bodies")
            inputs = tuple(self._input(net, values, layer, port) for port in layer.inputs)
            outputs = tuple(values[layer.id, port] for port in layer.outputs)
            if layer.type == "Result":
                results += inputs
                if not depth:
                    self._outputs += inputs
            elif layer.type == "Const":
                self._constant(layer, outputs)
            elif layer.type == "Parameter" and not depth:
                self._inputs += outputs
                self._shapes |= dict.fromkeys(outputs, _sizes(layer.data.get("shape", "")))
            elif layer.type == "Parameter":
                if layer.id in bound and outputs:
                    self._append(Operator("Identity", "", layer.name, (bound[layer.id],), outputs))
            else:
                inputs += self._bodies(layer, inputs, depth)
                for op in translate(layer, inputs, outputs, self._constants.get):
                    self._append(op)
        return results

    def _append(self, op: Operator) -> None:
        meter.charge_operator(len(op.inputs) + len(op.outputs), "flattening bodies")
        self._operators.append(op)
        self._producers.update((name, op) for name in op.outputs)

    def _bodies(self, layer: IrLayer, inputs: tuple[str, ...], depth: int) -> tuple[str, ...]:
        """Flatten the bodies of a layer in front of it; what they return becomes further inputs."""
        given = dict(zip(layer.inputs, inputs, strict=True))
        results: list[str] = []
        for label, body in layer.bodies.items():
            meter.charge(len(layer.port_map), "flattening bodies")
            bound = {
                inner: given[port]
                for kind, way, port, inner in layer.port_map
                if kind == label and way == "input" and port in given
            }
            results += self.add(body, f"{layer.name[:40]}#{layer.id}/{label}/", bound, depth + 1)
        return tuple(results)

    def _unique(self, name: str, number: str) -> str:
        unique = name if name and name not in self._names else f"{name}#{number}"
        while unique in self._names:
            meter.charge(1 + len(unique) // 50, "telling layers of one name apart")
            unique += "#"
        self._names.add(unique)
        return unique

    def _input(self, net: Net, values: Mapping[tuple[str, str], str], layer: IrLayer, port: str) -> str:
        source = net.edges.get((layer.id, port))
        if source is None:
            return ""
        if source not in values:
            self._fail("bad-edge", layer, f"reads port {source[1][:20]!r} of layer {source[0][:20]!r}, which has none")
        return values[source]

    def _constant(self, layer: IrLayer, outputs: tuple[str, ...]) -> None:
        if not outputs:
            return
        name, kind = outputs[0], layer.data.get("element_type", "")
        dtype = _DTYPES.get(kind)
        offset, nbytes = self._number(layer, "offset"), self._number(layer, "size")
        if dtype is None:
            self.opaque[kind] += 1
        dtype = dtype or kind[:20]
        shape = self._shape(layer)
        elements, unit = UNITS.get(dtype, (1, 0))
        if unit and nbytes != -(-math.prod(shape) // elements) * unit:
            self._fail("bad-length", layer, f"{nbytes:,} bytes of data for the shape {shape} of {kind}")
        if self._weights is None:
            where = f"{self._source.name} @ {layer.name[:200]}"
            raise FormatError("missing-weights", where, "the file of weights (same name, .bin) is not beside the model")
        if offset + nbytes > self._weights.size:
            self._fail(
                "truncated", layer, f"ends at {offset + nbytes:,}, {self._weights.name} at {self._weights.size:,}"
            )
        if len(self._stored) >= self._limits.tensors:
            raise LimitExceeded(self._source.name, "tensors", self._limits.tensors, len(self._stored) + 1)
        meter.charge_tensors(1, "reading constants")
        tensor = TensorInfo(name, dtype, shape, Extent(self._weights, offset, offset + nbytes))
        self._stored[name] = tensor
        if tensor.size <= _SMALL and dtype in NUMPY:
            stored = self._weights.read_at(offset, nbytes)
            self._constants[name] = np.frombuffer(stored, numpy_type(dtype)).reshape(shape)
        if tensor.size > _SMALL or (tensor.size > 1 and dtype in FLOATS):
            self.tensors[name] = tensor

    def _shape(self, layer: IrLayer) -> tuple[int, ...]:
        text = layer.data.get("shape", "").strip()
        parts = [part.strip() for part in text.split(",", MOST_AXES)] if text else []
        if len(parts) > MOST_AXES or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            self._fail("bad-shape", layer, f"has the shape {text[:60]!r}")
        return tuple(int(part) for part in parts)

    def _number(self, layer: IrLayer, key: str) -> int:
        text = layer.data.get(key, "")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            self._fail("bad-offset", layer, f"has the {key} {text[:40]!r}")
        return int(text)

    def _fail(self, code: str, layer: IrLayer, detail: str) -> NoReturn:
        name = f"layer {layer.id[:20]} ({layer.name[:150]})"
        raise FormatError(code, f"{self._source.name} @ {name}", detail)

    # --- packed weights ----------------------------------------------------------------------------------------

    def _unpacked(self, op: Operator) -> Operator:
        """Return DequantizeLinear for a Multiply that unpacks a weight; other operators as they are."""
        if op.op_type != "Mul" or len(op.inputs) != 2:
            return op
        for value, factor in (op.inputs, op.inputs[::-1]):
            scale = self._root(factor)
            packed, zero = self._packed(value)
            if packed is None or scale is None or scale.dtype not in ("F16", "F32", "BF16"):
                continue
            weight = dequantised(packed, scale, zero, self._limits)
            if weight is not None:
                self.tensors[packed.name] = weight
                names = (packed.name, scale.name, *(() if zero is None else (zero.name,)))
                return Operator("DequantizeLinear", "", op.name, names, op.outputs, op.attributes)
        return op

    def _packed(self, value: str) -> tuple[TensorInfo | None, TensorInfo | None]:
        """Return the integers and the zero point under ``Convert(integers) - zero point``."""
        op = self._producers.get(value)
        zero = None
        if op is not None and op.op_type == "Sub" and len(op.inputs) == 2:
            zero = self._root(op.inputs[1])
            if zero is None:
                return None, None
            value = op.inputs[0]
            op = self._producers.get(value)
        if op is None or op.op_type != "Cast" or not op.inputs:
            return None, None
        packed = self._stored.get(op.inputs[0])
        return (packed if packed is not None and packed.dtype in _PACKED else None), zero

    def _root(self, value: str) -> TensorInfo | None:
        """Return the constant that a value is, but for a conversion."""
        op = self._producers.get(value)
        if op is not None and op.op_type == "Cast" and op.inputs:
            value = op.inputs[0]
        return self._stored.get(value)
