"""TensorProto messages, whose bulk data was left in the file, as `TensorInfo`; external data files."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import ArraySlab, Slab, TensorInfo
from ...dtypes import UNITS
from ...errors import FormatError, LimitExceeded, SourceError, parsing
from ...limits import Limits
from ...source.local import ByteSource
from ...source.place import Place
from ...source.places import is_beside, open_file
from ...source.views import Extent
from ...words import amount
from .wire import Chunk, Skeleton, encode_bytes

SMALL = 64  # elements; tensors up to this size are decoded at once, they may be axes, exponents, epsilons, shapes

# TensorProto.DataType (onnx.proto)
_DTYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3", 18: "F8_E4M3FNUZ", 19: "F8_E5M2", 20: "F8_E5M2FNUZ",
    21: "U4", 22: "I4", 23: "F4", 24: "F8_E8M0", 25: "U2", 26: "I2", 27: "F6_E2M3", 28: "F6_E3M2",
}  # fmt: skip
_STRING, _EXTERNAL, _RAW = 8, 1, 9
_FIXED_WIDTH = {("F32", 4), ("C64", 4), ("F64", 10), ("C128", 10)}  # typed fields that lie in the file as numpy wants
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def text_of(value: Any) -> str:
    """Return a protobuf string, which arrives as bytes if it is not UTF-8.

    Raises:
        FormatError: it is not.
    """
    if isinstance(value, str):
        return value
    raise FormatError("bad-text", repr(bytes(value[:40])), "a name in the graph is not valid UTF-8")


class ProtoSlab:
    """Values that protobuf encodes one by one; decoded by the onnx package, and only when they are asked for."""

    def __init__(self, proto: Any, source: ByteSource, chunks: tuple[Chunk, ...], limit: int) -> None:
        self._proto, self._source, self._chunks, self._limit = proto, source, chunks, limit
        self._array: NDArray[Any] | None = None

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index`.

        Raises:
            FormatError: the data does not match the shape.
            LimitExceeded: it is larger than one tensor may be.
        """
        if self._array is None:
            with parsing(f"{self._source.name} @ {self._proto.name or 'tensor'}"):
                self._array = self._decode()
        return self._array[index]

    def _decode(self) -> NDArray[Any]:
        from onnx import TensorProto, numpy_helper

        stored = sum(chunk.stop - chunk.start for chunk in self._chunks)
        if stored * 8 > self._limit:  # a varint of one byte becomes up to eight
            raise LimitExceeded(self._source.name, "bytes of a decoded tensor", self._limit, stored * 8)
        proto = TensorProto()
        proto.CopyFrom(self._proto)
        proto.ClearField("segment")
        read = self._source.read_at
        data = (encode_bytes(chunk.field, read(chunk.start, chunk.stop - chunk.start)) for chunk in self._chunks)
        proto.MergeFromString(b"".join(data))
        array: NDArray[Any] = np.asarray(numpy_helper.to_array(proto))
        return array


