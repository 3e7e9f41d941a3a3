"""The mathematics of the dead direction. Arrays in, numbers out; no file is known here.

For LN(x) = γ⊙x̂ + β the normalised x̂ has no component along **1**, so v = γ⁻¹/‖γ⁻¹‖ satisfies
vᵀ(LN(x) - β) = 0 for every x (Shirodkar & Narayanan, "Algebraic Dead Directions in LayerNorm Transformers",
arXiv 2606.19491). Training therefore puts little energy along v into the matrices that read LN(x), and little along
**1** into those that write into x. `shadow` measures that deficit.

The code keeps to the array API standard, so that numpy, CuPy and torch arrays run through it unchanged.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from .namespaces import namespace
from .projections import Projections, projected

DRAWS = 64
"""Sign flips behind z. The mean of the null is exact and needs none, so they only estimate its spread (to 9 %)."""


_LEAST_ENERGY = 1e-20
"""A sum of squares below this has lost some to float32's underflow (1e-38); real weights are above by many orders."""

_ALIGNED_VECTORS, _ALIGNED_OF_LARGE, _LARGE_BLOCK = 128, 16, 1 << 18
"""Vectors of a block that enter the alignment, those of a large one, and numbers in a large one. The cost grows with
their square, and more would cost more than the rest of the statistic; the blocks of a matrix add up."""


class ScaleKernel(msgspec.Struct, frozen=True):
    """The kernel that a scale γ of length d gives a LayerNorm.

    Attributes:
        vector: γ⁻¹/‖γ⁻¹‖, float64 of shape (d,), in the namespace of the input; None if some γᵢ is zero.
        dead: indices i with γᵢ = 0. If there are any, the kernel is spanned by those coordinates
            and the others are not tied by a zero sum.
        condition: max|γ| / min|γ| over the non-zero entries; inf if all are zero.
        cosine: |cos| between the vector and **1**; None if there is no vector.
        power: participation ratio of the vector over d, in (0, 1]. Near 1/d the vector is one coordinate: exact,
            but with no statistical power. 0 if there is no vector.
    """

    vector: Any
    dead: tuple[int, ...]
    condition: float
    cosine: float | None
    power: float


def dead_direction(scale: Any) -> ScaleKernel:
    """Return the dead direction of a LayerNorm with effective scale γ.

    Args:
        scale: γ, real array of shape (d,), d ≥ 1, any array-API namespace. It must be the effective scale
            (1 + w where the file stores w).

    Raises:
        ValueError: not one axis, empty, or with a value that is not finite.
    """
    xp = namespace(scale)
    if scale.ndim != 1 or scale.shape[0] == 0:
        raise ValueError(f"a scale has one axis and at least one entry, not shape {tuple(scale.shape)}")
    gamma = xp.astype(scale, xp.float64)
    if not bool(xp.all(xp.isfinite(gamma))):
        raise ValueError("the scale holds a value that is not finite")
    size = xp.abs(gamma)
    alive = size > 0
    dead = () if bool(xp.all(alive)) else tuple(i for i, ok in enumerate(_to_list(alive)) if not ok)
    if len(dead) == scale.shape[0]:
        return ScaleKernel(None, dead, math.inf, None, 0.0)
    largest = float(xp.max(size))
    smallest = float(xp.min(xp.where(alive, size, xp.full_like(size, largest))))
    condition = largest / smallest
    if dead:
        return ScaleKernel(None, dead, condition, None, 0.0)
    inverse = smallest / gamma  # in [-1, 1]: 1/γ itself may overflow
    inverse = inverse / xp.sqrt(xp.sum(inverse * inverse))
    d = scale.shape[0]
    cosine = abs(float(xp.sum(inverse))) / math.sqrt(d)
    power = 1.0 / (d * float(xp.sum(inverse**4)))
    return ScaleKernel(inverse, (), condition, min(cosine, 1.0), min(power, 1.0))


