"""Files that are made here, of networks whose norms are known: make each, sniff it, compare."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from normsniff import sniff
from normsniff.record import Statistics

from .report import Answer
from .truth import Made, Truth

# What makes the files of a part; those that need more than normsniff does are left out where it is missing.
PARTS: Mapping[str, tuple[str, ...]] = {
    "forms": ("graph_forms",),
    "suite": ("onnx_suite",),
    "onnx": ("onnx_forms", "onnx_matrix", "onnx_tensorflow"),
    "keras": ("keras_forms", "keras_matrix", "keras_hub_matrix", "keras_tensorflow"),
}


def answers(part: str, only: str | None = None) -> list[Answer]:
    """Answer for every file of a part, or for those of one network."""
    found: list[Answer] = []
    for name in PARTS[part]:
        try:
            module = importlib.import_module(f".{name}", __package__)
        except ImportError as missing:
            _say(f"{name}: left out, {missing.name} is not installed (pip install --group conformance)")
            continue
        for made in module.cases(only):
            found += answer(made)
    return found


def answer(made: Made) -> list[Answer]:
    """Make one file and compare; where its tool fails, say so."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            path = made.write(Path(directory))
        except Exception as error:  # noqa: BLE001 - whatever an optimiser cannot do with such a graph
            _say(f"{made.group} | {made.name}: not made, {type(error).__name__}: {str(error)[:100]}")
            return []
        return list(compared(made, path))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def compared(made: Made, path: Path) -> Iterator[Answer]:
    """Compare what is said of a file with its truth: the label twice, then the number of norms, scales and shifts."""
    record = sniff(path)
    declared = sniff(path, evidence=["declared"])
    reasons = tuple(f"{e.component}/{e.kind}: {e.reason}" for e in record.evidence)
    for variant, one in (("all evidence", record), ("declared alone", declared)):
        truth = one.label if made.truth.open and one.label == "undetermined" else made.truth.label
        yield Answer(replace(made, variant=variant), "", truth, one.label, one.confidence, reasons)
    if made.truth.sites is None:
        return
    sites = tuple(f"{n.name}: {n.kind} {n.role}, scale {n.has_scale}, shift {n.has_shift}" for n in record.norms)
    counts = _counts(made.truth, made.truth.sites, made.truth.scales, made.truth.shifts)
    # exporters give operators a scale of ones and a shift of zeros where the module has none
    scales = sum(n.has_scale and not _is_all(n.scale, 1.0) for n in record.norms)
    shifts = sum(n.has_shift and not _is_all(n.shift, 0.0) for n in record.norms)
    found = _counts(made.truth, len(record.norms), scales, shifts)
    yield Answer(replace(made, variant="norms, scales, shifts"), "", counts, found, None, (*reasons, *sites))


def _is_all(values: Statistics | None, number: float) -> bool:
    return values is not None and values.min == values.max == number


def _counts(truth: Truth, sites: int, scales: int, shifts: int) -> str:
    return f"{sites} norms, " + (f"{scales + shifts} variables" if truth.open else f"{scales} scales, {shifts} shifts")
