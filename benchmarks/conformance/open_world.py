"""Label the files of code bases outside transformers and llama.cpp, and table the answers, each half apart.

    python -m benchmarks.conformance.open_world [--half seen] [--list] [--write docs/conformance.md]

The rows lie in ``calibration/open_world/rows``. ``--list`` names what is wrong or abstained on, with the reasons, in
the seen half only: the other half is for scoring. Exit status 1 if an answer of 90 % or more is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.open_world.build import STATES, State, write
from calibration.open_world.table import HALVES, Half, Row, load
from normsniff import sniff
from normsniff.errors import NormsniffError

OUTCOMES = ("right", "wrong", "wrong, ≥ 0.9", "abstained", "not read")


def outcome(label: str | None, confidence: float | None, truth: str) -> str:
    """Return which of `OUTCOMES` an answer is; no label means that the file was not read."""
    if label is None:
        return "not read"
    if label == truth:
        return "right"
    if label == "undetermined":
        return "abstained"
    return "wrong, ≥ 0.9" if (confidence or 0.0) >= 0.9 else "wrong"


@dataclass(frozen=True)
class Answer:
    """What was said of one file.

    Attributes:
        row: what is in it.
        state: whether scales and shifts are those of a trained network.
        label: what was said; None where the file was not read.
        confidence: of the label.
        reasons: of the evidence, or what the error says.
    """

    row: Row
    state: State
    label: str | None
    confidence: float | None
    reasons: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """Right, wrong, sure and wrong, abstained, or not read; of what has no label only an abstention is right."""
        return outcome(self.label, self.confidence, self.row.truth)


def answer(row: Row, state: State = "trained") -> Answer:
    """Make the file of a row and label it."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(row, Path(directory), state)
        try:
            record = sniff(path)
        except NormsniffError as error:
            return Answer(row, state, None, None, (str(error).replace(directory, ""),))
    reasons = tuple(f"{e.component}/{e.kind}: {e.label}, {e.reason}" for e in record.evidence)
    return Answer(row, state, record.label, record.confidence, reasons)


def answers(half: Half | None, states: Sequence[State] = STATES) -> list[Answer]:
    """Answer for every row of a half; one whose container cannot be written here is left out, and named."""
    found = []
    for row in load(half):
        for state in states:
            try:
                found.append(answer(row, state))
            except ImportError as missing:
                print(f"{row.name}: left out, {missing.name} is not installed", file=sys.stderr)
    return found


_BLIND = {"blind": "first blind set", "blind_again": "second blind set"}
"""Rows of the unseen half that were written after the rules, by the file that they lie in: counted apart."""
PARTS = (*HALVES, *_BLIND.values())


def _part(row: Row) -> str:
    return _BLIND.get(row.group, row.half)


def markdown(found: Iterable[Answer]) -> str:
    """Return the counts as a table: a row for each half or set, its truth and the state of its weights."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for one in found:
        for truth in (one.row.truth, "all"):
            counts[_part(one.row), one.state, truth, one.outcome] += 1
    lines = [
        f"| half or set | scales and shifts | truth | files | {' | '.join(OUTCOMES)} |",
        "|---" * (len(OUTCOMES) + 4) + "|",
    ]
    for part in PARTS:
        for state in STATES:
            for truth in ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined", "all"):
                cells = [counts[part, state, truth, outcome] for outcome in OUTCOMES]
                if sum(cells):
                    named = "no label of its own" if truth == "undetermined" else truth
                    lines.append(f"| {part} | {state} | {named} | {sum(cells)} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def listed(found: Iterable[Answer]) -> str:
    """Return what is not right in the seen half, by name, with the reasons that were given."""
    lines = []
    for one in found:
        if one.outcome == "right" or one.row.half != "seen":
            continue
        sure = "" if one.confidence is None else f" {one.confidence:.1%}"
        lines.append(f"{one.row.name} ({one.state}): {one.outcome}: {one.label}{sure}, truth {one.row.truth}")
        lines += [f"      {reason}" for reason in one.reasons]
    return "\n".join(lines)


def replaced(document: str, table: str, marks: str = "open world") -> str:
    """Return a document with the table between its two marks replaced, ``<!-- MARKS: begin -->`` and the like.

    Raises:
        ValueError: the document has no such marks.
    """
    before, begin, rest = document.partition(f"<!-- {marks}: begin -->")
    _, end, after = rest.partition(f"<!-- {marks}: end -->")
    if not begin or not end:
        raise ValueError("the document has no marks of this table")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> int:
    """Label every file; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=HALVES, help="default: both")
    parser.add_argument("--list", action="store_true", help="what is not right, with reasons; seen half only")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    arguments = parser.parse_args()
    found = answers(arguments.half)
    table = markdown(found)
    print(table)
    if arguments.list:
        print(f"\n{listed(found)}")
    if arguments.write:
        arguments.write.write_text(replaced(arguments.write.read_text("utf-8"), table), "utf-8")
    return int(any(one.outcome == "wrong, ≥ 0.9" for one in found))


if __name__ == "__main__":
    sys.exit(main())
