"""Stored bytes to float32: a small tensor whole, a matrix by samples. No matrix is converted whole.

A matrix is sampled as *vectors along one axis* (length d), in contiguous blocks spread evenly over the
others, so that few pages or ranges are touched: whole rows where the axis is the last one, column blocks
otherwise. `decode.blocks` says what a block is and where it lies, `vectors` decodes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..checkpoint import Affine, TensorInfo
from ..dtypes import ML_DTYPES, NUMPY, UNITS, numpy_type
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import Counted
from ..source.views import Extent
from . import ggml
from .blocks import BLOCK_BYTES, Block, Strips, blocks, strips

Float32 = NDArray[np.float32]
_Parameters: TypeAlias = tuple[Float32, Float32, int | None]  # scale, zero point, axis
Bytes: TypeAlias = memoryview | bytes | NDArray[np.uint8]

_PACKED = {"I4": (4, True), "U4": (4, False), "I2": (2, True), "U2": (2, False)}  # dtype -> (bits, signed)
_ELEMENTS, _BLOCK_ELEMENTS = 500, 100  # decoded in a step: two nanoseconds a plain number, ten for a packed one
_BLOCK_TYPES = frozenset(name for name, (elements, _) in UNITS.items() if elements >= 32)


def is_decodable(dtype: str) -> bool:
    """Whether values of this dtype can be turned into numbers here."""
    if dtype in NUMPY or dtype in ML_DTYPES or dtype in _PACKED:
        return True
    return dtype in _BLOCK_TYPES and ggml.decoder(dtype) is not None


def read(tensor: TensorInfo, limits: Limits) -> Float32:
    """Decode a whole small tensor.

    Returns:
        float32 array of ``tensor.shape``.

    Raises:
        LimitExceeded: the tensor is over ``limits.tensor_bytes``.
        FormatError: its dtype cannot be decoded.
    """
    if max(tensor.nbytes, tensor.size * 4) > limits.tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of a tensor", limits.tensor_bytes, max(tensor.nbytes, tensor.size * 4))
    with meter.held(tensor.nbytes + tensor.size * 4, "decoding"):
        if isinstance(tensor.storage, Extent):
            values = _decode_run(tensor, 0, tensor.size).reshape(tensor.shape)
        else:
            values = _to_float32(tensor.storage.read(tuple(slice(0, n) for n in tensor.shape)))
    if tensor.affine is not None:
        scale, zero, axis = _affine_arrays(tensor.affine, limits)
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged scale gives inf, which later steps refuse
            values = (values - _along(zero, axis, values.ndim)) * _along(scale, axis, values.ndim)
    return values.astype(np.float32, copy=False)


def exact(tensor: TensorInfo, limits: Limits) -> NDArray[np.float64]:
    """Decode a whole small tensor to float64 without rounding: as `read` does, but F64 is not narrowed on the way."""
    if tensor.dtype != "F64" or tensor.affine is not None:
        with meter.held(tensor.size * 8, "decoding"):
            return read(tensor, limits).astype(np.float64)
    if tensor.nbytes > limits.tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of a tensor", limits.tensor_bytes, tensor.nbytes)
    with meter.held(tensor.size * 16, "decoding"):
        if isinstance(tensor.storage, Extent):
            data = _stored(tensor, Strips(tensor.storage.start, tensor.size * 8, tensor.size * 8, 1))
            return np.frombuffer(data, numpy_type("F64", tensor.byteorder)).astype(np.float64).reshape(tensor.shape)
        return np.asarray(tensor.storage.read(tuple(slice(0, n) for n in tensor.shape))).astype(np.float64)


def vectors(tensor: TensorInfo, axis: int, limits: Limits, count: int | None = None) -> Iterator[Float32]:
    """Decode the vectors of a matrix along `axis`, block by block; arguments and LimitExceeded as for `blocks`.

    Yields:
        float32 arrays of shape (n, d), some of them transposed views.

    Raises:
        FormatError: the dtype cannot be decoded, or the tensor's bytes are too few.
        SourceError: the bytes cannot be had.
    """
    affine = None if tensor.affine is None else _affine_arrays(tensor.affine, limits)
    for block in blocks(tensor, axis, limits, count):
        yield _vectors_of(tensor, axis, block, affine)


def numbers(tensor: TensorInfo, data: bytes) -> Float32:
    """Decode stored bytes of a tensor whose elements take whole bytes; `data` need not be all of it."""
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if elements != 1:
        raise FormatError("opaque-dtype", tensor.name, f"cannot decode {tensor.dtype} element by element")
    return _decode_bytes(tensor, data, len(data) // unit)


def _vectors_of(tensor: TensorInfo, axis: int, block: Block, affine: _Parameters | None) -> Float32:
    shape, d = tensor.shape, tensor.shape[axis]
    n_outer, n_inner = block.outer.stop - block.outer.start, block.inner.stop - block.inner.start
    where = strips(tensor, axis, block)
    if where is not None:
        values = _decode_bytes(tensor, _stored(tensor, where), n_outer * d * n_inner).reshape(n_outer, d, n_inner)
    else:
        values = _read_slab(tensor, axis, block.outer, block.inner)
    if affine is not None:
        values = _apply_affine(values, affine, shape, axis, block.outer, block.inner)
    rows: Float32 = values.transpose(0, 2, 1).reshape(n_outer * n_inner, d)
    return rows


def _stored(tensor: TensorInfo, where: Strips) -> Bytes:
    """Return the stored bytes of strips: one after the other, or one a row of an array."""
    storage = tensor.storage
    assert isinstance(storage, Extent)
    if where.start + (where.n - 1) * where.stride + where.length > storage.stop:
        raise FormatError("truncated", f"{storage.source.name} @ {tensor.name}", "the tensor's byte range is too short")
    read = storage.source.read_at
    if where.n == 1:
        return read(where.start, where.length)
    if where.joined(storage.source.gap).n > 1:
        if isinstance(storage.source, Counted):
            return _strided(*storage.source.read_strips(where.start, where.length, where.stride, where.n), where)
        return b"".join([read(where.start + i * where.stride, where.length) for i in range(where.n)])
    found = np.empty((where.n, where.length), np.uint8)
    rows = max(1, BLOCK_BYTES // where.stride)
    for first in range(0, where.n, rows):
        n = min(rows, where.n - first)
        run = read(where.start + first * where.stride, (n - 1) * where.stride + where.length)
        found[first : first + n] = _strided(run, where.stride, Strips(where.start, where.length, where.stride, n))
    return found.reshape(-1)


def _strided(data: memoryview, stride: int, where: Strips) -> NDArray[np.uint8]:
    """Return the strips in what was read, (n, length); a view."""
    stored = np.frombuffer(data, np.uint8)
    if stored.size != (where.n - 1) * stride + where.length:  # as_strided does not ask what it looks at
        raise ValueError(f"{stored.size:,} bytes are not {where.n:,} strips of {where.length:,}, {stride:,} apart")
    return np.lib.stride_tricks.as_strided(stored, (where.n, where.length), (stride, 1), writeable=False)


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
    meter.charge(5 + length // (_ELEMENTS if dtype in NUMPY or dtype in ML_DTYPES else _BLOCK_ELEMENTS), "decoding")
    if dtype in NUMPY:
        return _to_float32(_viewed(data, numpy_type(dtype, order)))
    if dtype in ML_DTYPES:
        return _decode_ml_dtype(data, dtype, order)
    if dtype in _PACKED:
        return _unpack(data, *_PACKED[dtype])[:length]
    decoder = ggml.decoder(dtype) if dtype in _BLOCK_TYPES and order == "<" else None
    if decoder is None:
        raise FormatError(
            "opaque-dtype", tensor.name, f"cannot decode {dtype} ({'big' if order == '>' else 'little'}-endian)"
        )
    return decoder(np.ascontiguousarray(_viewed(data, np.dtype(np.uint8))).reshape(-1, UNITS[dtype][1])).reshape(-1)


def _viewed(data: Bytes, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return bytes, or strips of them, as numbers, without a copy."""
    return data.view(kind) if isinstance(data, np.ndarray) else np.frombuffer(data, kind)


