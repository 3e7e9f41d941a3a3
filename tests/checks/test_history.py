from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.checks.history import CERTAIN, History, history

BF16 = ml_dtypes.bfloat16
SIZE = 4096


def scales(seed: int = 0, mean: float = 1.0, spread: float = 0.2) -> Any:
    return np.random.default_rng(seed).normal(mean, spread, SIZE)


def told(values: Any) -> History:
    found = history(np.asarray(values, np.float64))
    assert found is not None
    return found


@pytest.mark.parametrize("kind", [BF16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("mean", "spread"), [(1.0, 0.2), (0.0, 0.05), (7.0, 2.0), (0.3, 0.1), (1.0, 0.01)])
def test_nothing_was_added_to_values_as_they_were_trained(kind: Any, mean: float, spread: float) -> None:
    for seed in range(5):
        found = history(scales(seed, mean, spread).astype(kind).astype(np.float64))
        if found is not None:  # bfloat16 close to 1 has too few distinct values
            assert found.added == 0
            assert found.log_ratio < CERTAIN / 2


@pytest.mark.parametrize("wide", [np.float16, np.float32])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_an_addition_in_a_wider_type_is_found_and_its_grid_named(wide: Any, number: int, spread: float) -> None:
    values = scales(0, 0.1, spread).astype(BF16).astype(wide)
    found = told(values + wide(number))
    assert found.added == number
    if wide is np.float32:
        assert (found.grid, found.strong) == ("bfloat16", True)


@pytest.mark.parametrize("kind", [BF16, np.float16, np.float32])
def test_a_subtraction_in_the_same_type_is_found(kind: Any) -> None:
    found = told((scales().astype(kind) - kind(1)).astype(kind))
    assert (found.added, found.strong) == (-1, True)


@pytest.mark.parametrize("kind", [BF16, np.float16, np.float32])
def test_ties_to_even_tell_of_an_addition_to_full_scales_in_the_same_type(kind: Any) -> None:
    found = told((scales().astype(kind) + kind(1)).astype(kind))
    assert (found.added, found.strong) == (1, False)


def test_small_scales_minus_one_in_one_type_leave_no_trace_of_the_sum() -> None:
    assert told((scales(0, 0, 0.05).astype(BF16) + BF16(1)).astype(BF16)).added == 0


def test_an_average_of_two_copies_is_no_strong_witness() -> None:
    copies = [scales(seed).astype(BF16).astype(np.float32) for seed in range(2)]
    average = told((copies[0] + copies[1]) / 2)
    assert not (average.added and average.strong)


def test_a_scaling_is_no_strong_witness() -> None:
    found = told(scales().astype(BF16).astype(np.float32) * np.float32(1.5))
    assert not (found.added and found.strong)


def test_values_that_vanish_beside_one_are_no_witness() -> None:
    values = scales(0, 0.65, 0.1).astype(BF16).astype(np.float64)
    values[:200] = np.random.default_rng(1).normal(0, 1, 200).astype(BF16).astype(np.float64) * 2.0**-90
    assert told(values).added == 0


def test_too_few_values_say_nothing() -> None:
    assert history(np.ones(1000)) is None
    assert history(np.array([])) is None
    assert history(np.array([np.nan, np.inf, 0.0, 1.0])) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32), max_size=200))
def test_any_values_give_an_answer_or_none(values: list[float]) -> None:
    found = history(np.array(values, np.float64))
    assert found is None or found.values <= len(values)
