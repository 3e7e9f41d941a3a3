"""CTranslate2's ``model.bin`` (faster-whisper and others): variables one after the other, header and data interleaved.

Source: ``ModelSpec._serialize`` in python/ctranslate2/specs/model_spec.py and ``Model::load`` in src/models/model.cc.
All numbers are little-endian; a string is its length (u16, with the NUL) and its bytes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..checkpoint import Affine, Checkpoint, TensorInfo
from ..dtypes import NUMPY, UNITS, numpy_type
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import Extent

_NEWEST = 6
_AXES = 8  # convolutions have three
_NAME = 500
_TYPES = ("F32", "I8", "I16", "I32", "F16", "BF16")
_BY_SIZE = {4: "F32", 2: "I16", 1: "I8"}  # before version 4 only the size of an element was stored


def looks_like_model(prefix: bytes) -> bool:
    """Whether a file that starts with `prefix` is a model: a version, then the name of a specification."""
    version, length = struct.unpack_from("<IH", prefix.ljust(6, b"\0"))
    name = prefix[6 : 6 + length]
    return (
        2 <= version <= 100
        and 3 <= length <= 100
        and name[-1:] == b"\0"
        and name[:-1].isascii()
        and name[:-1].isalnum()
    )


@dataclass(frozen=True, slots=True)
class ReciprocalSlab:
    """Factors of quantisation, stored as divisors: ``weight = stored / scale``."""

    stored: Extent
    shape: tuple[int, ...]

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return one over the stored numbers."""
        data = self.stored.source.read_at(self.stored.start, self.stored.stop - self.stored.start)
        with np.errstate(divide="ignore", over="ignore"):  # damaged scales give infinities, which are reported later
            values: NDArray[Any] = 1 / np.frombuffer(data, "<f4").reshape(self.shape)
        return values[index]


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse a model; scalars are read, weights are not.

    Raises:
        FormatError: not a model, or its parts contradict each other.
        LimitExceeded: it asks for more than `limits` allows.
    """
    cursor = _Cursor(source)
    version = cursor.number("I")
    if not 2 <= version <= _NEWEST:
        cursor.fail("bad-version", f"binary version {version:,}; known are 2 to {_NEWEST}", 0)
    name, revision = cursor.text(), cursor.number("I")
    metadata: dict[str, Any] = {"spec": name, "revision": revision}
    stored: dict[str, TensorInfo] = {}
    for _ in range(cursor.count("variables", limits.tensors, 8)):
        meter.charge_tensors(1, "reading variables")
        tensor = _variable(cursor, version, stored)
        stored[tensor.name] = tensor
    tensors: dict[str, TensorInfo] = {}
    for tensor in stored.values():
        if not tensor.shape and tensor.dtype in NUMPY:
            assert isinstance(tensor.storage, Extent)
            data = bytes(source.read_at(tensor.storage.start, tensor.nbytes))
            metadata[tensor.name] = np.frombuffer(data, numpy_type(tensor.dtype))[0].item()
        else:
            tensors[tensor.name] = _dequantised(tensor, stored, cursor)
    if version >= 3:
        _aliases(cursor, tensors, limits)
    spare = source.size - cursor.at
    return Checkpoint(
        format="CTranslate2",
        version=str(version),
        tensors=tensors,
        sources=(source,),
        header_sha256=cursor.hash.hexdigest(),
        metadata=metadata,
        warnings=(f"{spare:,} bytes after the last variable",) if spare else (),
    )


class _Cursor:
    """A place in the file that moves over the headers."""

    def __init__(self, source: ByteSource) -> None:
        self.source, self.at = source, 0
        self.hash = hashlib.sha256()

    def take(self, n: int) -> bytes:
        if n > self.source.size - self.at:
            self.fail("truncated", f"{n:,} bytes are needed here, the file ends at {self.source.size:,}")
        data = bytes(self.source.read_at(self.at, n))
        self.at += n
        self.hash.update(data)
        return data

    def number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]
        return value

    def count(self, what: str, most: int, smallest: int) -> int:
        count = self.number("I")
        if count * smallest > self.source.size - self.at:
            self.fail("truncated", f"{count:,} {what} cannot fit in the rest of the file")
        if count > most:
            raise LimitExceeded(f"{self.source.name} @ {self.at}", what, most, count)
        return count

    def text(self) -> str:
        at, length = self.at, self.number("H")
        if not 1 <= length <= _NAME:
            self.fail("bad-name", f"a name of {length:,} bytes", at)
        data = self.take(length)
        if data[-1] != 0:
            self.fail("bad-name", "a name that does not end in NUL", at)
        return data[:-1].decode()

    def fail(self, code: str, detail: str, at: int | None = None) -> NoReturn:
        raise FormatError(code, f"{self.source.name} @ {self.at if at is None else at}", detail)


def _variable(cursor: _Cursor, version: int, tensors: dict[str, TensorInfo]) -> TensorInfo:
    at, name, rank = cursor.at, cursor.text(), cursor.number("B")
    if name in tensors:
        cursor.fail("duplicate-tensor", f"{name} occurs twice", at)
    if rank > _AXES:
        cursor.fail("bad-shape", f"{name} has {rank} axes", at)
    shape = struct.unpack(f"<{rank}I", cursor.take(4 * rank))
    kind = cursor.number("B")
    nbytes = cursor.number("I")
    if version >= 4:
        dtype = _TYPES[kind] if kind < len(_TYPES) else f"CTranslate2_{kind}"
    else:
        dtype, nbytes = _BY_SIZE.get(kind, f"CTranslate2_{kind}"), nbytes * kind
    unit = UNITS.get(dtype, (1, 0))[1]
    if unit and nbytes != math.prod(shape) * unit:
        cursor.fail("bad-length", f"{name}: {nbytes:,} bytes of data for the shape {shape} of {dtype}", at)
    if nbytes > cursor.source.size - cursor.at:
        cursor.fail("truncated", f"{name} ends at {cursor.at + nbytes:,}, the file at {cursor.source.size:,}", at)
    start = cursor.at
    cursor.at += nbytes
    return TensorInfo(name, dtype, shape, Extent(cursor.source, start, cursor.at))


def _aliases(cursor: _Cursor, tensors: dict[str, TensorInfo], limits: Limits) -> None:
    """Add the names under which variables are stored again, scales of untrained norms among them."""
    for _ in range(cursor.count("aliases", limits.tensors - len(tensors), 6)):
        meter.charge_tensors(1, "reading aliases")
        at, alias, name = cursor.at, cursor.text(), cursor.text()
        if alias in tensors:
            cursor.fail("duplicate-tensor", f"{alias} occurs twice", at)
        if name in tensors:  # a scalar is a setting, not a weight
            tensors[alias] = msgspec.structs.replace(tensors[name], name=alias)


def _dequantised(tensor: TensorInfo, tensors: dict[str, TensorInfo], cursor: _Cursor) -> TensorInfo:
    """Attach the divisors of a quantised weight: one for each row, or one for all."""
    scale = tensors.get(f"{tensor.name}_scale")
    if tensor.dtype not in ("I8", "I16") or scale is None or scale.dtype != "F32" or f"{tensor.name}_zero" in tensors:
        return tensor
    rows = tensor.shape[0] if tensor.shape else 1
    if scale.size not in (1, rows):
        detail = f"{scale.size:,} factors for the shape {tensor.shape}"
        raise FormatError("bad-scale", f"{cursor.source.name} @ {tensor.name}", detail)
    assert isinstance(scale.storage, Extent)
    factor = TensorInfo(
        f"{scale.name} (reciprocal)", "F32", (scale.size,), ReciprocalSlab(scale.storage, (scale.size,))
    )
    return msgspec.structs.replace(tensor, affine=Affine(factor, None, None if scale.size == 1 else 0))
