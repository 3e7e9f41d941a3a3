"""Lines made of styled pieces: aligned columns, plain in a pipe, coloured on a terminal."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_SHORTEST = 20  # characters that a name or a wrapped text keeps

Line = list[tuple[str, str]]
"""Pieces of one line, each a text and a rich style ("" for none)."""


def columns(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int | None = None,
    dispensable: Sequence[str] = (),
) -> Iterator[Line]:
    """Yield a table with aligned columns, its header first.

    Args:
        header: of the columns.
        rows: the cells.
        width: characters of a line; None if there is no end to it.
        dispensable: headers of columns that are left out where the table is too wide, in this order; then the first
            column is cut in its middle, where names of one network are alike; then the last ones go, but for one.
    """
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    kept, left_out = list(range(len(header))), []
    room = math.inf if width is None else width
    for name in dispensable:
        if _line_width(widths, kept) <= room:
            break
        kept.remove(header.index(name))
        left_out.append(name)
    shortest = min(widths[0], _SHORTEST) - widths[0]
    while len(kept) > 2 and _line_width(widths, kept) + shortest > room:
        left_out.append(header[kept.pop()])
    over = _line_width(widths, kept) - room
    first = widths[0] if over <= 0 else max(int(widths[0] - over), _SHORTEST)
    for number, row in enumerate(cells):
        shown = [_cut(row[0], first).ljust(first), *(row[i].ljust(widths[i]) for i in kept[1:])]
        yield [("  " + "  ".join(shown).rstrip(), "" if number else "bold")]
    if left_out:
        yield [(f"  not shown for want of width: {', '.join(left_out)}", "dim")]


def _line_width(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] + 2 for i in kept)


def _cut(text: str, width: int) -> str:
    """Return a text of at most `width` characters, its middle left out."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def reasons(given: Sequence[str]) -> Iterator[Line]:
    """Yield each reason once, with how many rows of a table it stands for; "" is none."""
    for reason, times in Counter(filter(None, given)).items():
        yield [(f"  {times} of {len(given)}: {reason}", "dim")]


def emit(lines: Iterable[Line], console: Console | None) -> None:
    """Print lines: through `console` with colour and wrapped at words, or plainly to standard output if it is None."""
    for whole in lines:
        for line in [whole] if console is None else _wrapped(whole, console.width):
            _print(line, console)


def _print(line: Line, console: Console | None) -> None:
    if console is None:
        import click

        click.echo(_printable("".join(text for text, _ in line)))
        return
    from rich.text import Text

    console.print(Text.assemble(*((_printable(text), style) for text, style in line)), soft_wrap=True)


def _wrapped(line: Line, width: int) -> Iterator[Line]:
    """Yield a line as lines of at most `width` characters; the last piece goes on below where it began."""
    *before, (text, style) = line or [("", "")]
    indent = sum(len(piece) for piece, _ in before) if before else len(text) - len(text.lstrip())
    if indent + len(text.strip()) <= width or width - indent < _SHORTEST:
        yield line
        return
    rows = textwrap.wrap(text.strip(), width - indent, break_long_words=False, break_on_hyphens=False)
    lead: Line = before or [(" " * indent, "")]
    yield [*lead, (rows[0], style)]
    yield from ([(" " * indent, ""), (row, style)] for row in rows[1:])


def _printable(text: str) -> str:
    """Replace control characters: names come from the file, and a terminal obeys them."""
    return "".join(ch if ch.isprintable() else "�" for ch in text)
