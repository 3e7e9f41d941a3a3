"""What a check says: findings with a code, and the report that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec

from .._version import __version__
from ..record import Label

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Gravest first."""

_SHOWN = 3  # norms that a line names


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or worth a look.

    Attributes:
        code: stable slug; `normsniff explain CODE` and docs/checks say what it means.
        severity: an ``error`` changes what the model computes, or shows that it was damaged; a ``warning`` may; a
            ``note`` is only said.
        component: the tower.
        norms: names of the sites, in the order of the network; empty if it is about the file.
        reason: one sentence with the measured numbers.
        cure: what to do.
        confidence: probability that the finding is right, where it rests on a likelihood; None where it is read off.
        details: the numbers behind it.
    """

    code: str
    severity: Severity
    component: str
    norms: tuple[str, ...]
    reason: str
    cure: str
    confidence: float | None = None
    details: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """The norms, in a few words."""
        more = len(self.norms) - _SHOWN
        return ", ".join(self.norms[:_SHOWN]) + (f" … ({len(self.norms)})" if more > 0 else "")


class Report(msgspec.Struct, frozen=True, kw_only=True):
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

    def count(self, severity: Severity) -> int:
        """Return how many findings are of one severity."""
        return sum(one.severity == severity for one in self.findings)

    def to_json(self) -> bytes:
        """Encode as one line of JSON."""
        return msgspec.json.encode(self)


def in_order(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings, the gravest first, else in the order given."""
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def chosen(found: Iterable[Finding], select: Sequence[str], ignore: Sequence[str]) -> tuple[Finding, ...]:
    """Return the findings whose codes are selected (all, if none is named) and not ignored."""
    return tuple(one for one in found if (not select or one.code in select) and one.code not in ignore)
