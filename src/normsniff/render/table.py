"""Answers as rows: one flat column for every question that is often asked, and the whole record as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from ..errors import OutputError
from ..record import EVIDENCE_KINDS, Answer, Classification, Duplicate, EvidenceKind, Failure, Label


class Row(msgspec.Struct, kw_only=True):
    """One input. What was not computed, or does not apply to this status, is null.

    Attributes:
        path: the input as given.
        status: ``answered``, ``duplicate`` (the answer is in the row of `duplicate_of`) or ``failed``.
        label: the verdict on the main residual stream.
        confidence: probability that the label is right.
        declared: what the file says, for the main component.
        declared_log_odds: natural log of P(LayerNorm)/P(RMSNorm) that this contributes; positive means LayerNorm.
        layout: what the presence of shifts suggests, likewise.
        layout_log_odds: its log-odds.
        kernel: what the weights show, likewise.
        kernel_log_odds: its log-odds.
        contradictions: pairs of kinds of evidence that disagree strongly, in any component.
        rewritten_from: ``LayerNorm`` if the writers were centred after training.
        components: towers.
        norms: norm sites.
        scales: stored scales.
        shifts: stored shifts.
        tensors: tensors.
        d_model: width of the main residual stream.
        format: of the file.
        format_version: in the container's own words.
        architecture: what the file calls it.
        file_size: bytes of all files of the model.
        bytes_read: bytes read to answer.
        seconds: time to answer.
        warnings: oddities noted.
        duplicate_of: the path that has the same content and the answer.
        content_id: of a duplicate, hexadecimal.
        error_type: class of the error.
        error_code: its slug; ``timeout``, ``memory`` and ``crashed`` are those of lost workers.
        error_message: what is wrong.
        header_sha256: SHA-256 of the header.
        schema_version: of the record.
        tool_version: of normsniff.
        calibration: which table of weights was used.
        record: the whole record, JSON.
    """

    path: str | None
    status: Literal["answered", "duplicate", "failed"]
    label: Label | None = None
    confidence: float | None = None
    declared: Label | None = None
    declared_log_odds: float | None = None
    layout: Label | None = None
    layout_log_odds: float | None = None
    kernel: Label | None = None
    kernel_log_odds: float | None = None
    contradictions: int | None = None
    rewritten_from: Label | None = None
    components: int | None = None
    norms: int | None = None
    scales: int | None = None
    shifts: int | None = None
    tensors: int | None = None
    d_model: int | None = None
    format: str | None = None
    format_version: str | None = None
    architecture: str | None = None
    file_size: int | None = None
    bytes_read: int | None = None
    seconds: float | None = None
    warnings: int | None = None
    duplicate_of: str | None = None
    content_id: str | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    header_sha256: str | None = None
    schema_version: str
    tool_version: str
    calibration: str | None = None
    record: str


_SAME = (
    *("label", "confidence", "rewritten_from", "scales", "shifts", "tensors", "d_model", "format", "format_version"),
    *("architecture", "file_size", "bytes_read", "seconds", "header_sha256", "calibration"),
)
_COUNTED = ("contradictions", "components", "norms", "warnings")


def row_of(answer: Answer) -> Row:
    """Return the row of one answer."""
    values: dict[str, Any] = {name: getattr(answer, name) for name in ("path", "schema_version", "tool_version")}
    values["record"] = msgspec.json.encode(answer).decode()
    if isinstance(answer, Failure):
        error = answer.error
        return Row(status="failed", error_type=error.type, error_code=error.code, error_message=error.message, **values)
    if isinstance(answer, Duplicate):
        return Row(status="duplicate", duplicate_of=answer.duplicate_of, content_id=answer.content_id, **values)
    values |= {name: getattr(answer, name) for name in _SAME}
    values |= {name: len(getattr(answer, name)) for name in _COUNTED}
    for kind in EVIDENCE_KINDS:
        values[kind], values[f"{kind}_log_odds"] = _finding(answer, kind)
    return Row(status="answered", **values)


def _finding(answer: Classification, kind: EvidenceKind) -> tuple[Label | None, float | None]:
    """Return where a kind of evidence points for the main component, and its log-odds; None where it was not looked at.

    As in the verdict, ``mixed`` and ``none`` are statements about structure, which log-odds do not speak for.
    """
    found = [one for one in answer.evidence if one.kind == kind and one.component == answer.components[0].name]
    if not found:
        return None, None
    total = sum(one.log_odds for one in found)
    for one in found:
        if one.label in ("mixed", "none"):
            return one.label, total
    return ("LayerNorm" if total > 0 else "RMSNorm" if total < 0 else "undetermined"), total


def write_jsonl(answers: Iterable[Answer], file: BinaryIO) -> None:
    """Write one record a line."""
    for answer in answers:
        file.write(msgspec.json.encode(answer) + b"\n")


def write_csv(answers: Iterable[Answer], file: BinaryIO) -> None:
    """Write the flat columns, without the record."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    columns = [name for name in Row.__struct_fields__ if name != "record"]
    writer = csv.writer(text)
    writer.writerow(columns)
    for answer in answers:
        row = row_of(answer)
        writer.writerow([getattr(row, name) for name in columns])
    text.detach()


def writer_for(output: Path) -> Callable[[Iterable[Answer], BinaryIO], None]:
    """Return the function that writes the kind of file that `output` is named like.

    Raises:
        OutputError: none is.
        MissingExtra: it is Parquet, and pyarrow is not installed.
    """
    if output.suffix == ".jsonl":
        return write_jsonl
    if output.suffix == ".csv":
        return write_csv
    if output.suffix == ".parquet":
        from .parquet import write_parquet

        return write_parquet
    raise OutputError(str(output), "the name must end in .parquet, .jsonl or .csv")
