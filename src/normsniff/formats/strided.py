"""Tensors that do not lie in a file in one row-major piece: transposed views, and arrays cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..dtypes import UNITS, numpy_type
from ..source.local import PAGE
from ..source.views import Extent


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements `strides` apart lie as a row-major array of this shape does."""
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True


def reach(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many elements of storage a view touches, from its first to its last."""
    return 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if math.prod(shape) else 0


@dataclass(frozen=True, slots=True)
class Strided:
    """A view whose axes are steps through an extent; only the strips that are asked for are read.

    Attributes:
        extent: bytes that hold every element of the view, from the first one on.
        dtype: a key of `UNITS` with one element a unit.
        strides: elements from one position to the next, one an axis, none negative.
        byteorder: of the stored numbers.
    """

    extent: Extent
    dtype: str
    strides: tuple[int, ...]
    byteorder: str = "<"

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index`."""
        shape = tuple(len(range(one.start, one.stop, one.step or 1)) for one in index)
        first = sum(one.start * stride for one, stride in zip(index, self.strides, strict=True))
        strides = tuple(stride * (one.step or 1) for one, stride in zip(index, self.strides, strict=True))
        if not math.prod(shape):
            return np.empty(shape, numpy_type(self.dtype, self.byteorder))
        return self._gather(first, shape, strides)

    def _gather(self, first: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
        span, width = reach(shape, strides), UNITS[self.dtype][1]
        if span * width > 2 * math.prod(shape) * width + PAGE:  # strips along the axis of the longest steps
            axis = max(range(len(shape)), key=lambda i: strides[i] if shape[i] > 1 else -1)
            rest = (*shape[:axis], 1, *shape[axis + 1 :])
            meter.charge(4 * shape[axis], "gathering strips of a view")
            strips = [self._gather(first + i * strides[axis], rest, strides) for i in range(shape[axis])]
            return np.concatenate(strips, axis=axis)
        start = self.extent.start + first * width
        if start + span * width > self.extent.stop:
            raise ValueError("a view reaches beyond its storage")
        flat = np.frombuffer(self.extent.source.read_at(start, span * width), numpy_type(self.dtype, self.byteorder))
        return np.lib.stride_tricks.as_strided(
            flat, shape, tuple(stride * width for stride in strides), writeable=False
        )
