"""Centred activations and their singular values. numpy only, float64 throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

ROUND_OFF = 1e-6
"""A singular value below this part of the largest one is a dead direction. Norms that compute in float32 whatever they
are given leave 1e-7 along an exact kernel, a float64 pass 1e-15. In the models here nothing else lies between 1e-10 and
1e-6, but a scale of MiniLM that has all but vanished."""

PRESERVED = (0.5, 2.0)
"""A block that leaves the smallest singular value within this factor preserves it (our choice)."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Eigenvalues of the covariance of activations.

    Attributes:
        eigenvalues: ascending, of the centred covariance, shape (d,).
        kernel: (k, d), the orthonormal eigenvectors whose singular value is below the round-off bound; that of the
            smallest one, k = 1, if there is none. The order of several is chance, so only their span counts.
        rows: activations seen.
    """

    eigenvalues: Float64
    kernel: Float64
    rows: int

    @property
    def bottom(self) -> Float64:
        """Unit eigenvector of the smallest eigenvalue."""
        bottom: Float64 = self.kernel[0]
        return bottom

    @property
    def median(self) -> float:
        """The median eigenvalue."""
        return float(np.median(self.eigenvalues))


def centre(activations: NDArray[Any]) -> Float64:
    """Subtract the mean row.

    Raises:
        ValueError: not a matrix with at least twice as many rows as columns (its small singular values would be those
            of the sample, not of the distribution), or not finite.
    """
    if activations.ndim != 2 or activations.shape[0] < 2 * activations.shape[1]:
        raise ValueError(f"(n, d) with n >= 2 d is needed, not {activations.shape}")
    if not np.isfinite(activations).all():
        raise ValueError("an activation is not finite")
    rows = activations.astype(np.float64)
    rows -= rows.mean(axis=0)
    return rows


def spectrum(activations: NDArray[Any]) -> Spectrum:
    """Return the spectrum of the centred covariance, from an SVD of the activations (never of the covariance)."""
    rows = centre(activations)
    # X = QR and R have the same singular values and right singular directions; R is d x d.
    _, singular, directions = np.linalg.svd(np.linalg.qr(rows, mode="r"))
    dead = max(1, int(np.count_nonzero(singular < ROUND_OFF * singular[0])))
    return Spectrum((singular**2 / len(rows))[::-1].copy(), directions[::-1][:dead].copy(), len(rows))


def singular_values(activations: NDArray[Any]) -> Float64:
    """Return the singular values of the centred activations over √n, ascending."""
    rows = centre(activations)
    values: Float64 = np.linalg.svd(np.linalg.qr(rows, mode="r"), compute_uv=False)[::-1] / math.sqrt(len(rows))
    return values


def variance_along(activations: NDArray[Any], direction: Float64) -> float:
    """Return the variance of the activations along a unit direction, from the projection itself.

    Through the covariance matrix, round-off of the largest eigenvalue would hide a value near zero.
    """
    projected = activations.astype(np.float64) @ direction
    return float(np.mean((projected - projected.mean()) ** 2))


def cosine(a: Float64, b: Float64) -> float:
    """Return |cos| between two directions."""
    return float(abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def cosine_to_span(a: Float64, span: Float64) -> float:
    """Return |cos| between a direction and its projection on the span of orthonormal rows."""
    return float(np.linalg.norm(span @ a) / np.linalg.norm(a))


def chance(v: Float64, bottom: Float64) -> float:
    """Return the |cos| that random signs on v would exceed once in twenty: 1.96 sqrt(Σ vᵢ² bᵢ²).

    The sign-flip null keeps |vᵢ|, so that two directions that are merely heavy at the same places do not look aligned.
    """
    norms = float(np.linalg.norm(v) * np.linalg.norm(bottom))
    return 1.96 * math.sqrt(float(np.sum(v**2 * bottom**2))) / norms


def energy_of_ones(activations: NDArray[Any]) -> tuple[float, float]:
    """Return the variance along **1** over its mean under random signs (the mean eigenvalue), and the null's spread."""
    rows = centre(activations)
    covariance = rows.T @ rows / len(rows)
    d, trace = len(covariance), float(np.trace(covariance))
    off_diagonal = float(np.sum(covariance**2) - np.sum(np.diag(covariance) ** 2))
    return variance_along(rows, np.full(d, d**-0.5)) * d / trace, math.sqrt(2 * max(off_diagonal, 0.0)) / trace


def below(eigenvalues: Float64, threshold: float) -> int:
    """Return how many eigenvalues lie below the threshold."""
    return int(np.count_nonzero(eigenvalues < threshold))


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


def steps(streams: Sequence[Float64]) -> Steps:
    """Compare the streams at the input of the first block and after every block.

    Args:
        streams: ascending singular values at each place.

    Raises:
        ValueError: fewer than two places, or a stream that is constant.
    """
    if len(streams) < 2:
        raise ValueError("at least one block is needed")
    live = [values[values > ROUND_OFF * values[-1]] for values in streams]
    if any(not len(values) for values in live):
        raise ValueError("a stream that is constant has no live singular value")
    smallest = [float(values[0]) for values in live]
    return Steps(
        tuple(after / before for before, after in pairwise(smallest)),
        tuple(len(values) - len(kept) for values, kept in zip(streams, live, strict=True)),
    )
