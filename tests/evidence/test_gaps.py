"""What is not understood takes the weight off statements about all norms."""

from __future__ import annotations

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


def vector(width: int | None = D) -> Unexplained:
    return Unexplained("vector", "a.b", "", width)


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
