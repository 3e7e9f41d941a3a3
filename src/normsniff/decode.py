"""Stored bytes to float32: a small tensor whole, a matrix by samples. No matrix is converted whole.

A matrix is sampled as *vectors along one axis* (length d), in contiguous blocks spread evenly over the
others, so that few pages or ranges are touched: whole rows where the axis is the last one, column blocks
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
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
        values = (values - _along(zero, axis, values.ndim)) * _along(scale, axis, values.ndim)
    return values.astype(np.float32, copy=False)
