"""What docs/formats.md says is what the code does."""

from __future__ import annotations

from normsniff.formats import FORMATS
from tools.formats_page import PAGE, families, refused, written


def test_the_page_is_as_the_code_has_it() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page) == page
    assert len(refused()) > 10
    assert "GGUF" in families()


def test_every_format_has_a_row() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row.name for row in FORMATS if row.name not in rows] == []


def test_a_page_that_has_fallen_behind_is_seen() -> None:
    page = PAGE.read_text("utf-8").replace("| an executable |", "| a program |").replace("model types of", "types of")
    assert written(page) == PAGE.read_text("utf-8")
