"""The axis of a picture: what is beyond it is drawn at its end, and is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.render.report.axis import LogAxis, beyond, named

AXIS = LogAxis((0.1, 1.0, 10.0), 0.1, 10.0, 20, 100)


@given(st.floats(0, 1e300))
def test_every_value_is_drawn_within_the_picture(value: float) -> None:
    assert 20 <= AXIS.at(value) <= 120
    point = AXIS.point(5, value, 3, "point")
    assert point.tag == ("polygon" if AXIS.misses(value) else "circle")


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_larger_values_are_higher(one: float, other: float) -> None:
    assert (AXIS.at(one) <= AXIS.at(other)) or one < other


def test_the_middle_is_the_geometric_mean() -> None:
    assert AXIS.at(1.0) == pytest.approx(70)


def test_arrowheads_point_outwards() -> None:
    up, down = (AXIS.point(0, value, 3, "p").get("points") for value in (100, 0.001))
    assert up == "-5,25 5,25 0,15"
    assert down == "-5,115 5,115 0,125"


def test_what_lies_beyond_is_named_and_many_are_counted() -> None:
    assert beyond(AXIS, [("in", 1.0)]) == ""
    assert "out (20)." in beyond(AXIS, [("in", 1.0), ("out", 20.0)])
    assert named([(f"m{i}", 99.0) for i in range(9)]).endswith("m5 (99) and 3 more.")
