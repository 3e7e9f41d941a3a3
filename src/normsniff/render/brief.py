"""A record as one aligned line, for many of them."""

from __future__ import annotations

from ..checks.labels import CODES  # findings that are marked as conflicts and rewrites
from ..record import Classification, Failure
from ..words import amount
from .lines import Line
from .text import COLOURS

_LABEL, _SURE, _FORMAT = 12, 6, 11  # the longest words: undetermined, 100.0%, safetensors


def line(answer: Classification | Failure) -> Line:
    """Return label, certainty, format and path, then what to look into."""
    if isinstance(answer, Failure):
        why = answer.error.code or answer.error.type
        return _columns("not answered", "bold red", "–", "", answer.path, why)
    sure = "–" if answer.confidence is None else f"{answer.confidence:.1%}"
    return _columns(answer.label, COLOURS[answer.label], sure, answer.format, answer.path or "", _marks(answer))


def _columns(label: str, style: str, sure: str, form: str, path: str, marks: str) -> Line:
    start: Line = [(f"{label:<{_LABEL}}", style), (f"  {sure:>{_SURE}}  {form:<{_FORMAT}}  ", "")]
    return [*start, (f"{path}  ({marks})" if marks else path, "red" if marks else "")]


def _marks(record: Classification) -> str:
    own = [one.severity for one in record.findings or () if one.code not in CODES]
    counts = [
        (len(record.contradictions), "conflict"),
        (own.count("error"), "error"),
        (own.count("warning"), "warning"),
    ]
    marks = [amount(n, name) for n, name in counts if n]
    return ", ".join([*marks, *(["rewritten"] if record.rewritten_from else [])])
