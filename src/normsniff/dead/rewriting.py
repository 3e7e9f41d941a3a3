"""Weights without their energy along some directions: the arithmetic and the bytes of a rewrite, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..checkpoint import TensorInfo
from ..decode import rows
from ..decode.rows import Float64
from ..dtypes import numpy_type
from ..errors import Refused

_BLOCK = 4_000_000  # numbers at once, 32 MB as float64


@dataclass(frozen=True, slots=True)
class Removal:
    """M becomes M - (M·Vᵀ)V along one axis.

    Attributes:
        tensor: a matrix of plain floats, or a vector.
        axis: the axis of length d.
        basis: V, orthonormal rows, float64 of shape (k, d).
    """

    tensor: TensorInfo
    axis: int
    basis: Float64

    @property
    def redundant(self) -> int:
        """How many parameters the rewritten tensor has fewer of, effectively."""
        return self.tensor.size // self.tensor.shape[self.axis] * len(self.basis)

    def components(self) -> Float64:
        """M·Vᵀ, float64 of shape (other axis, k)."""
        if self._runs_along_rows:
            return np.concatenate([block @ self.basis.T for block in self._blocks()])
        found = np.zeros((self.tensor.shape[1], len(self.basis)))
        first = 0
        for block in self._blocks():
            found += block.T @ self.basis[:, first : first + len(block)].T
            first += len(block)
        return found

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the rewritten tensor."""
        removed = self.components()
        first = 0
        for block in self._blocks():
            here = slice(first, first + len(block))
            less = removed[here] @ self.basis if self._runs_along_rows else self.basis[:, here].T @ removed.T
            yield _encode(self.tensor, block - less)
            first += len(block)

    @property
    def _runs_along_rows(self) -> bool:
        return self.axis == len(self.tensor.shape) - 1

    def _blocks(self) -> Iterator[Float64]:
        for block in rows.blocks(self.tensor, max(1, _BLOCK // self.tensor.shape[-1])):
            yield _finite(self.tensor, block)


@dataclass(frozen=True, slots=True)
class Compensation:
    """A bias takes over the constant that a reader loses: b becomes b + (W·Vᵀ)(Vβ).

    Attributes:
        tensor: the bias, of shape (n,).
        reader: what is removed from the matrix.
        constant: Vβ, float64 of shape (k,).
    """

    tensor: TensorInfo
    reader: Removal
    constant: Float64

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the rewritten tensor."""
        (bias,) = rows.blocks(self.tensor, 1)
        more = self.reader.components() @ self.constant
        yield _encode(self.tensor, _finite(self.tensor, bias[0]) + more)


def _finite(tensor: TensorInfo, values: Float64) -> Float64:
    if not np.isfinite(values).all():
        raise Refused(tensor.name, "a value is not finite, or would not be")
    return values


def _encode(tensor: TensorInfo, values: Float64) -> bytes:
    """Round to the little-endian stored type, to nearest."""
    with np.errstate(over="ignore"):
        rounded = values.astype(numpy_type(tensor.dtype))
    return _finite(tensor, rounded).tobytes()
