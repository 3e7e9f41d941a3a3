"""Lines made of styled pieces: aligned columns, plain in a pipe, coloured on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Line = list[tuple[str, str]]
"""Pieces of one line, each a text and a rich style ("" for none)."""


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[Line]:
    """Yield a table with aligned columns, its header first."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for number, row in enumerate(cells):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield [("  " + text, "" if number else "bold")]


def reasons(given: Sequence[str]) -> Iterator[Line]:
    """Yield each reason once, with how many rows of a table it stands for; "" is none."""
    for reason, times in Counter(filter(None, given)).items():
        yield [(f"  {times} of {len(given)}: {reason}", "dim")]


def emit(lines: Iterable[Line], console: Console | None) -> None:
    """Print lines: through `console` with colour, or plainly to standard output if it is None."""
    import click

    for line in lines:
        if console is None:
            click.echo(_printable("".join(text for text, _ in line)))
            continue
        from rich.text import Text

        console.print(Text.assemble(*((_printable(text), style) for text, style in line)), soft_wrap=True)


def _printable(text: str) -> str:
    """Replace control characters: names come from the file, and a terminal obeys them."""
    return "".join(ch if ch.isprintable() else "�" for ch in text)
