"""From raw results to what is committed, none of it weights.

``spectra.jsonl.xz`` holds the raw results: of every matrix of every snapshot ρ and the spectrum, and of every role the
pooled one, so that features can be changed without training again. ``corpus.csv.gz`` is the table made of it: features,
truth and every hyper-parameter.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from normsniff.evidence.features import DESCRIPTIONS, MatrixFact, from_shapes, with_roles
from normsniff.kernel import LearnedShadow, Peaks, learned

ARCHIVE = Path(__file__).with_name("spectra.jsonl.xz")
TABLE = Path(__file__).with_name("corpus.csv.gz")
META = ("run", "step", "treatment", "component", "view", "truth", "loss")
PLAN = (
    "source", "name", "kind", "norm", "placement", "d", "layers", "steps", "biases", "glu", "activation", "tied",
    "positions", "qk_norm", "experts", "wide", "grouped", "optimiser", "decay", "decay_all", "rate", "beta2", "init",
    "depth_scaled", "rows", "length", "schedule", "dropout", "data", "images", "vocabulary", "bf16",
)  # fmt: skip
Row = dict[str, Any]


def pack(raw: Path, archive: Path = ARCHIVE) -> None:
    """Put the raw results of all finished runs into the archive, in place of those of the same runs."""
    found = {json.loads(lines[0])["plan"]["index"]: lines for lines in _runs(archive)} if archive.exists() else {}
    for file in sorted(raw.glob("run*.jsonl")):
        lines = file.read_text().splitlines()
        found[json.loads(lines[0])["plan"]["index"]] = lines
    text = "\n".join(line for run in sorted(found) for line in found[run]) + "\n"
    archive.write_bytes(lzma.compress(text.encode(), preset=6))
    print(f"{len(found)} runs, {archive.stat().st_size:,} bytes")


def build(archive: Path = ARCHIVE, table: Path = TABLE) -> None:
    """Make the table of features from the archive of raw results."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*META, *PLAN, *DESCRIPTIONS], lineterminator="\n", restval="")
    writer.writeheader()
    runs = 0
    for lines in _runs(archive):
        runs += 1
        plan, *records = (json.loads(line) for line in lines)
        for record in records:
            writer.writerows(_rows(plan["plan"], record))
    table.write_bytes(gzip.compress(out.getvalue().encode(), 9, mtime=0))
    print(f"{runs} runs, {out.getvalue().count(chr(10)) - 1} rows, {table.stat().st_size:,} bytes")


def _runs(archive: Path) -> Iterator[list[str]]:
    """Yield the lines of every run: its plan, then its snapshots and copies."""
    lines: list[str] = []
    with lzma.open(archive, "rt") as file:
        for line in file:
            if line.startswith('{"plan"') and lines:
                yield lines
                lines = []
            lines.append(line.rstrip("\n"))
    if lines:
        yield lines


def load(table: Path = TABLE) -> list[Row]:
    """Return the rows with numbers as numbers; features that could not be computed are absent."""
    rows = []
    for row in _lines(table):
        for name in DESCRIPTIONS:
            value = row.pop(name)
            if value:
                row[name] = float(value)
        for name in ("run", "step", "d", "layers", "steps"):
            row[name] = int(row[name])
        rows.append(row)
    return rows


def _lines(table: Path) -> Iterator[Row]:
    yield from csv.DictReader(io.StringIO(gzip.decompress(table.read_bytes()).decode()))


def digest(table: Path = TABLE) -> str:
    """Return the SHA-256 of the table's text, which does not depend on the version of zlib."""
    return hashlib.sha256(gzip.decompress(table.read_bytes())).hexdigest()


def _rows(plan: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Row]:
    if "roles" not in record:
        yield _row(plan, record, "main", "diverged", None)
        return
    roles, shapes = record["roles"], record["shapes"]
    for component in roles["widths"] or ["main"]:
        normed = component in roles["normed"]
        found = with_roles(_facts(roles, component), roles["scale_spread"], _pools(roles, component), normed=normed)
        yield _row(plan, record, component, "roles", None if component in roles["unlike"] else found)
    found = from_shapes(_facts(shapes, "main"), shapes["scale_spread"], _pools(shapes, "main"))
    yield _row(plan, record, "main", "shapes", None if shapes["unlike"] else found)


def _row(
    plan: Mapping[str, Any], record: Mapping[str, Any], component: str, view: str, found: Mapping[str, float] | None
) -> Row:
    row: Row = {name: plan[name] for name in PLAN}
    row |= {name: record[name] for name in META if name in record}
    row |= {"component": component, "view": view}
    row |= {name: f"{value:.5g}" for name, value in (found or {}).items()}
    return row


def _facts(look: Mapping[str, Any], component: str) -> list[MatrixFact]:
    return [
        MatrixFact(
            m["role"], m["rho"], (m["rho"] - 1) / m["z"] if m["z"] else 0.0, m["dispersion"] or 0.0,
            m["alignment"] or 0.0, m["d"], None if m["peaks"] is None else _learned(m["peaks"]), m["tie"], m["bias"],
            m["evenness"], tuple(m["shape"]),
        )
        for m in look["matrices"]
        if m["component"] == component
    ]  # fmt: skip


def _pools(look: Mapping[str, Any], component: str) -> dict[str, LearnedShadow]:
    return {one["role"]: _learned(one["peaks"]) for one in look["pools"] if one["component"] == component}


def _learned(peaks: Mapping[str, Any]) -> LearnedShadow:
    return learned(msgspec.convert(peaks, Peaks))
