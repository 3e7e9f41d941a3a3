"""Centred activations and their singular values. numpy only, float64 throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normsniff.kernel import spectrum as library
from normsniff.kernel.spectrum import PRESERVED, ROUND_OFF, Steps, chance, cosine_to_span, steps

__all__ = ["PRESERVED", "ROUND_OFF", "Steps", "chance", "cosine_to_span", "steps"]  # used by name from here

Float64 = NDArray[np.float64]


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
    return library.spectrum(library.triangle(activations)).singular


def variance_along(activations: NDArray[Any], direction: Float64) -> float:
    """Return the variance of the activations along a unit direction, from the projection itself.

    Through the covariance matrix, round-off of the largest eigenvalue would hide a value near zero.
    """
    projected = activations.astype(np.float64) @ direction
    return float(np.mean((projected - projected.mean()) ** 2))


def cosine(a: Float64, b: Float64) -> float:
    """Return |cos| between two directions."""
    return float(abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


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