class ShadowEnergy(msgspec.Struct, frozen=True):
    """Energy of a matrix along a direction, against the sign-flip null. Shadows of blocks of one matrix add up.

    Attributes:
        energy: ‖M·v‖² over the vectors seen.
        expected: its mean over all sign flips of v, which is Σᵢ vᵢ²‖mᵢ‖² exactly.
        flips: the energy along each random sign flip of v.
        vectors: how many vectors of length d were seen.
        residual_sums: Σe², Σex and Σx² over the vectors, with e a vector's energy and x its expectation.
        norm_sums: Σ‖m‖² and Σ‖m‖⁴ over the vectors.
        cosine_sums: Σcos² over pairs of vectors, and the number of pairs.
        d: length of the vectors.
    """

    energy: float
    expected: float
    flips: tuple[float, ...]
    vectors: int
    residual_sums: tuple[float, float, float]
    norm_sums: tuple[float, float]
    cosine_sums: tuple[float, float]
    d: int

    def __add__(self, other: ShadowEnergy) -> ShadowEnergy:
        return ShadowEnergy(
            self.energy + other.energy,
            self.expected + other.expected,
            tuple(a + b for a, b in zip(self.flips, other.flips, strict=True)),
            self.vectors + other.vectors,
            (
                self.residual_sums[0] + other.residual_sums[0],
                self.residual_sums[1] + other.residual_sums[1],
                self.residual_sums[2] + other.residual_sums[2],
            ),
            (self.norm_sums[0] + other.norm_sums[0], self.norm_sums[1] + other.norm_sums[1]),
            (self.cosine_sums[0] + other.cosine_sums[0], self.cosine_sums[1] + other.cosine_sums[1]),
            self.d,
        )

    @property
    def is_finite(self) -> bool:
        """Whether every number is; the matrix held something that is not, or squares beyond float64, otherwise."""
        sums = (*self.flips, *self.residual_sums, *self.norm_sums, *self.cosine_sums)
        return all(map(math.isfinite, (self.energy, self.expected, *sums)))

    @property
    def rho(self) -> float | None:
        """ρ = energy / expected; about 1 if nothing is special about v. None for an all-zero matrix."""
        return self.energy / self.expected if self.expected > 0 else None

    @property
    def z(self) -> float | None:
        """(energy - expected) over the spread of the flips."""
        spread = math.sqrt(sum((flip - self.expected) ** 2 for flip in self.flips) / max(len(self.flips), 1))
        return (self.energy - self.expected) / spread if spread > 0 else None

    @property
    def relative_error(self) -> float | None:
        """Standard error of ρ over ρ, as a ratio estimate from the vectors seen (delta method)."""
        rho = self.rho
        if not rho or self.vectors < 2:
            return None
        ee, ex, xx = self.residual_sums
        residual = max(ee - 2 * rho * ex + rho * rho * xx, 0.0)
        return math.sqrt(residual * self.vectors / (self.vectors - 1)) / self.energy

    @property
    def dispersion(self) -> float | None:
        """Relative spread of the vectors' squared norms beyond that of Gaussian vectors, sqrt(max(cv² - 2/d, 0)).

        About 0 at any usual random initialisation; training gives each vector a norm of its own. None if all are zero.
        """
        total, squares = self.norm_sums
        if total <= 0:
            return None
        return math.sqrt(max(self.vectors * squares / total**2 - 1 - 2 / self.d, 0.0))

    @property
    def evenness(self) -> float | None:
        """The spread of the vectors' squared norms over that of Gaussian vectors, cv² d/2.

        About 1 at any usual random initialisation, larger after training, and 0 where all vectors have one length, as
        in weights that are normalised themselves. None if all are zero.
        """
        total, squares = self.norm_sums
        return None if total <= 0 else max(self.vectors * squares / total**2 - 1, 0.0) * self.d / 2

    @property
    def alignment(self) -> float | None:
        """Mean squared cosine between vectors beyond the 1/d of unrelated ones; about 0 at initialisation, or negative.

        None for fewer than two vectors.
        """
        total, pairs = self.cosine_sums
        return total / pairs - 1 / self.d if pairs else None


