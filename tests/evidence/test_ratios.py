"""Likelihood ratios of what was learned, added up without counting twice what matrices share."""

from __future__ import annotations

import pytest

from normsniff.evidence import ratios
from normsniff.kernel import LearnedShadow


def learned(rho: float | None, nu: float = 4.0, share: float = 0.95) -> LearnedShadow:
    return LearnedShadow(rho, nu if rho is not None else 0.0, share if rho is not None else 0.0, 9.0, 0.5, (), ())


def test_a_pool_counts_once_however_many_members_it_has() -> None:
    pools = {"writer": learned(0.05, nu=4.0)}
    few, many = ([learned(0.05)] * n for n in (2, 40))
    assert ratios.pooled(pools, "writer") > 1
    assert ratios.summed(few, pools, "writer") == pytest.approx(ratios.summed(many, pools, "writer"), rel=1e-6)


def test_members_that_share_little_count_more() -> None:
    facts = [learned(0.05)] * 4
    assert ratios.summed(facts, {"writer": learned(0.05, nu=12.0)}, "writer") > ratios.summed(
        facts, {"writer": learned(0.05, nu=3.0)}, "writer"
    )


def test_nothing_learned_says_nothing() -> None:
    assert ratios.pooled({}, "reader") == 0
    assert ratios.pooled({"reader": learned(None)}, "reader") == 0
    assert ratios.summed([learned(None)], {"reader": learned(None)}, "reader") == 0
    assert ratios.embeddings([learned(None)]) == ratios.embeddings([]) == 0
    assert ratios.surplus({}) == 1


def test_an_embedding_and_an_unembedding_are_averaged() -> None:
    one, other = ([learned(rho)] for rho in (0.02, 1.0))
    assert ratios.embeddings(one + other) == pytest.approx((ratios.embeddings(one) + ratios.embeddings(other)) / 2)


def test_more_energy_than_chance_gives_is_noticed() -> None:
    assert ratios.surplus({"reader": learned(1.2, nu=8.0)}) > 0.05
    assert ratios.surplus({"reader": learned(6.0, nu=8.0), "writer": learned(1.0)}) < 1e-3


def test_members_that_disagree_say_less_than_their_sum() -> None:
    pool = {"writer": learned(0.05, nu=16.0)}
    agreed = ratios.summed([learned(0.05)] * 4, pool, "writer")
    mixed = ratios.summed([learned(0.05)] * 4 + [learned(1.0)] * 2, pool, "writer")
    against = ratios.summed([learned(1.0)] * 2, pool, "writer")
    assert against < 0 < mixed < (agreed + against) / 2


def test_a_deficit_of_a_whole_matrix_speaks_and_the_lack_of_one_does_not() -> None:
    flat = 1.0
    assert ratios.whole([(0.05, 0.2, flat)] * 3, "writer") > 1
    assert ratios.whole([(rho, 0.2, flat) for rho in (0.9, 1.0, 1.6)], "writer") == pytest.approx(0, abs=0.2)
    assert ratios.whole([(0.05, 1.4, flat)], "writer") < ratios.whole([(0.05, 0.2, flat)], "writer")
    assert ratios.whole([], "writer") == ratios.whole([(1.0, 0.0, flat)], "writer") == 0


def test_biases_without_a_mean_speak_for_layernorm_and_no_bias_speaks_for_rmsnorm() -> None:
    assert ratios.biases([0.02] * 8) > 2 > ratios.biases([0.02] * 2) > 0
    assert ratios.biases([1.0] * 8) == ratios.biases([3.0, 0.1, 1.0]) == ratios.biases([]) == 0
