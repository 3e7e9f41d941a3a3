"""docs/map.md and its picture are what the script draws from the sources; if not: python -m tools.draw_map."""

from __future__ import annotations

from xml.etree import ElementTree

from tools import draw_map


def test_the_picture_is_that_of_the_sources() -> None:
    assert draw_map.PICTURE.read_text(encoding="utf-8") == draw_map.picture()


def test_the_table_is_that_of_the_sources() -> None:
    assert draw_map.PAGE.read_text(encoding="utf-8") == draw_map.page()


def test_every_room_is_in_the_picture_once() -> None:
    texts = [node.text for node in ElementTree.fromstring(draw_map.picture()).iter() if node.tag.endswith("text")]  # noqa: S314 - our own
    base = draw_map.ground(draw_map.HOUSE.arrows)
    for room in draw_map.HOUSE.arrows.keys() - base - {"__main__"}:
        assert texts.count(draw_map.named(room)) == 1


def test_a_line_is_left_out_where_a_longer_way_leads() -> None:
    assert draw_map.reduced({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == {"a": set(), "b": {"a"}, "c": {"b"}}