def _decode_ml_dtype(data: Bytes, dtype: str, order: str) -> Float32:
    kind = numpy_type(dtype, "=")
    stored = _viewed(data, np.dtype(f"{order}u{kind.itemsize}"))
    return _to_float32(stored.astype(f"=u{kind.itemsize}", copy=False).view(kind))


def _unpack(data: Bytes, bits: int, signed: bool) -> Float32:
    """Unpack sub-byte integers, lowest bits first (ONNX "INT4"; norm-facts.md section 3.5)."""
    stored = _viewed(data, np.dtype(np.uint8)).reshape(-1)
    mask = (1 << bits) - 1
    fields = np.stack([(stored >> shift) & mask for shift in range(0, 8, bits)], axis=-1).reshape(-1).astype(np.float32)
    return np.where(fields > mask >> 1, fields - (mask + 1), fields).astype(np.float32) if signed else fields


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
    with np.errstate(all="ignore"):  # 1e300 becomes inf, which later steps leave out
        return np.asarray(values).astype(np.float32, copy=False)


def _affine_arrays(affine: Affine, limits: Limits) -> _Parameters:
    scale = read(affine.scale, limits).reshape(-1)
    zero = np.zeros(1, np.float32) if affine.zero_point is None else read(affine.zero_point, limits).reshape(-1)
    return scale, zero, affine.axis


def _along(values: Float32, axis: int | None, ndim: int) -> Float32:
    """Shape a per-tensor or per-slice parameter so that it broadcasts along `axis` of an array of `ndim` axes."""
    if values.size == 1 or axis is None:
        return values.reshape(-1)[:1].reshape((1,) * ndim)
    return values.reshape(tuple(-1 if i == axis % ndim else 1 for i in range(ndim)))


def _apply_affine(
    block: Float32, affine: _Parameters, shape: tuple[int, ...], axis: int, outer: slice, inner: slice
) -> Float32:
    """Dequantise a block of shape (outer, d, inner) whose parameters run along one axis of the stored tensor."""
    scale, zero, along = affine

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
