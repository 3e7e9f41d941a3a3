"""Tables and wrapped lines fit the terminal, and no word is broken."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from normsniff.render.lines import columns, emit

HEADER = ("norm", "role", "d", "scale")
ROWS = [("model.layers.0.input_layernorm.weight", "stream", "4096", "1.00"), ("final", "stream", "4096", "2.00")]


def table(width: int | None, dispensable: tuple[str, ...] = ("role", "d")) -> list[str]:
    return ["".join(text for text, _ in line) for line in columns(HEADER, ROWS, width, dispensable)]


def test_a_pipe_gets_all() -> None:
    assert table(None)[0].split() == list(HEADER)
    assert len(table(None)) == 3


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, ["norm", "role", "d", "scale"]),
        (55, ["norm", "d", "scale"]),
        (48, ["norm", "scale"]),
        (35, ["norm", "scale"]),
    ],
)
def test_columns_go_in_their_order_and_are_named(width: int, header: list[str]) -> None:
    lines = table(width)
    assert lines[0].split() == header
    assert all(len(line) <= width for line in lines[:3])
    missing = [name for name in HEADER if name not in header]
    assert (lines[3:] == []) == (not missing)
    assert not missing or lines[3].endswith(", ".join(missing))


def test_where_even_that_is_too_wide_the_last_columns_go() -> None:
    lines = table(32, dispensable=("role",))
    assert lines[0].split() == ["norm", "d"]
    assert all(len(line) <= 32 for line in lines[:3])
    assert lines[3].endswith("role, scale")
    assert [line.split()[0] for line in table(5)[:1]] == ["norm"], "a name is kept, however narrow it gets"


def test_a_name_is_cut_in_its_middle() -> None:
    assert table(35)[1].split()[0] == "model.layers.…rnorm.weight"


def printed(pieces: list[tuple[str, str]], width: int) -> list[str]:
    file = io.StringIO()
    emit([pieces], Console(file=file, width=width, force_terminal=True, no_color=True, highlight=False))
    return file.getvalue().splitlines()


@given(st.lists(st.text("abc", min_size=1, max_size=12), min_size=1, max_size=30), st.integers(45, 120))
def test_words_stay_whole_and_lines_short(words: list[str], width: int) -> None:
    lines = printed([("  kernel     ", ""), ("LayerNorm  ", ""), (" ".join(words), "")], width)
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(" " * 24) for line in lines[1:])
    assert " ".join(lines).split()[2:] == words


def test_a_line_of_one_piece_goes_on_below_its_own_beginning() -> None:
    assert printed([("    one two three four five six", "")], 26) == ["    one two three four", "    five six"]
