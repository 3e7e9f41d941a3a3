"""What a check says of one model: a report of findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from .._version import __version__
from ..record import Finding, Label, Severity, Written


class Report(Written, frozen=True, kw_only=True, eq=False):
    """All findings about one model.

    Attributes:
        tool_version: version of normsniff.
        path: the model, as given.
        format: of the file.
        architecture: what the file calls itself.
        label: `sniff`'s verdict from what was read for the checks.
        confidence: its confidence.
        norms: norm sites that were looked at.
        unread: of these, how many could not be read.
        deep: whether matrices were read, too.
        findings: gravest first.
        bytes_read: bytes read for it.
        requests: sent for it, for a model behind a URL; else None.
        seconds: wall-clock time.
    """

    _shown: ClassVar = ("path", "label", "codes")

    tool_version: str = __version__
    path: str
    format: str
    architecture: str | None
    label: Label
    confidence: float | None
    norms: int
    unread: int
    deep: bool
    findings: tuple[Finding, ...]
    bytes_read: int | None
    requests: int | None
    seconds: float

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, each once."""
        return list(dict.fromkeys(one.code for one in self.findings))

    def count(self, severity: Severity) -> int:
        """Return how many findings are of one severity."""
        return sum(one.severity == severity for one in self.findings)


def chosen(found: Iterable[Finding], select: Sequence[str], ignore: Sequence[str]) -> tuple[Finding, ...]:
    """Return the findings whose codes are selected (all, if none is named) and not ignored."""
    return tuple(one for one in found if (not select or one.code in select) and one.code not in ignore)
