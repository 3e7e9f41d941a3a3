"""Weights that an OpenVINO graph unpacks itself: Const -> Convert -> Subtract -> Multiply, per channel or in groups."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...checkpoint import Affine, TensorInfo
from ...decode.values import read as decode_tensor
from ...dtypes import UNITS
from ...limits import Limits
from ...source.local import BytesSource
from ...source.views import Extent

_PARAMETERS = 4  # times Limits.tensor_bytes: scales of a 150k-token table take 80 MB as float32


class GroupSlab:
    """A matrix of rows that are cut into groups, each with a scale and perhaps a zero point of its own."""

    def __init__(self, packed: TensorInfo, scale: TensorInfo, zero: TensorInfo | None, limits: Limits) -> None:
        self._limits = replace(limits, tensor_bytes=_PARAMETERS * limits.tensor_bytes)
        rows, self._groups, self._group = packed.shape
        self.shape = (rows, self._groups * self._group)
        self._packed, self._scale, self._zero = packed, scale, zero
        elements, unit = UNITS[packed.dtype]
        self._bytes = self._group * unit // elements

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return rows and columns as float32; only the groups that they touch are read."""
        rows, columns = (range(*s.indices(n)) for s, n in zip((*index, slice(None))[:2], self.shape, strict=True))
        first, last = columns.start // self._group, -(-columns.stop // self._group)
        stored = self._stored(rows, first, last)
        cut = np.s_[rows.start : rows.stop, first:last, None]
        with np.errstate(over="ignore", invalid="ignore"):  # hostile scales give infinities, which are reported later
            if self._zero is not None:
                stored = stored - self._parameters(self._zero)[cut]
            values = (stored * self._parameters(self._scale)[cut]).reshape(len(rows), -1)
        cropped: NDArray[Any] = values[:, columns.start - first * self._group : columns.stop - first * self._group]
        return cropped

    def _stored(self, rows: range, first: int, last: int) -> NDArray[Any]:
        storage = self._packed.storage
        assert isinstance(storage, Extent)
        row, width = self._groups * self._bytes, (last - first) * self._bytes
        whole = [(rows.start * row, len(rows) * row)] if last - first == self._groups else None
        runs = whole or [(n * row + first * self._bytes, width) for n in rows]
        data = b"".join(storage.source.read_at(storage.start + at, n) for at, n in runs)
        shape = (len(rows), last - first, self._group)
        return decode_tensor(
            TensorInfo("", self._packed.dtype, shape, Extent(BytesSource(data), 0, len(data))), self._limits
        )

    def _parameters(self, tensor: TensorInfo) -> NDArray[Any]:
        values = decode_tensor(tensor, self._limits)
        grid = (self.shape[0], self._groups)
        return np.broadcast_to(values.reshape(grid if values.size > 1 else (1, 1)), grid)


def dequantised(packed: TensorInfo, scale: TensorInfo, zero: TensorInfo | None, limits: Limits) -> TensorInfo | None:
    """Return the weight that ``(packed - zero) * scale`` is, or None if the parameters run along several axes."""
    shape, others = packed.shape, [tensor for tensor in (scale, zero) if tensor is not None]
    sizes = {tensor.size for tensor in others}
    if sizes == {1}:
        return msgspec.structs.replace(packed, affine=Affine(scale, zero, None))
    for axis, n in enumerate(shape):
        if all(tensor.size == 1 or _runs_along(tensor.shape, shape, axis) for tensor in others) and sizes <= {1, n}:
            return msgspec.structs.replace(packed, affine=Affine(scale, zero, axis))
    if len(shape) != 3 or not isinstance(packed.storage, Extent) or not sizes <= {1, shape[0] * shape[1]}:
        return None
    elements, _ = UNITS[packed.dtype]
    if not math.prod(shape) or shape[2] % elements or any(t.size > 1 and t.shape[-1:] != (1,) for t in others):
        return None
    slab = GroupSlab(packed, scale, zero, limits)
    return TensorInfo(packed.name, packed.dtype, slab.shape, slab)


def _runs_along(parameter: tuple[int, ...], shape: tuple[int, ...], axis: int) -> bool:
    """Whether a parameter broadcasts against `shape` with nothing but `axis` longer than 1."""
    aligned = (1,) * (len(shape) - len(parameter)) + parameter
    return len(aligned) == len(shape) and all(n == (shape[i] if i == axis else 1) for i, n in enumerate(aligned))