class TensorReader:
    """Turns the TensorProtos of one model into `TensorInfo`."""

    def __init__(self, source: ByteSource, skeleton: Skeleton, limits: Limits) -> None:
        self._source, self._skeleton, self._limits = source, skeleton, limits
        self._external: dict[Place, ByteSource | None] = {}
        self._left_out: Counter[str] = Counter()

    @property
    def sources(self) -> tuple[ByteSource, ...]:
        """The model file and the external data files that were opened."""
        return (self._source, *(file for file in self._external.values() if file is not None))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What had to be left out, each reason once."""
        return tuple(f"{amount(count, 'tensor')} left out: {reason}" for reason, count in self._left_out.items())

    def describe(self, proto: Any, name: str) -> TensorInfo | None:
        """Return what and where a tensor is, or None if it holds text or its data file is missing.

        Raises:
            FormatError: shape, type and data contradict each other, or the data file lies outside the model's folder.
        """
        if proto.data_type == _STRING:
            return None
        shape = self._shape(proto, name)
        dtype = _DTYPES.get(proto.data_type, f"ONNX_{proto.data_type}")
        elements, unit = UNITS.get(dtype, (1, 0))
        size = math.prod(shape)
        nbytes = -(-size // elements) * unit
        storage: Extent | Slab | None
        if proto.data_location == _EXTERNAL:
            storage = self._external_extent(proto, name, nbytes)
        else:
            storage = self._storage(proto, name, dtype, size, nbytes)
            if size <= SMALL and unit and isinstance(storage, ProtoSlab):
                storage = ArraySlab(storage.read(()))
        return None if storage is None else TensorInfo(name, dtype, shape, storage)

    def _storage(self, proto: Any, name: str, dtype: str, size: int, nbytes: int) -> Extent | ProtoSlab:
        chunks = self._chunks(proto, name)
        raw = [chunk for chunk in chunks if chunk.field == _RAW]
        chunks = tuple(raw[-1:]) or chunks  # raw_data wins over typed fields, and the last of several wins (protobuf)
        stored = sum(chunk.stop - chunk.start for chunk in chunks)
        if proto.HasField("raw_data"):
            chunks, raw, stored = (), [], len(proto.raw_data)
        if (raw or proto.HasField("raw_data")) and stored != nbytes and nbytes:
            raise self._error("bad-length", name, f"{stored:,} bytes of data for {nbytes:,} bytes of shape and type")
        if len(chunks) == 1 and size > SMALL and (raw or (dtype, chunks[0].field) in _FIXED_WIDTH):
            if stored != nbytes:
                raise self._error("bad-length", name, f"{stored:,} bytes of data for {nbytes:,} bytes of shape")
            return Extent(self._source, chunks[0].start, chunks[0].stop)
        values = stored + sum(len(getattr(proto, field)) for field in _TYPED)
        if size > 4 * values:  # four two-bit numbers in a byte are the densest that ONNX has
            raise self._error("truncated", name, f"{size:,} elements cannot come from {values:,} stored values")
        return ProtoSlab(proto, self._source, chunks, self._limits.tensor_bytes)

    def _chunks(self, proto: Any, name: str) -> tuple[Chunk, ...]:
        if not proto.HasField("segment"):
            return ()
        if not 0 <= proto.segment.begin < len(self._skeleton.chunks):
            raise self._error("segmented", name, "a tensor split into segments, which ONNX never came to use")
        return self._skeleton.chunks[proto.segment.begin]

    def _shape(self, proto: Any, name: str) -> tuple[int, ...]:
        shape = tuple(proto.dims)
        if len(shape) > self._limits.nesting:
            raise LimitExceeded(f"{self._source.name} @ {name}", "axes of a tensor", self._limits.nesting, len(shape))
        if any(n < 0 for n in shape):
            raise self._error("bad-shape", name, "a negative dimension")
        return shape

    def _external_extent(self, proto: Any, name: str, nbytes: int) -> Extent | None:
        entries = {text_of(entry.key): text_of(entry.value) for entry in proto.external_data}
        file = self._open_external(entries.get("location", ""), name)
        if file is None:
            return None
        offset, length = self._number(entries, "offset", 0, name), self._number(entries, "length", nbytes, name)
        if nbytes and length != nbytes:
            raise self._error("bad-length", name, f"{length:,} bytes of data for {nbytes:,} bytes of shape and type")
        if offset + length > file.size:
            raise self._error(
                "truncated", name, f"{file.name} ends at {file.size:,}, the tensor at {offset + length:,}"
            )
        return Extent(file, offset, offset + length)

    def _open_external(self, location: str, name: str) -> ByteSource | None:
        """Open a data file beside the model. Paths out of the model's folder are refused (CVE-2022-25882 and later)."""
        parts = PureWindowsPath(location)  # understands both separators, and drives
        if not location or "\0" in location or parts.anchor or ".." in parts.parts:
            raise self._error(
                "unsafe-path", name, f"external data at {location[:200]!r}, which is no path below the model"
            )
        if self._source.path is None:
            self._left_out["their data is in an external file and nothing tells where the model is"] += 1
            return None
        path = self._source.path.parent.joinpath(location)
        if path not in self._external:
            if len(self._external) >= self._limits.files:
                raise LimitExceeded(self._source.name, "external data files", self._limits.files, len(self._external))
            self._external[path] = self._open_inside(path, location, name)
        if self._external[path] is None:
            self._left_out[f"external data file {location[:200]} is missing or unreadable"] += 1
        return self._external[path]

    def _open_inside(self, path: Place, location: str, name: str) -> ByteSource | None:
        assert self._source.path is not None
        if not is_beside(self._source.path, path):
            raise self._error(
                "unsafe-path", name, f"external data at {location[:200]!r} leads out of the model's folder"
            )
        try:
            return open_file(path)
        except SourceError:
            return None

    def _number(self, entries: dict[str, str], key: str, default: int, name: str) -> int:
        text = entries.get(key)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._error("bad-offset", name, f"{key} of external data is {text[:40]!r}")
        return int(text)

    def _error(self, code: str, name: str, detail: str) -> FormatError:
        return FormatError(code, f"{self._source.name} @ {name[:200]}", detail)
