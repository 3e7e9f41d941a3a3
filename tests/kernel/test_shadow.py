"""The algebra of kernel.md, in every array namespace that is at hand."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from normsniff import kernel

RNG = np.random.default_rng(7)


def _ones(d: int) -> NDArray[np.float64]:
    return np.full(d, 1 / math.sqrt(d))


def _layer_norm(x: NDArray[np.float64], scale: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return scale * normalised + shift


class TestDeadDirection:
    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10**6), d=st.integers(2, 64))
    def test_is_the_kernel_of_layer_norm_for_every_input(self, seed: int, d: int) -> None:
        """vᵀ(LN(x) - β) = 0 for every x: section 1."""
        rng = np.random.default_rng(seed)
        scale = rng.uniform(0.1, 3.0, d) * rng.choice([-1.0, 1.0], d)
        shift = rng.normal(size=d)
        dead = kernel.dead_direction(scale)
        outputs = _layer_norm(rng.normal(size=(20, d)) * 5 + 1, scale, shift) - shift
        assert np.abs(outputs @ dead.vector).max() < 1e-10
        assert math.isclose(np.linalg.norm(dead.vector), 1.0, rel_tol=1e-12)

    def test_rms_norm_has_no_such_direction(self) -> None:
        scale = RNG.uniform(0.5, 2.0, 16)
        x = RNG.normal(size=(200, 16)) + 0.5
        outputs = scale * x / np.sqrt((x**2).mean(axis=1, keepdims=True))
        assert np.abs(outputs @ kernel.dead_direction(scale).vector).max() > 0.1

    def test_zeros_are_dead_dimensions(self) -> None:
        dead = kernel.dead_direction(np.array([1.0, 0.0, 2.0, 0.0]))
        assert dead.dead == (1, 3)
        assert dead.vector is None
        assert dead.condition == 2.0
        assert dead.power == 0.0

    def test_all_zero(self) -> None:
        assert kernel.dead_direction(np.zeros(3)).condition == math.inf

    def test_tiny_entries_neither_overflow_nor_keep_power(self) -> None:
        dead = kernel.dead_direction(np.array([1e-310, 1.0, 1.0, 1.0]))
        assert abs(abs(dead.vector[0]) - 1.0) < 1e-12
        assert dead.power == pytest.approx(0.25)

    def test_constant_scale_gives_ones(self) -> None:
        dead = kernel.dead_direction(np.full(9, 0.3))
        assert dead.cosine == pytest.approx(1.0)
        assert dead.power == pytest.approx(1.0)

    @pytest.mark.parametrize("scale", [np.ones((2, 2)), np.ones(0), np.array([1.0, np.nan]), np.array([np.inf, 1.0])])
    def test_refuses_what_is_no_scale(self, scale: NDArray[np.float64]) -> None:
        with pytest.raises(ValueError, match="scale"):
            kernel.dead_direction(scale)


class TestShadow:
    def test_expectation_is_the_mean_over_all_sign_flips(self) -> None:
        """The closed form against all 2^6 flips."""
        matrix = RNG.normal(size=(5, 6))
        v = kernel.dead_direction(RNG.uniform(0.2, 2.0, 6)).vector
        flips = np.array(np.meshgrid(*[[-1.0, 1.0]] * 6)).reshape(6, -1)
        exact = (((matrix * v) @ flips) ** 2).sum(axis=0).mean()
        measured = kernel.shadow(matrix, 1, v)
        assert measured.expected == pytest.approx(exact)
        assert measured.energy == pytest.approx(float(((matrix @ v) ** 2).sum()))

    def test_unremarkable_matrix(self) -> None:
        measured = kernel.shadow(RNG.normal(size=(4000, 96)), 1, _ones(96))
        assert measured.rho == pytest.approx(1.0, abs=0.12)
        assert abs(measured.z or 0) < 4

    @pytest.mark.parametrize("d", [3, 64, 100, 576])
    def test_the_spread_of_the_flips_is_that_of_all_sign_flips(self, d: int) -> None:
        """Against its closed form, 2 Σ vᵢ²vⱼ²Gᵢⱼ² over i ≠ j, for matrices of few and of many directions."""
        errors = []
        for trial in range(40):
            rank = 1 + trial % 20
            matrix = RNG.normal(size=(200, rank)) @ RNG.normal(size=(rank, d)) + RNG.normal(size=(200, d)) / 4
            v = kernel.dead_direction(RNG.uniform(0.4, 1.6, d)).vector
            gram = (matrix * v).T @ (matrix * v)
            exact = math.sqrt(2 * (np.sum(gram**2) - np.sum(np.diag(gram) ** 2))) / np.trace(gram)
            measured = kernel.shadow(matrix, 1, v, seed=trial)
            errors.append(math.log(((measured.rho or 0) - 1) / (measured.z or 1) / exact))
        assert abs(np.mean(errors)) < 0.1
        assert np.std(errors) < 0.3

    def test_centred_matrix_has_no_energy(self) -> None:
        matrix = RNG.normal(size=(64, 300)).astype(np.float32)
        matrix -= matrix.mean(axis=0)
        assert (kernel.shadow(matrix, 0, _ones(64)).rho or 0) < 1e-9

    def test_null_is_blind_to_where_the_direction_is_heavy(self) -> None:
        """A matrix that is small where v is large looks depleted to an isotropic null, not to the sign-flip null."""
        scale = RNG.uniform(0.05, 2.0, 128)
        matrix = RNG.normal(size=(2000, 128)) * scale
        v = kernel.dead_direction(scale).vector
        isotropic = 128 * ((matrix @ v) ** 2).sum() / (matrix**2).sum()
        assert isotropic < 0.3
        assert kernel.shadow(matrix, 1, v).rho == pytest.approx(1.0, abs=0.15)

    @settings(max_examples=30, deadline=None)
    @given(cut=st.integers(2, 98), axis=st.sampled_from([0, 1]))
    def test_blocks_add_up(self, cut: int, axis: int) -> None:
        matrix = np.random.default_rng(0).normal(size=(100, 12))
        matrix = matrix if axis == 1 else matrix.T
        whole = kernel.shadow(matrix, axis, _ones(12))
        first, second = np.split(matrix, [cut], axis=1 - axis)
        total = kernel.shadow(first, axis, _ones(12)) + kernel.shadow(second, axis, _ones(12))
        assert total.rho == pytest.approx(whole.rho)
        assert total.z == pytest.approx(whole.z)
        assert total.relative_error == pytest.approx(whole.relative_error)
        assert total.dispersion == pytest.approx(whole.dispersion, abs=1e-6)

    @settings(max_examples=30, deadline=None)
    @given(factor=st.floats(1e-3, 1e3), axis=st.integers(0, 2))
    def test_scale_free_and_independent_of_the_axis(self, factor: float, axis: int) -> None:
        matrix = np.random.default_rng(1).normal(size=(7, 5, 8))
        moved = np.moveaxis(matrix, 2, axis)
        expected = kernel.shadow(matrix, 2, _ones(8))
        assert kernel.shadow(moved * factor, axis, _ones(8)).rho == pytest.approx(expected.rho, rel=1e-9)

    def test_float32_accumulation_error_is_bounded(self) -> None:
        """ρ from float32 products against float64, on a deep shadow (ρ about 1e-4) of a wide matrix."""
        wide = RNG.normal(size=(2048, 4096))
        wide -= 0.99 * wide.mean(axis=1, keepdims=True)
        exact = kernel.shadow(wide, 1, _ones(4096)).rho
        single = kernel.shadow(wide.astype(np.float32), 1, _ones(4096)).rho
        assert exact is not None
        assert 0.5e-4 < exact < 2e-4
        assert single == pytest.approx(exact, rel=2e-3)

    def test_relative_error_matches_the_scatter_of_repeated_samples(self) -> None:
        rhos, claimed = [], []
        for seed in range(200):
            sample = np.random.default_rng(seed).normal(size=(256, 32))
            measured = kernel.shadow(sample, 1, _ones(32))
            rhos.append(measured.rho or 0.0)
            claimed.append(measured.relative_error or 0.0)
        scatter = np.std(rhos) / np.mean(rhos)
        assert np.mean(claimed) == pytest.approx(scatter, rel=0.25)

    def test_all_zero_matrix_has_no_ratio(self) -> None:
        measured = kernel.shadow(np.zeros((4, 5)), 1, _ones(5))
        assert measured.rho is None
        assert measured.z is None
        assert measured.dispersion is None

    def test_trained_looking_features(self) -> None:
        gaussian = kernel.shadow(RNG.normal(size=(500, 256)), 1, _ones(256))
        assert (gaussian.dispersion or 0) < 0.05
        assert abs(gaussian.alignment or 0) < 5e-4
        structured = RNG.normal(size=(500, 4)) @ RNG.normal(size=(4, 256)) * RNG.uniform(0.2, 2, (500, 1))
        assert (kernel.shadow(structured, 1, _ones(256)).dispersion or 0) > 0.3
        assert (kernel.shadow(structured, 1, _ones(256)).alignment or 0) > 0.1

    def test_vectors_of_one_length_are_told_from_random_ones(self) -> None:
        random = RNG.normal(size=(2000, 64))
        even = random / np.linalg.norm(random, axis=1, keepdims=True)
        assert kernel.shadow(random, 1, _ones(64)).evenness == pytest.approx(1, abs=0.15)
        assert kernel.shadow(even, 1, _ones(64)).evenness == pytest.approx(0, abs=1e-9)
        assert kernel.shadow(np.zeros((4, 5)), 1, _ones(5)).evenness is None

    def test_misfit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not fit"):
            kernel.shadow(np.ones((3, 4)), 1, _ones(3))


def _namespaces() -> list[Any]:
    found: list[Any] = [pytest.param(array_api_strict, id="array-api-strict")]
    try:
        import torch
    except ImportError:
        return found
    return [*found, pytest.param(torch, id="torch")]


@pytest.mark.parametrize("xp", _namespaces())
def test_same_numbers_in_every_namespace(xp: Any) -> None:
    """Code of the array API standard: array-api-strict refuses everything else."""
    matrix, scale = RNG.normal(size=(40, 24)), RNG.uniform(0.3, 2.0, 24)
    dead = kernel.dead_direction(scale)
    other = kernel.dead_direction(xp.asarray(scale))
    assert np.allclose(np.asarray(other.vector), dead.vector)
    assert other.power == pytest.approx(dead.power)
    expected = kernel.shadow(matrix, 1, dead.vector)
    measured = kernel.shadow(xp.asarray(matrix), 1, other.vector)
    for name in ("rho", "z", "relative_error", "dispersion", "evenness", "alignment"):
        assert getattr(measured, name) == pytest.approx(getattr(expected, name)), name
