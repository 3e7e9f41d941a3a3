"""Stored bytes to float32: a small tensor whole, a matrix by samples. No matrix is converted whole.

A matrix is sampled as *vectors along one axis* (length d), in contiguous blocks spread evenly over the
others, so that few pages or ranges are touched: whole rows where the axis is the last one, column blocks
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError, LimitExceeded
from .formats.checkpoint import UNITS, Affine, Extent, TensorInfo
from .limits import Limits

Float32 = NDArray[np.float32]

_PLAIN = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_PACKED = {"I4": (4, True), "U4": (4, False), "I2": (2, True), "U2": (2, False)}  # dtype -> (bits, signed)
_BLOCK_BYTES = 1 << 23  # of float32 at once: bounds memory whatever the tensor's size
_BLOCK_ROWS = 256  # eight blocks or fewer make a sample, each long enough to be one read
_BLOCK_COLUMNS = 512  # a row of a column block is then 1 KB of BF16: below a page, every read costs a page anyway
_BLOCK_TYPES = frozenset(name for name, (elements, _) in UNITS.items() if elements >= 32)


def is_decodable(dtype: str) -> bool:
    """Whether values of this dtype can be turned into numbers here."""
    if dtype in _PLAIN or dtype in _ML_DTYPES or dtype in _PACKED:
        return True
    return dtype in _BLOCK_TYPES and _block_decoder(dtype) is not None


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


def vectors(tensor: TensorInfo, axis: int) -> Iterator[Float32]:
    """Yield all vectors that run along `axis`, in blocks of shape (n, d), so that every prefix is a fair sample.

    Blocks are contiguous (rows, or column blocks of whole pages or quantisation blocks) and come spread over the
    matrix; stop iterating when enough were seen, and no more is read. A block is at most 8 MB of float32,
    or one indivisible unit.

    Args:
        tensor: a matrix, or a convolution or expert stack with more axes.
        axis: the axis of length d.

    Raises:
        LimitExceeded: the smallest block that can be read is over `Limits.tensor_bytes`.
        FormatError: the dtype cannot be decoded.
        SourceError: the bytes cannot be had.
    """
    unit = _unit_elements(tensor)
    smallest = 4 * tensor.shape[axis] * min(unit, math.prod(tensor.shape[axis + 1 :]))
    if smallest > Limits().tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of the smallest block", Limits().tensor_bytes, smallest)
    for outer, inner in _blocks(tensor.shape, axis, unit):
        yield _vector_block(tensor, axis, outer, inner)


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


def _blocks(shape: tuple[int, ...], axis: int, unit: int) -> Iterator[tuple[slice, slice]]:
    """Choose blocks of (outer, inner) positions; a vector is one outer index, the whole axis, one inner index."""
    d, outer, inner = shape[axis], math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if not d or not outer or not inner:
        return
    largest = max(1, _BLOCK_BYTES // (4 * d))
    if inner <= unit or inner <= min(
        9, largest
    ):  # rows, or convolution kernels: whole runs along `outer`, contiguous on disk
        run = max(1, min(_BLOCK_ROWS, largest) // inner)
        for piece in spread(-(-outer // run)):
            yield slice(piece * run, min((piece + 1) * run, outer)), slice(0, inner)
        return
    width = max(unit, min(_BLOCK_COLUMNS, largest) // unit * unit)
    columns = -(-inner // width)
    for piece in spread(outer * columns):
        plane, column = divmod(piece, columns)
        yield slice(plane, plane + 1), slice(column * width, min((column + 1) * width, inner))


def _vector_block(tensor: TensorInfo, axis: int, outer: slice, inner: slice) -> Float32:
    shape = tensor.shape
    d, inner_size = shape[axis], math.prod(shape[axis + 1 :])
    n_outer, n_inner = outer.stop - outer.start, inner.stop - inner.start
    if isinstance(tensor.storage, Extent):
        if n_inner == inner_size:
            flat = _decode_run(tensor, outer.start * d * inner_size, n_outer * d * inner_size)
        else:
            flat = _decode_strips(tensor, (outer.start * d * inner_size) + inner.start, n_inner, inner_size, d)
        block = flat.reshape(n_outer, d, n_inner)
    else:
        block = _read_slab(tensor, axis, outer, inner)
    if tensor.affine is not None:
        block = _apply_affine(block, tensor.affine, shape, axis, outer, inner)
    return np.ascontiguousarray(block.transpose(0, 2, 1).reshape(n_outer * n_inner, d))


def _decode_strips(tensor: TensorInfo, start: int, length: int, stride: int, count: int) -> Float32:
    """Decode `count` strips of `length` elements that lie `stride` elements apart."""
    strips = [_raw(tensor, start + i * stride, length) for i in range(count)]
    return _decode_bytes(tensor, b"".join(strips), count * length)


def _decode_run(tensor: TensorInfo, start: int, length: int) -> Float32:
    return _decode_bytes(tensor, _raw(tensor, start, length), length)


def _raw(tensor: TensorInfo, start: int, length: int) -> memoryview:
    """Return the stored bytes of `length` elements from element `start`; both on unit boundaries."""
    storage = tensor.storage
    assert isinstance(storage, Extent)
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if not elements:
        raise FormatError("opaque-dtype", f"{storage.source.name} @ {tensor.name}", f"cannot decode {tensor.dtype}")
    first, n = start // elements * unit, -(-length // elements) * unit
    if first + n > storage.stop - storage.start:
        raise FormatError("truncated", f"{storage.source.name} @ {tensor.name}", "the tensor's byte range is too short")
    return storage.source.read_at(storage.start + first, n)


def _decode_bytes(tensor: TensorInfo, data: memoryview | bytes, length: int) -> Float32:
    dtype, order = tensor.dtype, tensor.byteorder
    if dtype in _PLAIN:
        return np.frombuffer(data, np.dtype(order + _PLAIN[dtype])).astype(np.float32)
    if dtype in _ML_DTYPES:
        return _decode_ml_dtype(data, dtype, order)
    if dtype in _PACKED:
        return _unpack(data, *_PACKED[dtype])[:length]
    decoder = _block_decoder(dtype) if dtype in _BLOCK_TYPES and order == "<" else None
    if decoder is None:
        raise FormatError(
            "opaque-dtype", tensor.name, f"cannot decode {dtype} ({'big' if order == '>' else 'little'}-endian)"
        )
    dequantize, qtype = decoder
    blocks = np.frombuffer(data, np.uint8).reshape(1, -1)
    values: Float32 = np.asarray(dequantize(blocks, qtype), dtype=np.float32).reshape(-1)
    return values


def _decode_ml_dtype(data: memoryview | bytes, dtype: str, order: str) -> Float32:
    import ml_dtypes

    if dtype == "BF16":
        stored = np.frombuffer(data, np.dtype(order + "u2"))
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))).astype(np.float32)


def _unpack(data: memoryview | bytes, bits: int, signed: bool) -> Float32:
    """Unpack sub-byte integers, lowest bits first (ONNX "INT4"; formats.md section 3.5)."""
    stored = np.frombuffer(data, np.uint8)
    mask = (1 << bits) - 1
    fields = np.stack([(stored >> shift) & mask for shift in range(0, 8, bits)], axis=-1).reshape(-1).astype(np.float32)
    return np.where(fields > mask >> 1, fields - (mask + 1), fields).astype(np.float32) if signed else fields


@cache
def _block_decoder(dtype: str) -> tuple[Any, Any] | None:
    """Return gguf's numpy dequantiser and its type id, or None if that package cannot decode the type."""
    import gguf
    from gguf import quants

    qtype = gguf.GGMLQuantizationType.__members__.get(dtype)
    if qtype is None:
        return None
    _, unit = UNITS[dtype]
    try:  # one zero block: the cheapest way to ask whether a decoder exists
        quants.dequantize(np.zeros((1, unit), np.uint8), qtype)
    except NotImplementedError:
        return None
    return quants.dequantize, qtype


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
