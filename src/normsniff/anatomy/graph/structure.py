"""Square matrices that average: aI + b11ᵀ. A mean over the channels, or the subtraction of one, may be written so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...decode import is_decodable, vectors
from ...limits import Limits
from .view import GraphView

_NEAR = 1e-3  # of the largest entry: far above the rounding of float16, far below what training leaves in a row
_ROWS = 2  # that are looked at; the probe reads the rest before it believes anything


def averages(view: GraphView, value: str, limits: Limits) -> bool:
    """Whether a stored square matrix averages, judged on two of its rows: some kilobytes are read."""
    weight = view.weight(value)
    if weight is None or weight.offset or not is_decodable(weight.tensor.dtype):
        return False
    axis = max((a for a, n in enumerate(weight.tensor.shape) if n > 1), default=0)
    rows = next(vectors(weight.tensor, axis, limits, _ROWS), None)
    return rows is not None and is_average(rows[:_ROWS])


def is_average(rows: NDArray[Any]) -> bool:
    """Whether these are rows of aI + b11ᵀ with b ≠ 0: all entries but one are the same number in all of them."""
    if rows.ndim != 2 or rows.shape[1] < 3:
        return False
    near = _NEAR * float(np.abs(rows).max())
    middle = float(np.median(rows))
    return abs(middle) > 0 and bool(((np.abs(rows - middle) > near).sum(axis=1) <= 1).all())
