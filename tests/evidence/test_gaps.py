"""What is not understood takes the weight off statements about all norms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from normsniff.anatomy.parts import Anatomy, Site, Unexplained
from normsniff.checkpoint import TensorInfo
from normsniff.evidence import gaps
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

D = 8
VECTOR = TensorInfo("v", "F32", (D,), Extent(BytesSource(b""), 0, 0))


def gap(norms: int, *unexplained: Unexplained, named: bool = True, shifts: bool = False) -> gaps.Gap:
    sites = tuple(
        Site(f"layers.{n}.norm", VECTOR, VECTOR if shifts else None, named=named, width=D) for n in range(norms)
    )
    return gaps.of(Anatomy(sites, (), {"main": D}, "names", unexplained=unexplained), "main", sites)


def vector(width: int | None = D, *, named: bool = False) -> Unexplained:
    return Unexplained("vector", "a.b", "", width, named)


def test_nothing_is_taken_away_where_all_is_understood() -> None:
    assert gap(4) == gaps.Gap(1.0, 1.0)


@pytest.mark.parametrize(("vectors", "left"), [(1, 0.75), (2, 0.5), (4, 0.0), (9, 0.0)])
def test_every_vector_of_the_width_takes_away_the_weight_of_a_norm(vectors: int, left: float) -> None:
    found = gap(4, *[vector()] * vectors)
    assert found.known_absence == left
    assert found.known_shifts == 1.0
    assert "a.b" in found.reason


def test_vectors_of_another_width_take_nothing_away_from_norms_with_names() -> None:
    assert gap(4, vector(3), vector(3), vector(3)).known_absence == 1.0


def test_an_operator_that_is_not_known_leaves_nothing_of_an_absence() -> None:
    assert gap(4, Unexplained("operator", "Foo", "")).known_absence == 0.0


def test_norms_that_only_their_shape_shows_count_half() -> None:
    assert gap(4, named=False).known_absence == 0.5


def test_norms_without_a_name_may_be_those_of_a_tower_beside() -> None:
    found = gap(4, vector(3), vector(3), vector(3), named=False, shifts=True)
    assert found.known_shifts == 0.0


@pytest.mark.parametrize(("n", "left"), [(3, 1.0), (4, 0.0)])
def test_as_many_vectors_of_another_width_under_the_names_of_norms_may_be_the_main_ones(n: int, left: float) -> None:
    assert gap(4, *[vector(3, named=True)] * n).known_absence == left


@pytest.mark.parametrize(("inner", "left"), [(1, 1.0), (4, 0.5)])
def test_norms_inside_of_parts_of_the_blocks_count_where_they_are_many(inner: int, left: float) -> None:
    stored = [Site(f"layers.{n}.norm", VECTOR, None, width=D) for n in range(8)]
    others = [Site(f"layers.{n}.mlp.norm", VECTOR, VECTOR, role="other", width=D) for n in range(inner)]
    found = gaps.of(Anatomy((*stored, *others), (), {"main": D}, "names"), "main", stored)
    assert (found.known_absence, found.known_shifts) == (left, 1.0)
    assert ("layers.0.mlp.norm" in found.reason) is (left < 1)


def test_a_mixture_takes_names_that_tell_streams_apart() -> None:
    sites = [Site(f"a.{n}", VECTOR, VECTOR if n % 2 else None, width=D) for n in range(8)]
    told = Anatomy(tuple(sites), (), {"main": D}, "names")
    assert gaps.of(told, "main", sites).known_mixture == 1.0
    assert gaps.of(replace(told, unreadable=True), "main", sites).known_mixture == 0.0
