"""Stored bytes to float32: a small tensor whole, a matrix by samples. No matrix is converted whole.

A matrix is sampled as *vectors along one axis* (length d), in contiguous blocks spread evenly over the
others, so that few pages or ranges are touched: whole rows where the axis is the last one, column blocks
otherwise. `blocks` says what a block is, `strips` where it lies, `vectors` decodes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..checkpoint import UNITS, Affine, Extent, TensorInfo
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import PAGE
from . import ggml

Float32 = NDArray[np.float32]
Bytes: TypeAlias = memoryview | bytes | NDArray[np.uint8]

_PLAIN = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_PACKED = {"I4": (4, True), "U4": (4, False), "I2": (2, True), "U2": (2, False)}  # dtype -> (bits, signed)
_BLOCK_BYTES = 1 << 22  # of float32 at once: bounds memory whatever the tensor's size, and stays near the processor
_COLUMN_BYTES = 1 << 23  # of a block of columns, which takes a read for every row: the wider, the fewer
_PARTS = 4  # a sample of rows comes from so many places; a sample of columns from one, since each column costs d reads
_BLOCK_TYPES = frozenset(name for name, (elements, _) in UNITS.items() if elements >= 32)


def is_decodable(dtype: str) -> bool:
    """Whether values of this dtype can be turned into numbers here."""
    if dtype in _PLAIN or dtype in _ML_DTYPES or dtype in _PACKED:
        return True
    return dtype in _BLOCK_TYPES and ggml.decoder(dtype) is not None


def read(tensor: TensorInfo, limits: Limits | None = None) -> Float32:
    """Decode a whole small tensor.

    Returns:
        float32 array of ``tensor.shape``.

    Raises:
        LimitExceeded: the tensor is over ``limits.tensor_bytes``.
        FormatError: its dtype cannot be decoded.
    """
    limits = limits or Limits()
    if max(tensor.nbytes, tensor.size * 4) > limits.tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of a tensor", limits.tensor_bytes, max(tensor.nbytes, tensor.size * 4))
    if isinstance(tensor.storage, Extent):
        values = _decode_run(tensor, 0, tensor.size).reshape(tensor.shape)
    else:
        values = _to_float32(tensor.storage.read(tuple(slice(0, n) for n in tensor.shape)))
    if tensor.affine is not None:
        scale, zero, axis = _affine_arrays(tensor.affine, limits)
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged scale gives inf, which later steps refuse
            values = (values - _along(zero, axis, values.ndim)) * _along(scale, axis, values.ndim)
    return values.astype(np.float32, copy=False)


class Block(msgspec.Struct, frozen=True):
    """Vectors along an axis: those at the positions `outer` of the axes before it and `inner` of the axes after it."""

    outer: slice
    inner: slice

    @property
    def n(self) -> int:
        """Number of vectors."""
        n: int = (self.outer.stop - self.outer.start) * (self.inner.stop - self.inner.start)
        return n


class Strips(msgspec.Struct, frozen=True):
    """Byte ranges of one length at equal distances.

    Attributes:
        start: offset of the first in its source.
        length: of each, in bytes.
        stride: from the start of one to the start of the next.
        n: how many there are.
    """

    start: int
    length: int
    stride: int
    n: int

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.length * self.n

    def joined(self, gap: int) -> Strips:
        """Return one range that covers all if what lies between them costs less than reading them apart."""
        if self.n == 1 or self.stride > self.length + gap:
            return self
        whole = (self.n - 1) * self.stride + self.length
        return Strips(self.start, whole, whole, 1)


def blocks(tensor: TensorInfo, axis: int, count: int | None = None) -> Iterator[Block]:
    """Cut a matrix into blocks of vectors along `axis`, in an order of which every prefix is a fair sample.

    Blocks are rows that lie together, or columns of whole quantisation blocks that start on pages where the matrix
    allows it. One is at most 8 MB of float32, or one indivisible unit.

    Args:
        tensor: a matrix, or a convolution or expert stack with more axes.
        axis: the axis of length d.
        count: stop at so many vectors: rows then come in quarters of it, columns at once. Without it blocks are as
            large as they may be, and cover everything.

    Raises:
        LimitExceeded: the smallest block that can be read is over `Limits.tensor_bytes`.
    """
    unit = _unit_elements(tensor)
    smallest = 4 * tensor.shape[axis] * min(unit, math.prod(tensor.shape[axis + 1 :]))
    if smallest > Limits().tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of the smallest block", Limits().tensor_bytes, smallest)
    seen = 0
    for block in _tiles(tensor, axis, unit, count):
        yield block
        seen += block.n
        if count is not None and seen >= count:
            return


def strips(tensor: TensorInfo, axis: int, block: Block) -> Strips | None:
    """Return where a block lies in its source, or None for a tensor that is no byte range."""
    if not isinstance(tensor.storage, Extent):
        return None
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if not elements:
        where = f"{tensor.storage.source.name} @ {tensor.name}"
        raise FormatError("opaque-dtype", where, f"cannot decode {tensor.dtype}")
    d, inner = tensor.shape[axis], math.prod(tensor.shape[axis + 1 :])
    first, rows, columns = block.outer.start * d * inner, block.outer.stop - block.outer.start, block.inner
    start = tensor.storage.start
    if columns.stop - columns.start == inner:
        length = -(-rows * d * inner // elements) * unit
        return Strips(start + first // elements * unit, length, length, 1)
    stride = inner // elements * unit
    length = (columns.stop - columns.start) // elements * unit
    return Strips(start + (first + columns.start) // elements * unit, length, stride, rows * d)


def vectors(tensor: TensorInfo, axis: int, count: int | None = None) -> Iterator[Float32]:
    """Decode the vectors of a matrix along `axis`, block by block; arguments and LimitExceeded as for `blocks`.

    Yields:
        float32 arrays of shape (n, d), some of them transposed views.

    Raises:
        FormatError: the dtype cannot be decoded, or the tensor's bytes are too few.
        SourceError: the bytes cannot be had.
    """
    for block in blocks(tensor, axis, count):
        yield _vectors_of(tensor, axis, block)


def numbers(tensor: TensorInfo, data: bytes) -> Float32:
    """Decode stored bytes of a tensor whose elements take whole bytes; `data` need not be all of it."""
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if elements != 1:
        raise FormatError("opaque-dtype", tensor.name, f"cannot decode {tensor.dtype} element by element")
    return _decode_bytes(tensor, data, len(data) // unit)


def spread(n: int) -> Iterator[int]:
    """Yield 0 to n-1 in van der Corput order: every prefix is spread evenly over the range."""
    bits = (n - 1).bit_length()
    for i in range(1 << bits if n else 0):
        position = int(f"{i:0{bits}b}"[::-1], 2) if bits else 0
        if position < n:
            yield position


def _tiles(tensor: TensorInfo, axis: int, unit: int, count: int | None) -> Iterator[Block]:
    d, outer, inner = tensor.shape[axis], math.prod(tensor.shape[:axis]), math.prod(tensor.shape[axis + 1 :])
    if not d or not outer or not inner:
        return
    largest = max(1, _BLOCK_BYTES // (4 * d))
    if inner <= unit or inner <= min(9, largest):  # rows, or convolution kernels: whole runs along `outer`
        run = max(1, min(largest, -(-count // _PARTS) if count else largest) // inner)
        run -= run % 4 if run > 4 else 0  # so that packed rows start on a byte
        for piece in spread(-(-outer // run)):
            yield Block(slice(piece * run, min((piece + 1) * run, outer)), slice(0, inner))
        return
    width = max(unit, min(count or inner, max(1, _COLUMN_BYTES // (4 * d))) // unit * unit)
    edges = [0, *range(_to_page(tensor, width, inner) or width, inner, width), inner]
    pieces = len(edges) - 1
    for piece in spread(outer * pieces):
        plane, column = divmod(piece, pieces)
        column = (column + pieces // 2) % pieces  # from the middle: the first and the last are not whole
        yield Block(slice(plane, plane + 1), slice(edges[column], edges[column + 1]))


def _vectors_of(tensor: TensorInfo, axis: int, block: Block) -> Float32:
    shape, d = tensor.shape, tensor.shape[axis]
    n_outer, n_inner = block.outer.stop - block.outer.start, block.inner.stop - block.inner.start
    where = strips(tensor, axis, block)
    if where is not None:
        values = _decode_bytes(tensor, _stored(tensor, where), n_outer * d * n_inner).reshape(n_outer, d, n_inner)
    else:
        values = _read_slab(tensor, axis, block.outer, block.inner)
    if tensor.affine is not None:
        values = _apply_affine(values, tensor.affine, shape, axis, block.outer, block.inner)
    rows: Float32 = values.transpose(0, 2, 1).reshape(n_outer * n_inner, d)
    return rows


def _to_page(tensor: TensorInfo, width: int, inner: int) -> int:
    """Return how many columns to set apart so that all blocks of `width` columns after them lie on single pages."""
    storage = tensor.storage
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if not isinstance(storage, Extent) or not elements:
        return 0
    length, stride = width // elements * unit, inner // elements * unit
    shift = -storage.start % length
    return 0 if PAGE % length or stride % length or shift % unit else shift // unit * elements


def _stored(tensor: TensorInfo, where: Strips) -> Bytes:
    """Return the stored bytes of strips, one after the other."""
    storage = tensor.storage
    assert isinstance(storage, Extent)
    if where.start + (where.n - 1) * where.stride + where.length > storage.stop:
        raise FormatError("truncated", f"{storage.source.name} @ {tensor.name}", "the tensor's byte range is too short")
    read = storage.source.read_at
    if where.n == 1:
        return read(where.start, where.length)
    if where.joined(storage.source.gap).n > 1:
        return b"".join([read(where.start + i * where.stride, where.length) for i in range(where.n)])
    found = np.empty((where.n, where.length), np.uint8)
    rows = max(1, _BLOCK_BYTES // where.stride)
    for first in range(0, where.n, rows):
        n = min(rows, where.n - first)
        run = read(where.start + first * where.stride, (n - 1) * where.stride + where.length)
        together = np.lib.stride_tricks.as_strided(
            np.frombuffer(run, np.uint8), (n, where.length), (where.stride, 1), writeable=False
        )
        found[first : first + n] = together
    return found.reshape(-1)


def _decode_run(tensor: TensorInfo, start: int, length: int) -> Float32:
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    assert isinstance(tensor.storage, Extent)
    if not elements:
        where = f"{tensor.storage.source.name} @ {tensor.name}"
        raise FormatError("opaque-dtype", where, f"cannot decode {tensor.dtype}")
    n = -(-length // elements) * unit
    return _decode_bytes(
        tensor, _stored(tensor, Strips(tensor.storage.start + start // elements * unit, n, n, 1)), length
    )


def _decode_bytes(tensor: TensorInfo, data: Bytes, length: int) -> Float32:
    dtype, order = tensor.dtype, tensor.byteorder
    if dtype in _PLAIN:
        return np.frombuffer(data, np.dtype(order + _PLAIN[dtype])).astype(np.float32, copy=False)
    if dtype in _ML_DTYPES:
        return _decode_ml_dtype(data, dtype, order)
    if dtype in _PACKED:
        return _unpack(data, *_PACKED[dtype])[:length]
    decoder = ggml.decoder(dtype) if dtype in _BLOCK_TYPES and order == "<" else None
    if decoder is None:
        raise FormatError(
            "opaque-dtype", tensor.name, f"cannot decode {dtype} ({'big' if order == '>' else 'little'}-endian)"
        )
    return decoder(np.frombuffer(data, np.uint8).reshape(-1, UNITS[dtype][1])).reshape(-1)


def _decode_ml_dtype(data: Bytes, dtype: str, order: str) -> Float32:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
    stored = np.frombuffer(data, np.dtype(f"{order}u{kind.itemsize}"))
    values: Float32 = stored.astype(f"=u{kind.itemsize}", copy=False).view(kind).astype(np.float32)
    return values


def _unpack(data: Bytes, bits: int, signed: bool) -> Float32:
    """Unpack sub-byte integers, lowest bits first (ONNX "INT4"; formats.md section 3.5)."""
    stored = np.frombuffer(data, np.uint8)
    mask = (1 << bits) - 1
    fields = np.stack([(stored >> shift) & mask for shift in range(0, 8, bits)], axis=-1).reshape(-1).astype(np.float32)
    return np.where(fields > mask >> 1, fields - (mask + 1), fields).astype(np.float32) if signed else fields


def _unit_elements(tensor: TensorInfo) -> int:
    """Return the number of elements that a column block must be a multiple of."""
    if not isinstance(tensor.storage, Extent):
        return 1
    elements, _ = UNITS.get(tensor.dtype, (1, 1))
    last = tensor.shape[-1] if tensor.shape else 1
    if elements > 1 and last % elements:  # packed rows do not start on a byte: only whole runs can be read
        return max(tensor.size, 1)
    return elements


def _read_slab(tensor: TensorInfo, axis: int, outer: slice, inner: slice) -> Float32:
    """Slice a tensor that only a library can slice. Multi-axis outer/inner ranges are cut along their first axis."""
    assert not isinstance(tensor.storage, Extent)
    shape, d = tensor.shape, tensor.shape[axis]
    lead, lead_flat = _cover(shape[:axis], outer)
    tail, tail_flat = _cover(shape[axis + 1 :], inner)
    values = _to_float32(tensor.storage.read((*lead, slice(0, d), *tail)))
    n_lead = math.prod(s.stop - s.start for s in lead)
    n_tail = math.prod(s.stop - s.start for s in tail)
    return values.reshape(n_lead, d, n_tail)[lead_flat][:, :, tail_flat]


def _cover(shape: tuple[int, ...], flat: slice) -> tuple[tuple[slice, ...], slice]:
    """Return slices, one an axis, that cover the flat range, and where the range lies inside what they select."""
    if not shape:
        return (), flat
    inner = math.prod(shape[1:])
    first, last = flat.start // inner, -(-flat.stop // inner)
    rest = tuple(slice(0, n) for n in shape[1:])
    return (slice(first, last), *rest), slice(flat.start - first * inner, flat.stop - first * inner)


def _to_float32(values: NDArray[Any]) -> Float32:
    return np.asarray(values).astype(np.float32)


def _affine_arrays(affine: Affine, limits: Limits) -> tuple[Float32, Float32, int | None]:
    scale = read(affine.scale, limits).reshape(-1)
    zero = np.zeros(1, np.float32) if affine.zero_point is None else read(affine.zero_point, limits).reshape(-1)
    return scale, zero, affine.axis


def _along(values: Float32, axis: int | None, ndim: int) -> Float32:
    """Shape a per-tensor or per-slice parameter so that it broadcasts along `axis` of an array of `ndim` axes."""
    if values.size == 1 or axis is None:
        return values.reshape(-1)[:1].reshape((1,) * ndim)
    return values.reshape(tuple(-1 if i == axis % ndim else 1 for i in range(ndim)))


def _apply_affine(
    block: Float32, affine: Affine, shape: tuple[int, ...], axis: int, outer: slice, inner: slice
) -> Float32:
    """Dequantise a block of shape (outer, d, inner) whose parameters run along one axis of the stored tensor."""
    scale, zero, along = _affine_arrays(affine, Limits())

    def fit(values: Float32) -> Float32:
        if values.size == 1 or along is None:
            return values.reshape(-1)[:1].reshape(1, 1, 1)
        at = along % len(shape)
        if at == axis:
            return values.reshape(1, -1, 1)
        group = shape[:axis] if at < axis else shape[axis + 1 :]
        position = at if at < axis else at - axis - 1
        span = outer if at < axis else inner
        flat = np.arange(span.start, span.stop)
        chosen = values[np.unravel_index(flat, group)[position]]
        return chosen.reshape(-1, 1, 1) if at < axis else chosen.reshape(1, 1, -1)

    with np.errstate(over="ignore", invalid="ignore"):
        return ((block - fit(zero)) * fit(scale)).astype(np.float32, copy=False)
