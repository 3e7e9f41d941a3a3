"""What norms multiply by, told from values where no family tells it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff.anatomy.parts import Site
from normsniff.measure.gains import gains

SITE = Site("norm", None, None, width=64)


def drawn(mean: float, spread: float) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(mean, spread, 64)


@pytest.mark.parametrize(
    ("mean", "spread", "added"), [(0.0, 0.1, 1.0), (0.1, 0.1, 1.0), (1.0, 0.2, 0.0), (0.3, 0.1, 0.0)]
)
def test_scales_around_zero_are_one_less_than_what_norms_multiply_by(mean: float, spread: float, added: float) -> None:
    scales = {0: drawn(mean, spread)}
    assert np.array_equal(gains([SITE], scales)[0], scales[0] + added)


def test_the_norms_of_a_component_are_told_together() -> None:
    sites = [replace(SITE, name=f"norm{i}", layer=i) for i in range(8)]
    scales = {i: drawn(1.0, 0.2) for i in range(7)} | {7: drawn(0.05, 0.1)}
    assert np.array_equal(gains(sites, scales)[7], scales[7])


@pytest.mark.parametrize("known", [{"offset": 1.0}, {"why": "a family says so"}, {"kind": "RMSNorm"}])
def test_what_a_family_or_an_operator_tells_stands(known: dict[str, object]) -> None:
    site, scales = replace(SITE, **known), {0: drawn(0.0, 0.1)}  # type: ignore[arg-type]
    assert np.array_equal(gains([site], scales)[0], scales[0])


def test_without_scales_there_is_nothing_to_tell() -> None:
    assert not gains([SITE], {})
