"""The rows of a tensor of plain floats as exact float64, block by block, however large it is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .. import decode
from ..checkpoint import TensorInfo
from ..dtypes import FLOATS, numpy_type
from ..errors import FormatError
from ..source.views import Extent

Float64 = NDArray[np.float64]


def count(tensor: TensorInfo) -> int:
    """Return the number of rows: vectors along the last axis."""
    return math.prod(tensor.shape[:-1])


def blocks(tensor: TensorInfo, most: int) -> Iterator[Float64]:
    """Yield all rows in their order, in blocks of shape (n, d) with n at most `most`.

    Raises:
        FormatError: it has no axis, or its values are no plain floats.
        SourceError: the bytes cannot be had.
    """
    if not tensor.shape or tensor.dtype not in FLOATS or tensor.affine is not None:
        raise FormatError("opaque-dtype", tensor.name, f"rows of plain floats are needed, not {tensor.dtype}")
    d, storage = tensor.shape[-1], tensor.storage
    if not isinstance(storage, Extent):
        for index in _pieces(tensor.shape[:-1], most):
            yield np.asarray(storage.read((*index, slice(0, d)))).astype(np.float64).reshape(-1, d)
        return
    unit = d * tensor.nbytes // max(tensor.size, 1)
    for first in range(0, count(tensor), most):
        n = min(most, count(tensor) - first)
        yield _float64(tensor, storage.source.read_at(storage.start + first * unit, n * unit)).reshape(n, d)


def _float64(tensor: TensorInfo, data: memoryview) -> Float64:
    if tensor.dtype == "F64":
        return np.frombuffer(data, numpy_type("F64", tensor.byteorder)).astype(np.float64)
    return decode.numbers(tensor, bytes(data)).astype(np.float64)


def _pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Cut the leading axes into ranges of at most `most` rows, in order."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    if inner > most:
        yield from ((slice(i, i + 1), *rest) for i in range(shape[0]) for rest in _pieces(shape[1:], most))
        return
    step, whole = max(1, most // max(inner, 1)), tuple(slice(0, n) for n in shape[1:])
    for first in range(0, shape[0], step):
        yield (slice(first, min(first + step, shape[0])), *whole)
