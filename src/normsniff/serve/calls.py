"""What workers are called for: an answer of the library, encoded. Nothing of a web framework is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ..inputs.opening import Source
from ..limits import Limits
from ..measure.samples import DEFAULT_BUDGET
from ..pipeline import check, plan, sniff
from ..record import EVIDENCE_KINDS, Classification, EvidenceKind, Failure
from .subjects import Subject


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is looked at.

    Attributes:
        evidence: kinds to use.
        budget: bytes of matrices to read at most.
        deep: whether a check reads matrices, too.
    """

    evidence: tuple[EvidenceKind, ...] = EVIDENCE_KINDS
    budget: int = DEFAULT_BUDGET
    deep: bool = False


@dataclass(frozen=True)
class Answer:
    """What a worker gives back.

    Attributes:
        body: the document.
        label: the verdict in it; "" where there is none.
        read: bytes that were read of the model.
    """

    body: bytes
    label: str = ""
    read: int = 0


def answer(kind: str, subject: Subject, options: Options) -> Answer:
    """Return the answer to one request.

    Args:
        kind: a key of `ANSWERS`.
        subject: the model.
        options: how it is looked at.

    Raises:
        NormsniffError: as `sniff` does.
    """
    with subject.opened(Limits()) as source:
        return ANSWERS[kind](source, options)


def _sniffed(source: Source, options: Options) -> Answer:
    record = sniff(source, evidence=options.evidence, budget=options.budget)
    return Answer(record.to_json(), record.label, record.bytes_read or 0)


def _planned(source: Source, options: Options) -> Answer:
    return Answer(plan(source, evidence=options.evidence, budget=options.budget).to_json())


def _checked(source: Source, options: Options) -> Answer:
    report = check(source, deep=options.deep)
    return Answer(report.to_json(), report.label, report.bytes_read or 0)


def _reported(source: Source, options: Options) -> Answer:
    record = sniff(source, evidence=options.evidence, budget=options.budget)
    return Answer(document(record), record.label, record.bytes_read or 0)


def document(record: Classification | Failure) -> bytes:
    """Return the report of a model as a page of its own."""
    from ..render.report import page
    from ..render.report.provenance import Provenance

    made = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    return page([record], Provenance(made=made, command="normsniff serve")).encode()


ANSWERS: dict[str, Callable[[Source, Options], Answer]] = {
    "sniff": _sniffed,
    "check": _checked,
    "plan": _planned,
    "report": _reported,
}
"""The verbs of the API, and what answers them."""


def ready() -> None:
    """Do nothing, in a worker that has imported everything by then."""
