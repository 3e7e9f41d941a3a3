"""Label every file that can be made, keep what was said in the committed table, and count from that.

    python -m calibration kinds

The table says of each file what it is, what was said, and which rule said it, so that nobody needs torch, scikit-learn
and Keras to count again what the rules are worth.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from normsniff import sniff
from normsniff.errors import NormsniffError
from normsniff.record import Classification

TABLE = Path(__file__).parent / "table.csv"


class Said(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the network.
        kind: of network.
        container: of file.
        truth: its label.
        label: what was said; ``not read`` where the file was refused.
        claim: ``none`` or ``mixed`` where a rule says so, whether it is believed or not; else "".
        rule: that rule, or "".
    """

    name: str
    kind: str
    container: str
    truth: str
    label: str
    claim: str
    rule: str

    @property
    def outcome(self) -> str:
        """Right, wrong, abstained or not read."""
        if self.label == self.truth:
            return "right"
        return {"undetermined": "abstained", "not read": "not read"}.get(self.label, "wrong")


def answers() -> Iterator[Said]:
    """Make every file and label it."""
    from .files import files

    for one in files():
        with tempfile.TemporaryDirectory() as folder:
            path = one.write(Path(folder))
            try:
                record = sniff(path)
            except NormsniffError:
                yield Said(*one[:4], "not read", "", "")
                continue
        yield Said(*one[:4], record.label, *_claim(one.container, record))


def _claim(container: str, record: Classification) -> tuple[str, str]:
    """Return the first claim that no odds between two norms speak for, and the rule that makes it.

    What it is worth is counted from this, so that it must not hang on what it was worth before.
    """
    for one in record.evidence:
        if one.label in ("none", "mixed") and one.kind in ("declared", "layout"):
            computed = "computed" if container in ("graph", "layers") else "content"
            return one.label, f"{computed if one.kind == 'declared' else 'layout'} {one.label}"
    return "", ""


def write() -> None:
    """Replace the table."""
    rows = sorted(answers())
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(Said._fields)
        out.writerows(rows)


def load() -> list[Said]:
    """Return the committed table."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [Said(**row) for row in csv.DictReader(file)]


def counted(rule: str, by: Literal["name", "kind"], rows: Sequence[Said] | None = None) -> tuple[int, int]:
    """Return how often a rule said the truth, and how often not.

    Args:
        rule: a rule of the table.
        by: what counts once: a network, in whatever files; or all networks of a kind, where what they share decides
            (their makers give their layers the same names).
        rows: of the table; the committed ones unless given.
    """
    found = [row for row in (load() if rows is None else rows) if row.rule == rule]
    wrong = {getattr(row, by) for row in found if row.claim != row.truth}
    return len({getattr(row, by) for row in found} - wrong), len(wrong)