def shadow(matrix: Any, axis: int, direction: Any, *, draws: int = DRAWS, seed: int = 0) -> ShadowEnergy:
    """Measure the energy of a matrix along a direction on one axis, against the sign-flip null.

    ρ(M, v) = ‖M·v‖² / mean over signs s of ‖M·(s⊙v)‖². The null keeps |vᵢ| and the norms of the slices of M, so
    that a direction that is heavy where M is small does not look depleted. Products are float32 (or the
    matrix's own precision if higher), sums float64; a matrix whose squares have no place in float32 is scaled by a
    power of two for them.

    Args:
        matrix: real floating array with two or more axes; all but `axis` are treated as a list of vectors.
        axis: the axis of length d that `direction` runs along.
        direction: array of shape (d,), same namespace.
        draws: random sign flips that estimate the spread of the null.
        seed: of those flips; the same seed and d give the same flips in every namespace.

    Returns:
        The sums; not finite (`ShadowEnergy.is_finite`) if the matrix or the direction is not.

    Raises:
        ValueError: the shapes do not fit.
    """
    xp = namespace(matrix, direction)
    d = matrix.shape[axis]
    if matrix.ndim < 2 or tuple(direction.shape) != (d,):
        raise ValueError(f"direction {tuple(direction.shape)} does not fit axis {axis} of {tuple(matrix.shape)}")
    rows = xp.reshape(xp.moveaxis(matrix, axis, -1), (-1, d))
    v = xp.astype(direction, rows.dtype)
    with np.errstate(all="ignore"):  # what overflows is scaled, or said by `is_finite`
        found, unit = projected(xp, rows, v, draws, seed), 1.0
        if not _LEAST_ENERGY <= found.total < math.inf and 0 < (unit := _power_of_two(xp, rows)) < math.inf:
            rows = rows / unit if unit >= 1 else rows * (1 / unit)
            found = projected(xp, rows, v, draws, seed)
        return _energy(xp, rows, found, unit)


def _power_of_two(xp: Any, rows: Any) -> float:
    """Return the power of two below the largest of the rows' numbers, 0 or inf if they are zero or not finite."""
    largest = float(xp.max(xp.abs(rows))) if rows.shape[0] else 0.0
    return 2.0 ** min(max(math.frexp(largest)[1] - 1, -126), 127) if 0 < largest < math.inf else largest


def _energy(xp: Any, rows: Any, found: Projections, unit: float) -> ShadowEnergy:
    """Return the sums over rows that were divided by `unit`, in units of the rows as they were."""
    square, fourth = unit * unit, unit**4
    norms, expectations, energies = found.norms, found.expectations, found.along * found.along
    return ShadowEnergy(
        energy=float(xp.sum(energies)) * square,
        expected=float(xp.sum(expectations)) * square,
        flips=tuple(flip * square for flip in _to_list(found.flips)),
        vectors=rows.shape[0],
        residual_sums=(
            float(xp.sum(energies * energies)) * fourth,
            float(xp.sum(energies * expectations)) * fourth,
            float(xp.sum(expectations * expectations)) * fourth,
        ),
        norm_sums=(found.total * square, float(xp.sum(norms * norms)) * fourth),
        cosine_sums=_cosines(xp, rows, norms),
        d=rows.shape[1],
    )


def _cosines(xp: Any, rows: Any, norms: Any) -> tuple[float, float]:
    """Return the sum of squared cosines between some of the rows, and the number of pairs; zero rows do not count."""
    n, d = rows.shape
    some = min(n, _ALIGNED_VECTORS if n * d < _LARGE_BLOCK else _ALIGNED_OF_LARGE)
    rows, norms = rows[:some, :], norms[:some]
    alive = norms > 0
    kept = float(xp.sum(xp.astype(alive, xp.float64)))
    products = xp.astype(rows @ xp.matrix_transpose(rows), xp.float64)
    inverse = xp.where(alive, 1 / xp.where(alive, norms, xp.ones_like(norms)), xp.zeros_like(norms))
    return float(inverse @ (products * products) @ inverse) - kept, kept * (kept - 1)


def _to_list(array: Any) -> list[float]:
    """Return a one-axis array as Python numbers; the standard has no tolist."""
    return [float(array[i]) for i in range(array.shape[0])] if not hasattr(array, "tolist") else list(array.tolist())
