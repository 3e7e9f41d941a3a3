"""The report of a check for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ..checks.findings import Report
from ..record import SEVERITIES, Severity
from ..words import amount
from .lines import Line

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
_INDENT = 26  # where the words begin, behind severity and code
_WIDTH = 118


def lines(report: Report) -> Iterator[Line]:
    """Yield the lines of one report: every finding with its norms and its cure, then the counts and the label."""
    for one in report.findings:
        head = f"{one.severity:<9}{one.code:<17}"
        text = textwrap.wrap(one.reason, _WIDTH - _INDENT, break_on_hyphens=False) or [""]
        yield [(head, _STYLES[one.severity]), (text[0], "")]
        below = text[1:]
        if one.where:
            below += [f"at: {one.where}"]
        below += textwrap.wrap(f"fix: {one.cure}", _WIDTH - _INDENT, break_on_hyphens=False)
        yield from ([(" " * _INDENT + line, "dim")] for line in below)
    counts = [amount(report.count(severity), severity) for severity in SEVERITIES if report.count(severity)]
    sure = "" if report.confidence is None else f" {report.confidence:.1%}"
    unread = f", {report.unread} not read" if report.unread else ""
    yield [
        (
            f"{', '.join(counts) or 'nothing found'}; {report.label}{sure}, {amount(report.norms, 'norm')}{unread}  ",
            "bold",
        ),
        (report.path, ""),
    ]
