"""Medians and quantiles by numpy's sorting alone.

`np.median` and `np.quantile` give the same numbers; they import numpy's masked arrays, which take a 20th of a label.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def median(values: NDArray[np.floating[Any]]) -> Any:
    """Return the medians of shape (...) of finite or infinite values of shape (..., n), n > 0."""
    n = values.shape[-1]
    middle = slice((n - 1) // 2, n // 2 + 1)
    return np.partition(values, (middle.start, middle.stop - 1), axis=-1)[..., middle].mean(axis=-1)


def quantiles(values: NDArray[np.floating[Any]], *shares: float) -> list[float]:
    """Return quantiles of finite values of any shape, at least one, linear between two of them."""
    last = values.size - 1
    found = np.interp(np.multiply(shares, last), np.arange(values.size), np.sort(values, axis=None))
    return [float(one) for one in found]
