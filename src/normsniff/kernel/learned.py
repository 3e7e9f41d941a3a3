"""The shadow of what was learned: energy along a direction in what rises above the noise of the initialisation.

ρ of a whole matrix (`shadow`) mixes two things: the noise that it was initialised with, which is isotropic (ρ = 1), and
what training added, which under LayerNorm has almost no energy along the dead direction v. A matrix of little training
is nearly all noise, so its ρ stays near 1 under either norm. Here the two are told apart by the spectrum. The
eigenvalues of MᵀM for a matrix M of noise end at the edge of the Marchenko-Pastur law; what lies above is signal, of
which the law says how strong it is (x) and how far the direction found is from the true one (c, a squared cosine):
F. Benaych-Georges, R. R. Nadakuditi, "The singular values and vectors of low rank perturbations of large rectangular
random matrices", J. Multivariate Anal. 111 (2012); M. Gavish, D. L. Donoho, "Optimal shrinkage of singular values",
IEEE Trans. Inf. Theory 63 (2017).

The overlaps q of those directions with v, weighed by their signal and over their exact mean under random sign flips
of v, give ρ_L. Under the null each q/m is nearly χ² of one degree of freedom, so their weighted mean is nearly χ²_ν/ν
with the ν that gives it the right variance (F. E. Satterthwaite, Biometrics Bulletin 2, 1946). `log_ratio` compares
that null (RMSNorm) with a deficit (LayerNorm).

The code keeps to the array API standard with its `linalg` extension.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from .namespaces import namespace, to_numpy

Float64 = NDArray[np.float64]
Kind = Literal["writer", "reader", "embedding", "unknown", "bias"]

PEAKS = 16
"""Directions looked at. Matrices of the calibration corpus have 2 to 10 above the noise."""

_EXACT = 96
"""Up to this size of the smaller side the Gram matrix is decomposed whole: no dearer than iterating there."""

_SPARE = 8
"""Directions iterated beyond those wanted (Halko, Martinsson, Tropp, SIAM Review 53, 2011: 5 to 10)."""

_PLAIN = (1e-12, 1e12)
"""Weights whose mean square lies outside are divided by the largest: the square of 1e30 has no place in float32."""

_ROUND_OFF = 1.2e-7
"""Of float32, in which the products are formed: noise below this part of the largest eigenvalue cannot be told."""


class Peaks(msgspec.Struct, frozen=True):
    """The largest eigenvalues of MᵀM and what their directions share with v: all that the rest is computed from.

    Attributes:
        values: eigenvalues over the mean square of an entry of M, descending.
        overlaps: (eᵢ·v)².
        expected: its mean over all sign flips of v, Σⱼ eᵢⱼ²vⱼ².
        concentration: Σⱼ (eᵢⱼvⱼ)⁴ over the square of that; 1 if one coordinate carries the overlap.
        rms: root mean square of the entries of M.
        vectors: n, rows of M.
        d: their length.
    """

    values: tuple[float, ...]
    overlaps: tuple[float, ...]
    expected: tuple[float, ...]
    concentration: tuple[float, ...]
    rms: float
    vectors: int
    d: int


class LearnedShadow(msgspec.Struct, frozen=True):
    """What the directions above the noise say.

    Attributes:
        rho: ρ_L, energy along v over its mean under sign flips of v; None if nothing rises above the noise.
        nu: ν, degrees of freedom behind it; 0 if there is nothing.
        share: c̄, the part of that energy that is signal and not noise, in [0, 1].
        strength: Σx·c over the directions, in units of the noise.
        noise: part of the mean square of an entry that is noise, in (0, 1].
        signals: x of every direction above the noise.
        ratios: overlap over its mean, for the same directions.
    """

    rho: float | None
    nu: float
    share: float
    strength: float
    noise: float
    signals: tuple[float, ...]
    ratios: tuple[float, ...]


def learned_shadow(rows: Any, direction: Any, *, k: int = PEAKS, seed: int = 0) -> LearnedShadow:
    """Return the shadow of what was learned in a matrix; arguments and errors as for `peaks`."""
    found = peaks(rows, direction, k=k, seed=seed)
    return _NOTHING if found is None else learned(found)


def peaks(rows: Any, direction: Any, *, k: int = PEAKS, seed: int = 0) -> Peaks | None:
    """Return the largest eigenvalues of MᵀM, their directions against v; None for zeros or what is not finite.

    Args:
        rows: M, real floating array of shape (n, d), any array-API namespace; or blocks of its rows, which join.
        direction: v, array of shape (d,), same namespace; its length does not matter.
        k: how many at most.
        seed: of the vectors that the iteration starts from, the same in every namespace.

    Raises:
        ValueError: the shapes do not fit, there is no block, or v is zero or not finite.
    """
    blocks = list(rows) if isinstance(rows, list | tuple) else [rows]
    if not blocks or any(b.ndim != 2 or b.shape[1] != direction.shape[0] for b in blocks) or direction.ndim != 1:
        raise ValueError(f"rows {[tuple(b.shape) for b in blocks]} do not fit a direction {tuple(direction.shape)}")
    xp = namespace(*blocks, direction)
    v = xp.astype(direction, xp.float64)
    size = math.sqrt(float(xp.sum(v * v)))
    if not 0 < size < math.inf:
        raise ValueError("the direction is zero or not finite")
    n, d = sum(b.shape[0] for b in blocks), direction.shape[0]
    k = min(k, min(n, d) - 1)
    if k < 1:
        return None
    scaled = [xp.astype(b, _product_type(xp, b), copy=False) for b in blocks if b.shape[0]]
    total, unit = _energy(xp, scaled), 1.0
    if not _PLAIN[0] < total / (n * d) < _PLAIN[1]:
        unit = max(float(xp.max(xp.abs(b))) for b in scaled)
        if not 0 < unit < math.inf:
            return None
        scaled = [b / unit for b in scaled]
        total = _energy(xp, scaled)
        if not total > 0:  # NaN
            return None
    values, directions = _top(xp, scaled, n, d, k, seed)
    parts = directions * (v / size)[:, None]
    overlaps = xp.sum(parts, axis=0) ** 2
    products = parts * parts
    expected = xp.sum(products, axis=0)
    fourth = xp.sum(products * products, axis=0)
    mean = total / (n * d)
    m = to_numpy(expected)
    return Peaks(
        values=tuple((np.maximum(to_numpy(values), 0.0) / mean).tolist()),
        overlaps=tuple(to_numpy(overlaps).tolist()),
        expected=tuple(m.tolist()),
        concentration=tuple((to_numpy(fourth) / np.maximum(m * m, 1e-300)).tolist()),
        rms=unit * math.sqrt(mean),
        vectors=n,
        d=d,
    )


def learned(found: Peaks) -> LearnedShadow:
    """Return what rises above the noise, and its energy along v."""
    n, d = found.vectors, found.d
    lam, q, m, p4 = (
        np.array(one, np.float64) for one in (found.values, found.overlaps, found.expected, found.concentration)
    )
    noise = _noise(lam, n, d)
    beta = min(n, d) / max(n, d)
    y = lam / (noise * max(n, d))
    t = y - beta - 1
    x = 0.5 * (t + np.sqrt(np.maximum(t * t - 4 * beta, 0.0)))
    above = (y > (1 + math.sqrt(beta)) ** 2) & (x * x > beta)
    if not above.any():
        return msgspec.structs.replace(_NOTHING, noise=noise)
    x, q, m, p4 = x[above], q[above], m[above], p4[above]
    cosine = (x * x - beta) / (x * x + (beta * x if d <= n else x))
    # A direction of few coordinates overlaps with v by what these are, whatever was learned: it counts less, or not.
    weight = x * cosine * np.maximum(1 - 2 * p4, 0.0)
    mean = float(weight @ m)
    signals, ratios = tuple(x.tolist()), tuple((q / np.maximum(m, 1e-300)).tolist())
    strength = float(x @ cosine)
    if mean <= 0:
        return LearnedShadow(None, 0.0, 0.0, strength, noise, signals, ratios)
    parts = weight * m
    return LearnedShadow(
        rho=float(weight @ q) / mean,
        nu=mean * mean / float(parts @ parts),
        share=float(parts @ cosine) / mean,
        strength=strength,
        noise=noise,
        signals=signals,
        ratios=ratios,
    )


_NOTHING = LearnedShadow(None, 0.0, 0.0, 0.0, 1.0, (), ())


def _noise(lam: Float64, n: int, d: int) -> float:
    """Return the mean square of the noise, from the trace less what lies above the edge that it implies.

    From above, so that noise alone gives no direction: leaving out the largest eigenvalues blindly would raise all
    others above the edge. A direction that is left out takes n + d - 1 degrees of freedom along.
    """
    edge = (math.sqrt(n) + math.sqrt(d)) ** 2
    least = max(_ROUND_OFF * float(lam[0]) / max(n, d), 1e-30)
    level, out = 1.0, 0
    for _ in range(len(lam)):
        more = int(np.count_nonzero(lam > level * edge))
        if more <= out:
            break
        out = more
        rest = n * d - float(lam[:out].sum())
        level = max(rest / max(n * d - out * (n + d - out), 1), least)
    return level


def _energy(xp: Any, blocks: Sequence[Any]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return math.fsum(float(xp.sum(b * b)) for b in blocks)


def _product_type(xp: Any, rows: Any) -> Any:
    return xp.float64 if rows.dtype == xp.float64 else xp.float32


def _top(xp: Any, blocks: Sequence[Any], n: int, d: int, k: int, seed: int) -> tuple[Any, Any]:
    """Return the k largest eigenvalues of MᵀM, descending, and their directions (d, k), both float64."""
    if d <= min(n, _EXACT):
        gram = sum(xp.astype(xp.matrix_transpose(b) @ b, xp.float64) for b in blocks)
        values, directions = xp.linalg.eigh(gram)
        return xp.flip(values)[:k], xp.flip(directions, axis=1)[:, :k]
    rows = blocks[0] if len(blocks) == 1 else xp.concat(list(blocks), axis=0)
    columns = xp.matrix_transpose(rows)
    if n <= _EXACT:
        values, left = xp.linalg.eigh(xp.astype(rows @ columns, xp.float64))
        values, left = xp.flip(values)[:k], xp.flip(left, axis=1)[:, :k]
        return values, xp.astype(columns @ xp.astype(left, rows.dtype), xp.float64) / _roots(xp, values)
    short, long = (rows, columns) if n <= d else (columns, rows)
    width = min(k + _SPARE, short.shape[0])
    start = xp.asarray(_signs(short.shape[0], width, seed), dtype=rows.dtype, device=rows.device)
    basis = xp.linalg.qr(short @ (long @ start))[0]
    basis = xp.linalg.qr(short @ (long @ basis))[0]
    image = long @ basis
    values, turned = xp.linalg.eigh(xp.astype(xp.matrix_transpose(image) @ image, xp.float64))
    values, turned = xp.flip(values)[:k], xp.astype(xp.flip(turned, axis=1)[:, :k], rows.dtype)
    if n > d:
        return values, xp.astype(basis @ turned, xp.float64)
    return values, xp.astype(image @ turned, xp.float64) / _roots(xp, values)


def _roots(xp: Any, values: Any) -> Any:
    return xp.sqrt(xp.clip(values, min=1e-30))


@lru_cache(maxsize=8)
def _signs(n: int, width: int, seed: int) -> NDArray[np.int8]:
    # Bits of a hash, as in `shadow`: numpy.random takes long to import.
    stream = hashlib.shake_128(f"normsniff learned {seed}".encode()).digest(-(-n * width // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=n * width).astype(np.int8)
    return (bits * np.int8(2) - np.int8(1)).reshape(n, width)


_PRIORS: dict[Kind, tuple[float, float]] = {
    "writer": (-4.2, 1.7), "reader": (-3.4, 2.0), "embedding": (-3.6, 2.2), "unknown": (-3.9, 1.9), "bias": (-2.5, 1.5),
}  # fmt: skip
"""Mean and spread of ln τ under LayerNorm, τ being what is left along v of the energy that there would be: deconvolved
(by expectation maximisation over a grid) from the pools and matrices of the calibration runs that choices may see."""

_SPREAD = 0.35
"""Spread of ln τ under RMSNorm: nothing keeps the mean exactly as likely as any other direction. The same estimate
gives 0.5 to 0.6, most of which is its own smoothing; 0.35 and 0.5 make no difference to the answers."""

_ANYTHING = 0.03
"""Part of either prior that is flat over all of `_GRID`: no surprise is worth more than it allows."""

_GRID = np.linspace(-7.0, 3.0, 101)
_CLIP = 6.0
_LEAST = 1e-5
"""A smaller ρ_L proves no more: what is exactly zero along v was centred, and not learned."""


def log_ratio(rho: float | None, nu: float, share: float, kind: Kind) -> float:
    """Return ln P(ρ_L | LayerNorm) / P(ρ_L | RMSNorm), within ±6; exactly 0 where nothing was learned.

    ν·ρ_L over its mean is χ²_ν. Its mean is 1 - c̄(1 - τ): the noise part of the directions found keeps its energy.

    Args:
        rho: ρ_L, or None.
        nu: ν > 0, or 0.
        share: c̄.
        kind: role of the matrices, ``"unknown"`` without names.

    Raises:
        ValueError: a number that is negative or not finite.
    """
    if rho is None or nu == 0 or share == 0:
        return 0.0
    if not all(0 <= value < math.inf for value in (rho, nu, share)):
        raise ValueError(f"no shadow has ρ_L = {rho}, ν = {nu}, c̄ = {share}")
    deficit = _log_density(rho, nu, share, *_PRIORS[kind])
    none = _log_density(rho, nu, share, 0.0, _SPREAD)
    return min(max(deficit - none, -_CLIP), _CLIP if rho < 1 else 0.0)  # a surplus never speaks for a deficit


def _log_density(rho: float, nu: float, share: float, middle: float, spread: float) -> float:
    prior = np.exp(-0.5 * ((_GRID - middle) / spread) ** 2)
    prior = (1 - _ANYTHING) * prior / prior.sum() + _ANYTHING / len(_GRID)
    mean = np.maximum(1 - min(share, 1.0) * (1 - np.exp(_GRID)), 1e-4)
    half, rho = nu / 2, max(rho, _LEAST)
    logs = (half - 1) * math.log(rho) - half * rho / mean - math.lgamma(half) - half * np.log(mean / half)
    highest = float(logs.max())
    return highest + math.log(float(np.exp(logs - highest) @ prior))


_SHARES = 5
"""Shares of signal that `whole_ratio` averages over."""

_MOST_NU = 60.0
"""Degrees of freedom beyond which ρ of a whole matrix is as sure as other doubts let it be."""


@lru_cache(maxsize=1024)  # after every batch of matrices all ratios are asked for again
def whole_ratio(rho: float, spread: float, noise: float, kind: Kind) -> float:
    """Return the log-likelihood ratio of ρ of a whole matrix where it speaks for LayerNorm, within [0, 6].

    Muon and others leave flat spectra, in which what was learned does not rise above the noise and is taken for it. A
    deficit of the whole matrix is evidence all the same, whatever part of it is signal: that is taken for anything
    between the part that rises above the noise and all. That the whole has no deficit says nothing.

    Args:
        rho: ρ of the matrix.
        spread: relative spread of its sign flips.
        noise: part of the mean square that is taken for noise.
        kind: role of the matrix.
    """
    if not spread > 0 or rho >= 1:
        return 0.0
    nu = min(2 / spread**2, _MOST_NU)
    shares = np.linspace(min(max(1 - noise, 0.0), 0.999), 1.0, _SHARES).tolist()
    deficit, none = (
        _mean_of_exp([_log_density(rho, nu, share, *prior) for share in shares])
        for prior in (_PRIORS[kind], (0.0, _SPREAD))
    )
    return min(max(deficit - none, 0.0), _CLIP)


def _mean_of_exp(logs: Sequence[float]) -> float:
    highest = max(logs)
    return highest + math.log(math.fsum(math.exp(one - highest) for one in logs) / len(logs))


def upper_tail(rho: float, nu: float) -> float:
    """Return how likely the null gives a ρ_L at least so high, by the cube root of χ² (Wilson & Hilferty, 1931)."""
    if nu <= 0:
        return 1.0
    spread = 2 / (9 * nu)
    return 0.5 * math.erfc((rho ** (1 / 3) - (1 - spread)) / math.sqrt(2 * spread))
