"""Table how files of every kind were labelled: by the committed rows, or by making and labelling all of them again.

    python -m benchmarks.conformance.kinds [--again] [--write docs/conformance.md]

The files are those of `calibration.kinds`, on which `none` and `mixed` are counted. Exit status 1 if a label is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from calibration.kinds.count import Said, answers, load

from .open_world import replaced

OUTCOMES = ("right", "wrong", "abstained", "not read")
MARK = "kinds"


def markdown(rows: Iterable[Said]) -> str:
    """Return the counts as a table: a row for each kind and container."""
    counts = Counter((one.kind, one.container, one.outcome) for one in rows)
    lines = [f"| kind | container | files | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 3) + "|"]
    for kind, container in sorted({key[:2] for key in counts}):
        cells = [counts[kind, container, outcome] for outcome in OUTCOMES]
        lines.append(f"| {kind} | {container} | {sum(cells)} | {' | '.join(map(str, cells))} |")
    totals = [sum(n for key, n in counts.items() if key[2] == outcome) for outcome in OUTCOMES]
    lines.append(f"| all | | {sum(totals)} | {' | '.join(map(str, totals))} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table, and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="make and label the files, instead of what was kept")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    arguments = parser.parse_args()
    rows = list(answers()) if arguments.again else load()
    print(markdown(rows))
    wrong = [one for one in rows if one.outcome == "wrong"]
    for one in wrong:
        print(f"{one.name} ({one.container}): {one.label}, truth {one.truth}")
    if arguments.write:
        document = arguments.write.read_text("utf-8")
        arguments.write.write_text(replaced(document, markdown(rows), MARK), "utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
