"""Sniff cases and table the answers: right, wrong, undetermined; every wrong one by name."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from normsniff import Classification, sniff

from .cases import Case

Outcome = Literal["right", "wrong", "undetermined"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "undetermined")


class Named(Protocol):
    """What an answer is listed and tabled under."""

    @property
    def name(self) -> str:
        """Architecture, model type or network."""

    @property
    def group(self) -> str:
        """Format, exporter or container."""

    @property
    def variant(self) -> str:
        """Evidence."""


@dataclass(frozen=True)
class Answer:
    """What normsniff said of one case, of its main stream or of one of its towers (`part`)."""

    case: Named
    part: str
    truth: str
    label: str
    confidence: float | None
    reasons: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Right, wrong, or honestly undecided."""
        if self.label == self.truth != "undetermined":
            return "right"
        return "undetermined" if self.label == "undetermined" else "wrong"


def answer(case: Case) -> list[Answer]:
    """Write the file of a case, sniff it, and compare the main stream and every tower that both sides know."""
    with tempfile.TemporaryDirectory() as directory:
        record = sniff(case.write(Path(directory)), evidence=("declared", "layout"))
    answers = [_answer(case, "", case.label, record.label, record.confidence, record)]
    if len(set(case.components.values())) > 1 and len(record.components) > 1:
        given = {part.name: part for part in record.components}
        for tower, truth in case.components.items():
            if (part := given.get(tower)) is not None:
                answers.append(_answer(case, tower, truth, part.label, part.confidence, record))
    return answers


def _answer(case: Case, part: str, truth: str, label: str, confidence: float | None, record: Classification) -> Answer:
    reasons = tuple(f"{e.component}/{e.kind}: {e.reason}" for e in record.evidence)
    return Answer(case, part, truth, label, confidence, reasons)


def table(answers: Iterable[Answer]) -> str:
    """Counts by format and evidence."""
    counts = _counts(answers)
    wide = [max((len(row[i]) for row in counts), default=0) for i in range(2)]
    rows = [("format", "evidence", *OUTCOMES), *((*row, *map(str, found.values())) for row, found in counts.items())]
    lines = [
        f"{group:<{wide[0]}} {variant:<{wide[1]}} {right:>6} {wrong:>6} {undetermined:>13}"
        for group, variant, right, wrong, undetermined in rows
    ]
    return "\n".join(lines)


def markdown(answers: Iterable[Answer]) -> str:
    """The same counts as a table for a document: a row a format, a column a kind of evidence."""
    counts = _counts(answers)
    variants = list(dict.fromkeys(variant for _, variant in counts))
    lines = [f"| right / wrong / undetermined | {' | '.join(variants)} |", "|---" * (len(variants) + 1) + "|"]
    for group in dict.fromkeys(group for group, _ in counts):
        cells = (" / ".join(map(str, counts[group, v].values())) if (group, v) in counts else "" for v in variants)
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _counts(answers: Iterable[Answer]) -> dict[tuple[str, str], dict[str, int]]:
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    for one in answers:
        counts[one.case.group, one.case.variant + (", towers" if one.part else "")][one.outcome] += 1
    return dict(counts)


def listed(answers: Iterable[Answer], outcome: Outcome = "wrong") -> str:
    """One line a case with that outcome, and the reasons that were given."""
    lines = []
    for one in answers:
        if one.outcome == outcome:
            sure = "" if one.confidence is None else f" ({one.confidence:.0%})"
            lines.append(
                f"{one.case.group} | {one.case.name}{one.part and ' / ' + one.part} | {one.case.variant}: "
                f"{one.label}{sure}, truth {one.truth}"
            )
            lines += [f"      {reason}" for reason in one.reasons]
    return "\n".join(lines)
