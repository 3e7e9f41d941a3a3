"""Sniff cases and table the answers: right, wrong, undetermined; every wrong one by name."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from normsniff import Classification, sniff

from .cases import Case

Outcome = Literal["right", "wrong", "undetermined"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "undetermined")


@dataclass(frozen=True)
class Answer:
    """What normsniff said of one case, of its main stream or of one of its towers (`part`)."""

    case: Case
    part: str
    truth: str
    label: str
    confidence: float | None
    reasons: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Right, wrong, or honestly undecided."""
        if self.label == self.truth:
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
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(OUTCOMES, 0))
    for one in answers:
        counts[one.case.group, one.case.variant + (", towers" if one.part else "")][one.outcome] += 1
    lines = [f"{'format':<16} {'evidence':<34} {'right':>6} {'wrong':>6} {'undetermined':>13}"]
    lines += [
        f"{group:<16} {variant:<34} {found['right']:>6} {found['wrong']:>6} {found['undetermined']:>13}"
        for (group, variant), found in counts.items()
    ]
    return "\n".join(lines)


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
