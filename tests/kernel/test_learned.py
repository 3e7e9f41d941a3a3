"""The shadow of what was learned: against a direct decomposition, planted truth, and the law of its null."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from normsniff import kernel
from normsniff.kernel.learned import upper_tail

Float64 = NDArray[np.float64]
SHAPES = ((60, 40), (40, 60), (300, 40), (130, 500), (500, 130), (200, 160))


def _ones(d: int) -> Float64:
    return np.full(d, 1 / math.sqrt(d))


def _orthonormal(rng: np.random.Generator, n: int, k: int) -> Float64:
    return np.asarray(np.linalg.qr(rng.standard_normal((n, k)))[0])


def _planted(
    rng: np.random.Generator, n: int, d: int, signals: Float64, tau: float = 1.0
) -> tuple[Float64, Float64, Float64]:
    """Return noise of unit variance with directions of these energies x, those directions (d, k), and v.

    The directions keep the part `tau` of their energy along v.
    """
    v = _ones(d)
    right = _orthonormal(rng, d, len(signals))
    right = right - np.outer(v, v @ right) * (1 - math.sqrt(tau))
    right = right / np.linalg.norm(right, axis=0)
    left = _orthonormal(rng, n, len(signals))
    noise = rng.standard_normal((n, d))
    return noise + (left * np.sqrt(signals * max(n, d))) @ right.T, right, v


class TestPeaks:
    @pytest.mark.parametrize(("n", "d"), SHAPES)
    def test_they_are_those_of_a_singular_value_decomposition(self, n: int, d: int) -> None:
        rng = np.random.default_rng(1)
        matrix, _, _ = _planted(rng, n, d, np.array([30.0, 20.0, 12.0]))
        v = rng.uniform(0.5, 2.0, d)
        v /= np.linalg.norm(v)
        found = kernel.peaks(matrix, v)
        assert found is not None
        _, singular, right = np.linalg.svd(matrix)
        mean = (matrix**2).mean()
        assert found.values[:3] == pytest.approx(singular[:3] ** 2 / mean, rel=3e-3)
        assert found.overlaps[:3] == pytest.approx((right[:3] @ v) ** 2, rel=0.05, abs=1e-4)
        assert found.expected[:3] == pytest.approx((right[:3] ** 2) @ (v**2), rel=0.01)
        products = (right[:3] * v) ** 2
        assert found.concentration[:3] == pytest.approx((products**2).sum(1) / products.sum(1) ** 2, rel=0.05)
        assert found.rms == pytest.approx(math.sqrt(mean))
        assert list(found.values) == sorted(found.values, reverse=True)

    @pytest.mark.parametrize(("n", "d"), SHAPES)
    def test_blocks_of_one_matrix_join(self, n: int, d: int) -> None:
        rng = np.random.default_rng(2)
        matrix, _, v = _planted(rng, n, d, np.array([9.0, 4.0]))
        whole = kernel.learned_shadow(matrix, v)
        parts = kernel.learned_shadow([matrix[:7], matrix[7 : n // 2], matrix[n // 2 :]], v)
        assert parts.rho == pytest.approx(whole.rho)
        assert (parts.nu, parts.share) == pytest.approx((whole.nu, whole.share))

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="do not fit"):
            kernel.peaks(np.ones((4, 5)), np.ones(4))
        with pytest.raises(ValueError, match="do not fit"):
            kernel.peaks([], np.ones(4))
        for bad in (0.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="zero or not finite"):
                kernel.peaks(np.ones((4, 5)), np.full(5, bad))

    def test_zeros_and_what_is_not_finite_have_none(self) -> None:
        for value in (0.0, math.nan, math.inf):
            matrix = np.zeros((30, 20))
            matrix[3, 4] = value
            assert kernel.peaks(matrix, _ones(20)) is None
            assert kernel.learned_shadow(matrix, _ones(20)).rho is None
        assert kernel.peaks(np.ones((1, 20)), _ones(20)) is None


class TestLearnedShadow:
    def test_noise_has_learned_nothing(self) -> None:
        rng = np.random.default_rng(3)
        found = [kernel.learned_shadow(rng.standard_normal((n, d)), _ones(d)) for n, d in SHAPES for _ in range(15)]
        with_something = [f for f in found if f.rho is not None]
        assert len(with_something) <= 0.1 * len(found)  # the edge is where the largest eigenvalue lies on average
        assert max(f.strength for f in found) < 2
        assert all(f.nu == f.share == 0 for f in found if f.rho is None)

    @pytest.mark.parametrize(("n", "d"), [(200, 100), (100, 200), (128, 512)])
    def test_planted_signals_are_recovered(self, n: int, d: int) -> None:
        """Energies, and the angle between what is found and what is true, as the law of large matrices says."""
        rng = np.random.default_rng(4)
        signals = np.array([8.0, 4.0, 2.0])
        matrix, right, v = _planted(rng, n, d, signals)
        found = kernel.learned_shadow(matrix, v)
        assert found.signals[:3] == pytest.approx(signals, rel=0.2)
        assert found.noise == pytest.approx(1 / (matrix**2).mean(), rel=0.03)
        _, _, seen = np.linalg.svd(matrix, full_matrices=False)
        true = ((seen[:3] @ right) ** 2).max(1)
        beta, x = min(n, d) / max(n, d), signals
        cosine = (x**2 - beta) / (x**2 + (beta * x if d <= n else x))
        assert true == pytest.approx(cosine, abs=0.06)
        assert found.share == pytest.approx(float(cosine @ (x * cosine) / (x * cosine).sum()), abs=0.06)

    @pytest.mark.parametrize(("tau", "expected"), [(1.0, 1.0), (0.25, 0.25), (0.0, 0.0)])
    def test_what_is_left_along_the_direction_is_measured_whatever_the_dilution(
        self, tau: float, expected: float
    ) -> None:
        rng = np.random.default_rng(5)
        rhos, shares, whole = [], [], []
        for _ in range(60):
            matrix, _, v = _planted(rng, 96, 128, np.array([3.0, 2.5, 2.0, 1.8]), tau)
            found = kernel.learned_shadow(matrix, v)
            assert found.rho is not None
            rhos.append(found.rho)
            shares.append(found.share)
            whole.append(kernel.shadow(matrix, 1, v).rho or 0.0)
        share = float(np.mean(shares))
        assert np.mean(rhos) == pytest.approx(1 - share * (1 - expected), abs=0.17)
        assert np.mean(whole) > 0.85  # where ρ of the whole matrix sees next to nothing

    def test_the_null_is_chi_squared(self) -> None:
        """Kolmogorov-Smirnov: ν·ρ_L of 400 matrices that keep their energy, through the χ² of their own ν."""
        rng = np.random.default_rng(6)
        levels = []
        for _ in range(400):
            matrix, _, v = _planted(rng, 90, 70, rng.uniform(1.5, 12.0, 5))
            found = kernel.learned_shadow(matrix, v)
            assert found.rho is not None
            draws = rng.chisquare(found.nu, 4000) / found.nu
            levels.append(float((draws < found.rho).mean()))
        distance = np.abs(np.sort(levels) - (np.arange(400) + 0.5) / 400).max()
        assert distance < 1.63 / math.sqrt(400)  # the 1 % point

    def test_a_direction_of_one_coordinate_says_nothing(self) -> None:
        rng = np.random.default_rng(7)
        matrix = rng.standard_normal((80, 60))
        matrix[:, 11] *= 100
        found = kernel.learned_shadow(matrix, _ones(60))
        assert found.signals
        assert found.nu == 0
        assert kernel.log_ratio(found.rho, found.nu, found.share, "writer") == 0

    @pytest.mark.parametrize("library", ["array_api_strict", "torch"])
    @pytest.mark.parametrize(("n", "d"), SHAPES)
    def test_every_namespace_gives_the_same(self, library: str, n: int, d: int) -> None:
        xp: Any = array_api_strict if library == "array_api_strict" else pytest.importorskip("torch")
        rng = np.random.default_rng(8)
        matrix, _, v = _planted(rng, n, d, np.array([9.0, 5.0]))
        matrix = matrix.astype(np.float32)
        ours, theirs = kernel.learned_shadow(matrix, v), kernel.learned_shadow(xp.asarray(matrix), xp.asarray(v))
        assert theirs.rho == pytest.approx(ours.rho, rel=1e-3)
        assert theirs.signals == pytest.approx(ours.signals, rel=1e-3)
        assert (theirs.nu, theirs.share, theirs.noise) == pytest.approx((ours.nu, ours.share, ours.noise), rel=1e-3)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_the_unit_of_the_weights_does_not_matter(self, dtype: type[np.floating[Any]]) -> None:
        matrix, _, v = _planted(np.random.default_rng(9), 90, 70, np.array([9.0, 5.0]))
        small = kernel.learned_shadow((matrix / 100).astype(dtype), v)
        scale = {np.float16: 1e3, np.float32: 1e30, np.float64: 1e150}[dtype]
        large = kernel.learned_shadow((matrix * scale).astype(dtype), v)
        assert large.rho == pytest.approx(small.rho, rel=0.01)
        assert large.signals == pytest.approx(small.signals, rel=0.01)

    @settings(max_examples=60, deadline=None)
    @given(
        matrix=arrays(
            np.float32, st.tuples(st.integers(1, 9), st.integers(2, 9)), elements=st.floats(width=32, allow_nan=True)
        )
    )
    def test_whatever_goes_in_no_number_comes_out_that_is_not_finite(self, matrix: NDArray[np.float32]) -> None:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            found = kernel.learned_shadow(matrix, _ones(matrix.shape[1]))
        numbers = [found.nu, found.share, found.strength, found.noise, *found.signals, *found.ratios]
        assert all(math.isfinite(value) for value in numbers)
        assert 0 <= found.share <= 1
        for kind in ("writer", "reader", "embedding", "unknown", "bias"):
            assert math.isfinite(kernel.log_ratio(found.rho, found.nu, found.share, kind))


class TestLogRatio:
    def test_it_falls_as_energy_comes_back(self) -> None:
        found = [kernel.log_ratio(rho, 6.0, 0.95, "writer") for rho in (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)]
        assert found == sorted(found, reverse=True)
        assert found[0] > 3
        assert found[-1] < -2

    def test_few_degrees_of_freedom_or_much_noise_say_little(self) -> None:
        assert kernel.log_ratio(0.05, 1.0, 0.95, "writer") < 2 < kernel.log_ratio(0.05, 8.0, 0.95, "writer")
        assert abs(kernel.log_ratio(0.6, 4.0, 0.3, "writer")) < 1
        assert kernel.log_ratio(None, 0.0, 0.0, "writer") == 0.0
        assert kernel.log_ratio(0.0, 0.0, 0.5, "reader") == 0.0

    def test_no_single_number_is_worth_more_than_its_clip(self) -> None:
        for rho in (0.0, 1e-30, 1.0, 50.0):
            assert abs(kernel.log_ratio(rho, 16.0, 1.0, "unknown")) <= 6.0

    def test_what_is_no_shadow_is_refused(self) -> None:
        for bad in ((-0.1, 1.0, 0.5), (math.nan, 1.0, 0.5), (0.5, math.inf, 0.5)):
            with pytest.raises(ValueError, match="no shadow"):
                kernel.log_ratio(*bad, "writer")

    @pytest.mark.parametrize("nu", [1.5, 4.0, 12.0])
    def test_the_upper_tail_is_that_of_chi_squared(self, nu: float) -> None:
        draws = np.random.default_rng(10).chisquare(nu, 400_000) / nu
        for rho in (0.5, 1.0, 2.0, 3.0):
            assert upper_tail(rho, nu) == pytest.approx(float((draws > rho).mean()), rel=0.1, abs=2e-4)
        assert upper_tail(5.0, 0.0) == 1.0
