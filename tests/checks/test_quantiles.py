from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.checks.quantiles import median, quantiles

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(VALUES, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], share: float) -> None:
    array = np.array(values)
    assert quantiles(array, share, 0.5) == quantiles(array[np.newaxis, :, np.newaxis], share, 0.5)
    assert quantiles(array, share, 0.5) == pytest.approx(np.quantile(array, [share, 0.5]), rel=1e-9, abs=1e-6)


@given(VALUES, st.integers(1, 3))
def test_medians_are_those_of_numpy(values: list[float], rows: int) -> None:
    array = np.array(values)
    assert median(array) == np.median(array)
    several = np.outer(np.arange(rows), array)
    assert median(several) == pytest.approx(np.median(several, axis=1))


@pytest.mark.filterwarnings("error")
def test_the_median_of_what_is_not_finite_is_no_number_or_infinite_without_a_warning() -> None:
    assert median(np.array([np.inf, np.inf, 1.0])) == np.inf
    assert not median(np.array([np.nan, np.nan, 1.0])) < 1
