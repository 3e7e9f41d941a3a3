"""The protobuf wire format of an ONNX model, walked so that bulk tensor data is never touched.

protobuf has no random access: its parsers take the whole message, weights included, and copy it. Here the
tags and lengths are walked instead, and a *skeleton* is built: the same model, in which the data of every
larger tensor is replaced by a number into a list of byte ranges. What is left is a few megabytes at most and
goes to the `onnx` package. Field numbers: onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ... import meter
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from ...source.local import ByteSource

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_SMALL = 1024  # bytes; a message this small holds nothing bulky and is copied as it is
_FIRST_WINDOW, _LAST_WINDOW = 512, 1 << 20  # bytes read at a time: few after a jump over data, more when reading on
_PART = 250  # bytes: a view of a part that is kept, and what protobuf makes of it
_FIELD, _KEPT = 3, 4  # steps to find a field, and to keep it
_LONGEST_HEAD = 20  # bytes of a tag and a length, both as ten-byte varints

# What lies below each kind of message: field number -> kind. "copy" is kept as it is, what is not named is left out
# (doc_string, value_info, training_info, ... : nothing that tells what the network computes).
_KINDS: Mapping[str, Mapping[int, str]] = {
    "model": {1: "copy", 2: "copy", 3: "copy", 7: "graph", 8: "copy", 14: "copy", 25: "function"},
    "graph": {1: "node", 2: "copy", 5: "tensor", 11: "copy", 12: "copy", 15: "sparse"},
    "function": {1: "copy", 4: "copy", 5: "copy", 6: "copy", 7: "node", 10: "copy", 11: "attribute", 13: "copy"},
    "node": {1: "copy", 2: "copy", 3: "copy", 4: "copy", 5: "attribute", 7: "copy", 8: "copy"},
    "attribute": {1: "copy", 2: "copy", 3: "copy", 4: "copy", 5: "tensor", 6: "graph", 7: "copy", 8: "copy", 9: "copy",
                  10: "tensor", 11: "graph", 20: "copy", 21: "copy"},
    "tensor": {1: "copy", 2: "copy", 4: "data", 5: "data", 6: "skip", 7: "data", 8: "copy", 9: "data", 10: "data",
               11: "data", 13: "copy", 14: "copy"},
}  # fmt: skip
_COUNTED = {"node": "operators", "tensor": "tensors", "function": "operators", "graph": "operators"}


class Chunk(NamedTuple):
    """Where data of a tensor lies: the field of TensorProto, and the byte range of its payload."""

    field: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without its bulk data.

    Attributes:
        data: a serialised ModelProto. A tensor whose data was left out has ``segment.begin`` set.
        chunks: by ``segment.begin``: where that data lies.
        sparse: number of sparse initialisers that were left out.
    """

    data: bytes
    chunks: tuple[tuple[Chunk, ...], ...]
    sparse: int


class Field(NamedTuple):
    """One field on the wire: the range of the whole, where its payload starts, and the value of a varint."""

    number: int
    wire: int
    start: int
    body: int
    stop: int
    value: int


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes(number: int, *parts: bytes | memoryview) -> bytes:
    """Encode a length-delimited field."""
    return b"".join((encode_varint(number << 3 | BYTES), encode_varint(sum(map(len, parts))), *parts))


