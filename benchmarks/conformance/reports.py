"""Label small files that have the structure of public reports, and table the answers.

    python -m benchmarks.conformance.reports [--list] [--write docs/conformance.md]

``reports.toml`` has the files that names and settings tell of, `reports_graphs` the graphs; each cites its thread. The
matrices are random, and scales and shifts moved as training moves them. Where a file holds too little for a label, only
an abstention is right. Exit status 1 if an answer of 90 % or more is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calibration.open_world import build
from calibration.open_world.table import Row, read
from normsniff import sniff
from normsniff.errors import NormsniffError

from .graph_forms import TOKENS, D, Net
from .open_world import OUTCOMES, outcome, replaced
from .reports_graphs import GRAPHS, GraphReport

_TABLE = Path(__file__).with_name("reports.toml")
_MARKS = "reports"
_ABSTAINED = "undetermined"


@dataclass(frozen=True)
class Report:
    """A file with the structure of a public report.

    Attributes:
        thread: where it was reported.
        name: what is special about it.
        truth: its label; ``undetermined`` where only an abstention is right.
        write: writes the file into an empty directory and returns what to label.
    """

    thread: str
    name: str
    truth: str
    write: Callable[[Path], Path]


@dataclass(frozen=True)
class Answer:
    """What was said of one report: label and confidence, None where the file was not read, and the reasons."""

    report: Report
    label: str | None
    confidence: float | None
    reasons: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """One of the outcomes of the table of code bases."""
        return outcome(self.label, self.confidence, self.report.truth)


def reports() -> Iterator[Report]:
    """Yield all reports."""
    for row in read(_TABLE):
        yield Report(_thread(row.source, row.path), row.name, row.truth, partial(_write_row, row))
    for graph in GRAPHS:
        name = graph.write.__name__.strip("_").replace("_", "-").replace("<lambda>", "operator")
        yield Report(_thread(graph.source, graph.path), name, graph.truth, partial(_write_graph, graph))


def _thread(source: str, path: str) -> str:
    return f"https://github.com/{source}/{path}"


def _write_row(row: Row, directory: Path) -> Path:
    return build.write(row, directory)


def _write_graph(graph: GraphReport, directory: Path) -> Path:
    net = Net(graph.opset, tokens=D if graph.square else TOKENS)
    path = directory / "model.onnx"
    path.write_bytes(net.transformer(graph.write).SerializeToString())
    return path


def answer(report: Report) -> Answer:
    """Make the file of a report and label it.

    Raises:
        ImportError: the library that writes its container is not installed.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = report.write(Path(directory))
        try:
            record = sniff(path)
        except NormsniffError as error:
            return Answer(report, None, None, (str(error).replace(directory, ""),))
    reasons = tuple(f"{e.component}/{e.kind}: {e.label}, {e.reason}" for e in record.evidence)
    return Answer(report, record.label, record.confidence, reasons)


def answers() -> list[Answer]:
    """Answer all reports; one whose container cannot be written here is left out, and named."""
    found = []
    for report in reports():
        try:
            found.append(answer(report))
        except ImportError as missing:
            print(f"{report.thread}: left out, {missing.name} is not installed", file=sys.stderr)
    return found


def markdown(found: Iterable[Answer]) -> str:
    """Return the counts by truth, and then every report with its answer."""
    found = list(found)
    counts = Counter((truth, one.outcome) for one in found for truth in (one.report.truth, "all"))
    lines = [f"| truth | files | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for truth in ("LayerNorm", "RMSNorm", "none", _ABSTAINED, "all"):
        cells = [counts[truth, outcome] for outcome in OUTCOMES]
        named = "too little for a label" if truth == _ABSTAINED else truth
        lines.append(f"| {named} | {sum(cells)} | {' | '.join(map(str, cells))} |")
    lines += ["", "| report | what is in it | truth | answer |", "|---|---|---|---|"]
    for one in found:
        short = one.report.thread.removeprefix("https://github.com/")
        sure = "" if one.confidence is None else f" {one.confidence:.0%}"
        said = "not read" if one.label is None else f"{one.label}{sure}"
        lines.append(f"| [{short}]({one.report.thread}) | {one.report.name} | {one.report.truth} | {said} |")
    return "\n".join(lines)


def main() -> int:
    """Label every file; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="what is not right, with reasons")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this document")
    arguments = parser.parse_args()
    found = answers()
    table = markdown(found)
    print(table)
    if arguments.list:
        for one in found:
            if one.outcome != "right":
                print(f"\n{one.report.thread} ({one.report.name}): {one.outcome}", *one.reasons, sep="\n      ")
    if arguments.write:
        arguments.write.write_text(replaced(arguments.write.read_text("utf-8"), table, _MARKS), "utf-8")
    return int(any(one.outcome == "wrong, ≥ 0.9" for one in found))


if __name__ == "__main__":
    sys.exit(main())
