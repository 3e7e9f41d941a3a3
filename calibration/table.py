"""From raw results to the committed table, ``corpus.csv.gz``: features, truth and every hyper-parameter, no weights."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from normsniff.evidence.features import DESCRIPTIONS, MatrixFact, from_shapes, with_roles

TABLE = Path(__file__).with_name("corpus.csv.gz")
META = ("run", "step", "treatment", "component", "view", "truth", "loss")
PLAN = (
    "source", "name", "kind", "norm", "placement", "d", "layers", "steps", "biases", "glu", "activation", "tied",
    "positions", "qk_norm", "experts", "wide", "grouped", "optimiser", "decay", "decay_all", "rate", "beta2", "init",
    "depth_scaled", "rows", "length", "schedule", "dropout", "data", "images", "vocabulary", "bf16",
)  # fmt: skip
Row = dict[str, Any]


def build(raw: Path, table: Path = TABLE) -> None:
    """Put the raw results of all finished runs into the table, in place of its rows of the same runs."""
    found: dict[int, list[Row]] = defaultdict(list)
    for line in _lines(table) if table.exists() else ():
        found[int(line["run"])].append(line)
    for file in sorted(raw.glob("run*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        plan = lines[0]["plan"]
        found[plan["index"]] = [row for record in lines[1:] for row in _rows(plan, record)]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*META, *PLAN, *DESCRIPTIONS], lineterminator="\n", restval="")
    writer.writeheader()
    for run in sorted(found):
        writer.writerows(found[run])
    table.write_bytes(gzip.compress(out.getvalue().encode(), 9, mtime=0))
    print(f"{len(found)} runs, {out.getvalue().count(chr(10)) - 1} rows, {table.stat().st_size:,} bytes")


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
        yield _row(plan, record, component, "roles", with_roles(_facts(roles, component), roles["scale_spread"]))
    yield _row(plan, record, "main", "shapes", from_shapes(_facts(shapes, "main"), shapes["scale_spread"]))


def _row(
    plan: Mapping[str, Any], record: Mapping[str, Any], component: str, view: str, found: Mapping[str, float] | None
) -> Row:
    row: Row = {name: plan[name] for name in PLAN}
    row |= {name: record[name] for name in META if name in record}
    row |= {"component": component, "view": view}
    row |= {name: f"{value:.5g}" for name, value in (found or {}).items()}
    return row


def _inner(matrices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what `normsniff.anatomy.shapes` takes for embeddings; the raw results were made before it did so.

    No matrix of the corpus is so large that it was sampled, so that `vectors` is the length that recurs.
    """
    lengths = Counter(m["vectors"] for m in matrices)
    inner = [m for m in matrices if m["role"] != "unknown" or lengths[m["vectors"]] >= 3]
    return inner if len(inner) >= 4 else matrices


def _facts(look: Mapping[str, Any], component: str) -> list[MatrixFact]:
    return [
        MatrixFact(
            m["role"], m["rho"], (m["rho"] - 1) / m["z"] if m["z"] else 0.0, m["dispersion"] or 0.0,
            m["alignment"] or 0.0, m["d"],
        )
        for m in _inner(look["matrices"])
        if m["component"] == component
    ]  # fmt: skip