class Wire:
    """Reads fields from a source through a window, so that data that is jumped over is not read."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._base = 0
        self._buffer = memoryview(b"")
        self._window = _FIRST_WINDOW

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield the fields of the message at [start, stop).

        Raises:
            FormatError: a field does not end inside the message, or has an unknown wire type.
        """
        at = start
        while at < stop:
            meter.charge(_FIELD, "walking the message")
            head = min(_LONGEST_HEAD, stop - at)
            index = at - self._base
            if index < 0 or index + head > len(self._buffer):
                self._refill(at, head)
                index = 0
            buffer, limit = self._buffer, index + head
            tag, after = self._varint(buffer, index, limit)
            wire, value = tag & 7, 0
            body = at + after - index
            if wire == BYTES:
                length, after = self._varint(buffer, after, limit)
                body = at + after - index
                end = body + length
            elif wire == VARINT:
                value, after = self._varint(buffer, after, limit)
                end = at + after - index
            elif wire in (FIXED64, FIXED32):
                end = body + (8 if wire == FIXED64 else 4)
            else:
                raise FormatError("bad-wire-type", self._where(at), f"protobuf wire type {wire} is not used by ONNX")
            if end > stop or tag < 8:
                raise FormatError("truncated", self._where(at), f"a protobuf field of {end - at:,} bytes does not fit")
            yield Field(tag >> 3, wire, at, body, end, value)
            at = end

    def copy(self, start: int, stop: int) -> memoryview:
        """Return the bytes of [start, stop)."""
        index = start - self._base
        if index < 0 or index + stop - start > len(self._buffer):
            if stop - start > _SMALL:
                return self._source.read_at(start, stop - start)
            self._refill(start, stop - start)
            index = 0
        return self._buffer[index : index + stop - start]

    def _varint(self, buffer: memoryview, index: int, limit: int) -> tuple[int, int]:
        value = shift = 0
        for at in range(index, min(limit, index + 10)):
            byte = buffer[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at + 1
            shift += 7
        raise FormatError("bad-varint", self._where(self._base + index), "a protobuf number does not end")

    def _refill(self, at: int, need: int) -> None:
        reading_on = self._base <= at <= self._base + len(self._buffer)
        self._window = min(self._window * 2, _LAST_WINDOW) if reading_on else _FIRST_WINDOW
        n = min(max(self._window, need), self._source.size - at)
        self._base, self._buffer = at, self._source.read_at(at, n)

    def _where(self, at: int) -> str:
        return f"{self._source.name} @ {at}"


def read_skeleton(source: ByteSource, limits: Limits) -> Skeleton:
    """Walk a serialised ModelProto and leave its bulk data out.

    Raises:
        FormatError: this is no protobuf message of that shape.
        LimitExceeded: too many nodes or tensors, too deep, or too much that is not tensor data.
    """
    walk = _WireWalk(source, limits)
    parts = walk.message("model", 0, source.size, 0)
    return Skeleton(b"".join(parts), tuple(walk.chunks), walk.sparse)


class _WireWalk:
    def __init__(self, source: ByteSource, limits: Limits) -> None:
        self.chunks: list[tuple[Chunk, ...]] = []
        self.sparse = 0
        self._wire = Wire(source)
        self._limits = limits
        self._name = source.name
        self._kept = 0
        self._counts: dict[str, int] = {"operators": 0, "tensors": 0}

    def message(self, kind: str, start: int, stop: int, depth: int) -> list[bytes | memoryview]:
        """Return the fields of a message that are kept, encoded."""
        if depth > self._limits.nesting:
            raise LimitExceeded(f"{self._name} @ {start}", "depth of sub-graphs", self._limits.nesting, depth)
        kinds, parts, chunks = _KINDS[kind], list[bytes | memoryview](), list[Chunk]()
        for field in self._wire.fields(start, stop):
            below = kinds.get(field.number)
            if below is None or below == "skip":
                continue
            if below == "sparse":
                self.sparse += 1
                continue
            if below in _COUNTED:
                self._count(_COUNTED[below], field.start)
            if below == "data" and field.wire == BYTES:
                chunks.append(Chunk(field.number, field.body, field.stop))
            elif below in ("copy", "data") or field.wire != BYTES or field.stop - field.start <= _SMALL:
                self._keep(field.stop - field.start, field.start)
                meter.charge(_KEPT, "walking the message")
                meter.hold(_PART + field.stop - field.start, "walking the message")
                parts.append(self._wire.copy(field.start, field.stop))
            else:
                inner = self.message(below, field.body, field.stop, depth + (below == "graph"))
                head = encode_varint(field.number << 3 | BYTES) + encode_varint(sum(map(len, inner)))
                parts += [head, *inner]
        if chunks:
            parts.append(encode_bytes(3, b"\x08", encode_varint(len(self.chunks))))  # segment.begin
            self.chunks.append(tuple(chunks))
        return parts

    def _keep(self, n: int, at: int) -> None:
        self._kept += n
        if self._kept > self._limits.graph_bytes:
            raise LimitExceeded(f"{self._name} @ {at}", "bytes of the graph", self._limits.graph_bytes, self._kept)

    def _count(self, resource: str, at: int) -> None:
        self._counts[resource] += 1
        limit: int = getattr(self._limits, resource)
        if self._counts[resource] > limit:
            raise LimitExceeded(f"{self._name} @ {at}", resource, limit, self._counts[resource])
