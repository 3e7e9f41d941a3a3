"""How activations spread: singular values and directions of their centred rows, block by block.

A covariance matrix would square the singular values and lose all below 10⁻⁸ of the largest in round-off. So no
covariance is formed: what is kept of the rows is R of their QR decomposition, which has the same singular values and
right singular vectors at full precision, and the R of two blocks together is that of one on top of the other ("TSQR":
Demmel, Grigori, Hoemmen, Langou, "Communication-optimal parallel and sequential QR and LU factorizations", SIAM J. Sci.
Comput. 34, 2012). Centring costs one more row: the distance between the two means (Chan, Golub, LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", 1979).

The code keeps to the array API standard with its `linalg` extension, so that numpy, CuPy and torch arrays run through
it unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .namespaces import namespace, to_numpy

Float64 = NDArray[np.float64]

ROUND_OFF = 1e-6
"""A singular value below this part of the largest one is a dead direction. Norms that compute in float32 leave 1e-7
along an exact kernel, a float64 pass 1e-15; in the models of docs/paper.md nothing else lies between 1e-10 and 1e-6,
but a scale of MiniLM that has all but vanished."""

PRESERVED = (0.5, 2.0)
"""A block that leaves the smallest singular value within this factor preserves it (our choice)."""


@dataclass(frozen=True, slots=True)
class Triangle:
    """What is kept of any number of rows of length d. Triangles of blocks of rows add up.

    Attributes:
        rows: how many were seen.
        mean: their mean, float64 of shape (d,).
        r: R of the QR decomposition of the centred rows, float64 of shape (min(rows, d), d).
    """

    rows: int
    mean: Any
    r: Any

    def __add__(self, other: Triangle) -> Triangle:
        xp = namespace(self.r, other.r)
        rows = self.rows + other.rows
        moved = other.mean - self.mean
        between = xp.expand_dims(moved * math.sqrt(self.rows / rows * other.rows), axis=0)
        stacked = xp.concat([self.r, other.r, between], axis=0)
        return Triangle(rows, self.mean + moved * (other.rows / rows), _r(xp, stacked))


def triangle(rows: Any) -> Triangle:
    """Return the triangle of one block.

    Args:
        rows: real floating array of shape (n, d) or with more axes before the last, n ≥ 1, any array-API namespace.

    Raises:
        ValueError: fewer than two axes, no row, or a value that is not finite.
    """
    xp = namespace(rows)
    if rows.ndim < 2 or 0 in rows.shape:
        raise ValueError(f"rows of activations are needed, not shape {tuple(rows.shape)}")
    rows = xp.astype(xp.reshape(rows, (-1, rows.shape[-1])), xp.float64)
    mean = xp.mean(rows, axis=0)
    if not bool(xp.all(xp.isfinite(mean))):
        raise ValueError("an activation is not finite")
    return Triangle(rows.shape[0], mean, _r(xp, rows - mean))


def _r(xp: Any, rows: Any) -> Any:
    """R of the QR decomposition; numpy alone can leave Q out, which halves the cost."""
    return np.linalg.qr(rows, mode="r") if xp is np else xp.linalg.qr(rows)[1]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values and directions of centred rows.

    Attributes:
        rows: how many rows were seen.
        singular: singular values over √rows, that is, standard deviations, ascending; float64 of shape (d,).
        directions: the right singular vectors, one a row, in the same order; float64 of shape (d, d).
        r: the R that they are those of, over √rows.
    """

    rows: int
    singular: Float64
    directions: Float64
    r: Float64

    @property
    def median(self) -> float:
        """The median eigenvalue of the covariance."""
        return float(np.median(self.singular**2))

    def below(self, threshold: float) -> int:
        """How many singular values are below `threshold` times the largest."""
        return int(np.count_nonzero(self.singular < threshold * self.singular[-1]))

    def variance_along(self, direction: Float64) -> float:
        """The variance of the rows along a unit direction of shape (d,)."""
        return float(np.sum((self.r @ direction) ** 2))


def spectrum(found: Triangle) -> Spectrum:
    """Return the spectrum of the rows that a triangle stands for.

    Raises:
        ValueError: fewer than twice as many rows as columns: their smallest singular values would be those of the
            sample, not of the network.
    """
    r = to_numpy(found.r) / math.sqrt(found.rows)
    d = r.shape[1]
    if found.rows < 2 * d:
        raise ValueError(f"{found.rows:,} rows of length {d:,}: at least {2 * d:,} are needed")
    _, singular, directions = np.linalg.svd(r)
    return Spectrum(found.rows, singular[::-1], directions[::-1], r)


def cosine_to_span(direction: Float64, span: Float64) -> float:
    """Return |cos| between a direction of shape (d,) and its projection on the span of orthonormal rows (k, d)."""
    return min(1.0, float(np.linalg.norm(span @ direction) / np.linalg.norm(direction)))


def chance(v: Float64, bottom: Float64) -> float:
    """Return the |cos| that random signs on v would exceed once in twenty: 1.96 sqrt(Σ vᵢ² bᵢ²).

    The sign-flip null keeps |vᵢ|, so that two directions that are merely heavy at the same places do not look aligned.
    """
    norms = float(np.linalg.norm(v) * np.linalg.norm(bottom))
    return 1.96 * math.sqrt(float(np.sum(v**2 * bottom**2))) / norms


@dataclass(frozen=True, slots=True)
class Steps:
    """How the smallest live singular value of the residual stream moves from block to block.

    Attributes:
        ratios: output over input, one a block.
        dead: singular values under the round-off bound, at the input and after each block.
    """

    ratios: tuple[float, ...]
    dead: tuple[int, ...]

    @property
    def exceptions(self) -> tuple[int, ...]:
        """Blocks (from 0) that do not preserve it, or after which more directions are dead."""
        low, high = PRESERVED
        return tuple(i for i, ratio in enumerate(self.ratios) if not low <= ratio <= high or self.died(i))

    def died(self, block: int) -> int:
        """How many directions die in a block."""
        return max(0, self.dead[block + 1] - self.dead[block])


def steps(streams: Sequence[Float64], threshold: float = ROUND_OFF) -> Steps:
    """Compare the streams at the input of the first block and after every block.

    Args:
        streams: ascending singular values at each place.
        threshold: a singular value below this part of the largest one is dead.

    Raises:
        ValueError: fewer than two places, or a stream that is constant.
    """
    if len(streams) < 2:
        raise ValueError("at least one block is needed")
    live = [values[values > threshold * values[-1]] for values in streams]
    if any(not len(values) for values in live):
        raise ValueError("a stream that is constant has no live singular value")
    smallest = [float(values[0]) for values in live]
    return Steps(
        tuple(after / before for before, after in pairwise(smallest)),
        tuple(len(values) - len(kept) for values, kept in zip(streams, live, strict=True)),
    )
