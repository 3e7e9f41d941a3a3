"""NumPy: one array (``.npy``) or a zip archive of them (``.npz``). Arrays of Python objects are pickles and refused.

Layout: numpy/lib/format.py and NEP 1.
"""

from __future__ import annotations

import ast
import hashlib
import math
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..checkpoint import MOST_AXES, Checkpoint, Slab, TensorInfo
from ..dtypes import BY_CODE, UNITS
from ..errors import FormatError, LimitExceeded, parsing
from ..limits import Limits
from ..source.local import ByteSource, BytesSource
from ..source.views import Extent
from ..words import amount, are, first
from . import archives
from .strided import Strided

MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 10_000  # numpy's own cap (`max_header_size`)
_PREAMBLE = 12  # magic, version, length of the header
_MEMBER = 100  # steps: a header is a Python literal, which takes the parser of the language
_DTYPES = {**BY_CODE, "V2": "BF16"}  # what NumPy makes of the bfloat16 of ml_dtypes: two bytes of no type
_DESCR = re.compile(r"([<>|=])([a-zA-Z]\d*)")


@dataclass(frozen=True, slots=True)
class _ArrayHeader:
    dtype: str
    byteorder: str
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements between neighbours, first axis fastest."""
        return tuple(math.prod(self.shape[:i]) for i in range(len(self.shape)))

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * UNITS[self.dtype][1]


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Read the headers of a ``.npy`` or ``.npz`` file.

    Args:
        source: the file.
        limits: caps on members and on what compressed ones inflate to.

    Returns:
        A checkpoint of format ``"NumPy"``. Members are tensors by their names without ``.npy``; those that hold Python
        objects, records or text are left out with a warning.

    Raises:
        FormatError: not such a file, nothing but Python objects in it, or an array that does not fit.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    with parsing(source.name):
        signature = bytes(source.read_at(0, min(4, source.size)))
        if signature == archives.SIGNATURE:
            return _read_archive(source, limits)
        return _read_array(source)


def _read_array(source: ByteSource) -> Checkpoint:
    head = bytes(source.read_at(0, min(_PREAMBLE + _HEADER_BYTES, source.size)))
    header = _parse(head, source.name)
    tensor = _tensor("array", header, source, 0, source.size)
    notes = _notes([], _is_void(header, ["array"]))
    digest = hashlib.sha256(head[: header.size]).hexdigest()
    return Checkpoint("NumPy", "npy", {"array": tensor}, (source,), digest, warnings=notes)


def _read_archive(source: ByteSource, limits: Limits) -> Checkpoint:
    tensors: dict[str, TensorInfo] = {}
    left_out: list[str] = []
    void: list[str] = []
    digest, inflated, reuse = hashlib.sha256(), 0, _Reuse()
    for file, info in archives.directory(source, limits).items():
        where = f"{source.name}!{file}"
        meter.charge(_MEMBER, "reading headers of members")
        meter.charge_tensors(1, "reading headers of members")
        if not file.endswith(".npy"):
            left_out.append(f"{file[:100]} (no array)")
            continue
        archives.check_size(where, info, limits, limits.inflated_bytes if info.compress_type else info.file_size)
        n = min(_PREAMBLE + _HEADER_BYTES, info.file_size)
        if info.compress_type == zipfile.ZIP_STORED:
            archives.extent(source, info)
            head = bytes(archives.window(source, info).read_at(0, n))
        else:
            inflated += info.file_size
            if inflated > limits.inflated_bytes:
                raise LimitExceeded(source.name, "inflated bytes of all members", limits.inflated_bytes, inflated)
            head = bytes(archives.inflate(source, info, n))
        try:
            header = _parse(head, where)
        except FormatError as error:
            if error.code not in ("object-array", "bad-dtype"):
                raise
            left_out.append(f"{file[:100]} ({error.detail})")
            continue
        name = file.removesuffix(".npy")
        if info.compress_type == zipfile.ZIP_STORED:
            start, stop = archives.extent(source, info)
            tensors[name] = _tensor(name, header, source, start, stop)
        else:
            if header.size + header.nbytes > info.file_size:
                raise _short(where, header, info.file_size)
            tensors[name] = TensorInfo(name, header.dtype, header.shape, _Deflated(source, info, header, reuse), "<")
        void += _is_void(header, [name])
        digest.update(f"{name}\0".encode() + head[: header.size])
    if not tensors:
        code = "object-array" if any("Python objects" in name for name in left_out) else "no-tensors"
        raise FormatError(code, source.name, f"holds no array of numbers: {', '.join(left_out[:5])}")
    return Checkpoint("NumPy", "npz", tensors, (source,), digest.hexdigest(), warnings=_notes(left_out, void))


def _is_void(header: _ArrayHeader, names: list[str]) -> list[str]:
    return names if header.dtype == "BF16" else []


def _notes(left_out: list[str], void: list[str]) -> tuple[str, ...]:
    notes = []
    if left_out:
        notes.append(f"{amount(len(left_out), 'member')} left out: {first(left_out)}")
    if void:
        notes.append(
            f"{amount(len(void), 'array')} of two bytes without a type {are(len(void))} taken for bfloat16, which NumPy"
            " saves so"
        )
    return tuple(notes)


def _parse(head: bytes, where: str) -> _ArrayHeader:
    if head[:6] != MAGIC or len(head) < _PREAMBLE:
        raise FormatError("bad-header", f"{where} @ 0", "no header of a NumPy array")
    major = head[6]
    if major not in (1, 2, 3):
        raise FormatError("unsupported", f"{where} @ 6", f"version {major}.{head[7]} of the NumPy format")
    begin = 10 if major == 1 else 12
    (length,) = struct.unpack_from("<H" if major == 1 else "<I", head, 8)
    if length > _HEADER_BYTES:
        raise LimitExceeded(f"{where} @ 8", "bytes of an array's header", _HEADER_BYTES, length)
    if begin + length > len(head):
        raise FormatError("truncated", f"{where} @ {len(head)}", "the header is cut off")
    with parsing(f"{where} @ {begin}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the parser, about odd literals
        fields: Any = ast.literal_eval(head[begin : begin + length].decode("utf-8" if major == 3 else "latin1").strip())
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise FormatError("bad-header", f"{where} @ {begin}", "the header has not the three keys of a NumPy array")
    shape = fields["shape"]
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
        raise FormatError("bad-shape", f"{where} @ {begin}", "the shape is no tuple of counts")
    if type(fields["fortran_order"]) is not bool:
        raise FormatError("bad-header", f"{where} @ {begin}", "fortran_order is neither True nor False")
    order, dtype = _dtype(fields["descr"], f"{where} @ {begin}")
    return _ArrayHeader(dtype, order, shape, fields["fortran_order"] and len(shape) > 1, begin + length)


def _dtype(descr: object, where: str) -> tuple[str, str]:
    match = _DESCR.fullmatch(descr) if isinstance(descr, str) else None
    if match is not None and match[2][0] == "O":
        raise FormatError("object-array", where, "an array of Python objects, which is a pickle and never loaded")
    dtype = _DTYPES.get(match[2]) if match is not None else None
    if match is None or dtype is None:
        raise FormatError("bad-dtype", where, f"elements of type {descr!r:.60}, no numbers")
    return (">" if match[1] == ">" else "<"), dtype


def _short(where: str, header: _ArrayHeader, size: int) -> FormatError:
    missing = header.size + header.nbytes - size
    return FormatError("truncated", f"{where} @ {size}", f"{missing:,} bytes of the array are missing")


def _tensor(name: str, header: _ArrayHeader, source: ByteSource, start: int, stop: int) -> TensorInfo:
    begin = start + header.size
    if begin + header.nbytes > stop:
        raise _short(f"{source.name} @ {name}", header, stop - start)
    extent = Extent(source, begin, begin + header.nbytes)
    storage: Extent | Slab = extent
    if header.fortran and header.nbytes:
        storage = Strided(extent, header.dtype, header.strides, header.byteorder)
    return TensorInfo(name, header.dtype, header.shape, storage, header.byteorder)


@dataclass(slots=True)
class _Reuse:
    """The member that was inflated last, so that the blocks of a sample do not inflate it once each."""

    name: str = ""
    data: memoryview = field(default_factory=lambda: memoryview(b""))


@dataclass(frozen=True, slots=True)
class _Deflated:
    """An array in a compressed member, inflated when it is read."""

    source: ByteSource
    info: zipfile.ZipInfo
    header: _ArrayHeader
    reuse: _Reuse

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index`."""
        header, reuse = self.header, self.reuse
        if reuse.name != self.info.filename:
            reuse.data = archives.inflate(self.source, self.info, self.info.file_size)
            reuse.name = self.info.filename
        inner = BytesSource(reuse.data)
        strides = header.strides if header.fortran else _row_major(header.shape)
        extent = Extent(inner, header.size, header.size + header.nbytes)
        return np.asarray(Strided(extent, header.dtype, strides, header.byteorder).read(index))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
