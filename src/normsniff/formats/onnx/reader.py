"""ONNX: a ModelProto, its graph and its weights, without reading the weights.

protobuf has no magic number and a message may come in any order; see `wire` for how it is walked, and
norm-facts.md section 3 for what exporters and ONNX Runtime make of a norm.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ...checkpoint import Checkpoint
from ...errors import FormatError
from ...limits import Limits
from ...source.local import ByteSource, BytesSource
from .graph import GraphBuilder
from .quantised import with_affines
from .tensors import TensorReader, text_of
from .wire import BYTES, VARINT, Field, Wire, read_skeleton

# Fields of ModelProto and of GraphProto and their wire types (onnx.proto)
_MODEL = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES,
          25: BYTES, 26: BYTES}  # fmt: skip
_GRAPH = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})
_NEWEST_IR = 1000  # IR versions are counted from 1; 13 in 2026
_TEXT_BYTES = 1024  # producer_name, producer_version, domain


def looks_like_model(prefix: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `prefix` can be a ModelProto.

    Every field whose head is in the prefix must be one that ModelProto has, with the right wire type and a length
    that fits, and an IR version must come first of all that counts. Text, random bytes and other protobuf files fail.
    """
    version = False
    try:
        for field in Wire(_Padded(prefix, size)).fields(0, size):
            if _MODEL.get(field.number) != field.wire:
                return False
            if field.number == 1:
                version = 1 <= field.value <= _NEWEST_IR
            elif field.number in (2, 3, 4):
                text = prefix[field.body : field.stop]
                if field.stop - field.body > _TEXT_BYTES or not text.decode("utf-8", "ignore").isprintable():
                    return False
            elif field.number == 7:
                return version and _is_graph(prefix, field)
            if field.stop >= len(prefix):
                return version and field.stop < size
    except FormatError:
        return False
    return False


def _is_graph(prefix: bytes, graph: Field) -> bool:
    if graph.body >= min(len(prefix), graph.stop):
        return graph.body < graph.stop
    inside = Wire(_Padded(prefix, graph.stop)).fields(graph.body, graph.stop)
    first = next(inside)
    return first.number in _GRAPH and first.wire == BYTES


class _Padded(BytesSource):
    """The first bytes of a longer file, for lengths to be checked against the whole."""

    def __init__(self, prefix: bytes, size: int) -> None:
        super().__init__(prefix)
        self._known = len(prefix)
        self.size = size

    def read_at(self, offset: int, n: int) -> memoryview:
        """Return what is known, and zeros after it."""
        known = self._view[offset : min(offset + n, self._known)]
        return known if len(known) == n else memoryview(bytes(known) + bytes(n - len(known)))


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse an ONNX model.

    Raises:
        FormatError: it is not one, or its parts contradict each other.
        LimitExceeded: it asks for more than `limits` allows.
    """
    from onnx import ModelProto

    skeleton = read_skeleton(source, limits)
    model = ModelProto.FromString(skeleton.data)
    if not model.HasField("graph"):
        raise FormatError("no-graph", f"{source.name} @ 0", "an ONNX model without a graph")
    reader = TensorReader(source, skeleton, limits)
    try:
        builder = GraphBuilder(model, reader, limits, source.name)
        tensors = with_affines(builder.tensors, builder.stored, builder.operators, source.name, limits)
    except Exception:
        for opened in reader.sources[1:]:
            opened.close()
        raise
    warnings = list(reader.warnings)
    if skeleton.sparse:
        warnings.append(f"{skeleton.sparse:,} sparse initialisers left out")
    return Checkpoint(
        format="ONNX",
        version=f"IR {model.ir_version}",
        tensors=tensors,
        sources=reader.sources,
        header_sha256=hashlib.sha256(skeleton.data).hexdigest(),
        metadata=_metadata(model, limits),
        graph=builder.graph(),
        warnings=tuple(warnings),
    )


def _metadata(model: Any, limits: Limits) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "producer_name": text_of(model.producer_name),
        "producer_version": text_of(model.producer_version),
        "ir_version": model.ir_version,
    }
    metadata |= {f"opset.{text_of(entry.domain) or 'ai.onnx'}": entry.version for entry in model.opset_import}
    properties = {text_of(p.key): p.value for p in model.metadata_props if len(p.value) <= limits.value_bytes}
    return metadata | {key: value for key, value in properties.items() if isinstance(value, str)}
