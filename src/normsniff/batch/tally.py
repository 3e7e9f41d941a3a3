"""What many answers amount to, and what was passed over on the way to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import BinaryIO

import msgspec

from ..json_text import writable
from ..record import Answer, Classification, Failure, spelled
from ..words import amount

_GENERAL = re.compile(r":| \(| in |, which | because ")
"""Where the words of a reason that are about the single file begin."""

_REASONS, _OTHER = 40, "other reasons"
_EXAMPLES = 3  # files that a line names for a reason


def ranked(counts: Counter[str]) -> dict[str, int]:
    """Return the counts, the highest first and equal ones by name, because answers come in any order."""
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


@dataclass(slots=True)
class Tally:
    """What the answers of a scan amount to.

    Attributes:
        labels: answers by label.
        failures: failures by error code, or by error type where there is no code.
        duplicates: inputs whose content was answered under another path.
        contradictions: answers in which kinds of evidence disagree.
        broken: answers with an error among the findings about their norms.
        bytes_read: bytes read for the answers.
    """

    labels: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    contradictions: int = 0
    broken: int = 0
    bytes_read: int = 0

    @property
    def inputs(self) -> int:
        """How many inputs were answered, one way or another."""
        return self.labels.total() + self.failures.total() + self.duplicates

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if isinstance(answer, Classification):
            self.labels[answer.label] += 1
            self.contradictions += bool(answer.contradictions)
            self.broken += bool(answer.count("error"))
            self.bytes_read += answer.bytes_read or 0
        elif isinstance(answer, Failure):
            self.failures[answer.error.code or answer.error.type] += 1
        else:
            self.duplicates += 1

    def sentence(self) -> str:
        """Return what it amounts to, in one line."""
        counts = [f"{n:,} {label}" for label, n in ranked(self.labels).items()]
        if self.failures:
            why = ", ".join(f"{n:,} {code}" for code, n in ranked(self.failures).items())
            counts.append(f"{self.failures.total():,} not answered ({why})")
        beside = {"conflict": self.contradictions, "with damaged norms": self.broken, "duplicate": self.duplicates}
        marks = [amount(n, name, name if name.startswith("with") else None) for name, n in beside.items() if n]
        return f"{amount(self.inputs, 'model')}: {', '.join([*counts, *marks])}"

    def merge(self, other: Tally) -> None:
        """Count what another one counts."""
        self.labels += other.labels
        self.failures += other.failures
        self.duplicates += other.duplicates
        self.contradictions += other.contradictions
        self.broken += other.broken
        self.bytes_read += other.bytes_read


@dataclass(slots=True)
class PassedOver:
    """What a scan was told of and did not take for an input: counted by its reason, and listed where asked for.

    Attributes:
        file: takes a line of JSON for each, with ``path`` and ``reason``; or None.
        reasons: how many there were of each reason, what it says of the single file left out.
        examples: the first few of each reason, with all that it says.
    """

    file: BinaryIO | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __call__(self, path: object, reason: str) -> None:
        """Take note of one."""
        general = _GENERAL.split(reason, maxsplit=1)[0].strip()
        known = general if general in self.reasons or len(self.reasons) < _REASONS else _OTHER
        self.reasons[known] += 1
        shown = self.examples.setdefault(known, [])
        if len(shown) < _EXAMPLES:
            shown.append((spelled(path), reason))
        if self.file is not None:
            self.file.write(msgspec.json.encode({"path": spelled(path), "reason": writable(reason)}) + b"\n")

    def lines(self) -> Iterator[str]:
        """Yield a line for each reason, those of most files first."""
        for reason, times in ranked(self.reasons).items():
            shown = self.examples[reason]
            if times == 1:
                yield f"skipped {shown[0][0]}: {shown[0][1]}"
            else:
                names = ", ".join(PurePath(path).name for path, _ in shown) + (" ..." if times > len(shown) else "")
                yield f"skipped {times:,} files: {reason} ({names})"
