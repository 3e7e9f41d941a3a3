"""A record as one flat row of a table."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..record import EVIDENCE_KINDS, SEVERITIES, Answer, Classification, Duplicate, EvidenceKind, Failure, Label


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
        errors: findings of that severity about its norms; null where they were not looked for, as the next three.
        warned: findings that are warnings.
        notes: findings that are notes.
        findings: their codes, gravest first, separated by spaces.
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
    errors: int | None = None
    warned: int | None = None
    notes: int | None = None
    findings: str | None = None
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
    if answer.findings is not None:
        codes = " ".join(dict.fromkeys(one.code for one in answer.findings))
        errors, warned, notes = map(answer.count, SEVERITIES)
        values |= {"errors": errors, "warned": warned, "notes": notes, "findings": codes}
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
