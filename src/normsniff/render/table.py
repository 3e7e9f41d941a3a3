"""Answers as rows: one flat column for every question that is often asked, and the whole record as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import OutputError
from ..record import Answer
from .row import Row, row_of

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What spreadsheets begin a formula with, or skip before they look for one. Numbers stay as they are."""


def write_jsonl(answers: Iterable[Answer], file: BinaryIO) -> None:
    """Write one record a line."""
    for answer in answers:
        file.write(msgspec.json.encode(answer) + b"\n")


def write_csv(answers: Iterable[Answer], file: BinaryIO) -> None:
    """Write the flat columns, without the record.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection").
    """
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    columns = [name for name in Row.__struct_fields__ if name != "record"]
    writer = csv.writer(text)
    writer.writerow(columns)
    for answer in answers:
        row = row_of(answer)
        writer.writerow([_harmless(getattr(row, name)) for name in columns])
    text.detach()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def writer_for(output: Path) -> Callable[[Iterable[Answer], BinaryIO], None]:
    """Return the function that writes the kind of file that `output` is named like.

    Raises:
        OutputError: none is.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    if output.suffix == ".jsonl":
        return write_jsonl
    if output.suffix == ".csv":
        return write_csv
    if output.suffix == ".parquet":
        from .parquet import write_parquet

        return write_parquet
    raise OutputError(str(output), "the name must end in .parquet, .jsonl or .csv")
