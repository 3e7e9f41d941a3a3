"""What workers are called for: an answer of the library, encoded. Nothing of a web framework is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ..inputs.opening import Source
from ..limits import Limits
from ..measure.samples import DEFAULT_BUDGET
from ..pipeline import check, plan, sniff
from ..record import EVIDENCE_KINDS, Classification, EvidenceKind, Failure
from .line import Address, Calling
from .subjects import Wanted


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
class Reply:
    """What a worker gives back.

    Attributes:
        body: the document.
        label: the verdict in it; "" where there is none.
        read: bytes that were read of the model.
    """

    body: bytes
    label: str = ""
    read: int = 0


def answer(kind: str, subject: Wanted, options: Options) -> Reply:
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


def _sniffed(source: Source, options: Options) -> Reply:
    record = sniff(source, evidence=options.evidence, budget=options.budget)
    return Reply(record.to_json(), record.label, record.bytes_read or 0)


def _planned(source: Source, options: Options) -> Reply:
    return Reply(plan(source, evidence=options.evidence, budget=options.budget).to_json())


def _checked(source: Source, options: Options) -> Reply:
    report = check(source, deep=options.deep)
    return Reply(report.to_json(), report.label, report.bytes_read or 0)


def _reported(source: Source, options: Options) -> Reply:
    record = sniff(source, evidence=options.evidence, budget=options.budget)
    return Reply(document(record), record.label, record.bytes_read or 0)


def document(record: Classification | Failure) -> bytes:
    """Return the report of a model as a page of its own."""
    from ..render.report import page
    from ..render.report.provenance import Provenance

    made = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
    return page([record], Provenance(made=made, command="normsniff serve")).encode()


ANSWERS: dict[str, Callable[[Source, Options], Reply]] = {
    "sniff": _sniffed,
    "check": _checked,
    "plan": _planned,
    "report": _reported,
}
"""The verbs of the API, and what answers them."""


def models_in(files: tuple[tuple[str, int], ...]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the paths of the models in a drop, by names alone, and what was passed over with the reason.

    Raises:
        NormsniffError: there is none, or there are too many files.
    """
    from ..inputs.remote import models_at
    from .dropped import PREFIX, place_of_drop

    skipped: list[tuple[str, str]] = []
    found = models_at(
        place_of_drop(None, files, "", Limits()), Limits(),
        lambda path, reason: skipped.append((path.url.removeprefix(PREFIX), reason)),
    )  # fmt: skip
    return [path.url.removeprefix(PREFIX) for path in found], skipped


def grow(address: Address, token: bytes, subject: Wanted, name: str, options: Options) -> Reply:
    """Tell a page of a model as its record grows, and return what there is to count.

    Args:
        address: where the line ends.
        token: of the session.
        subject: the model.
        name: its heading.
        options: how it is looked at.

    Raises:
        NormsniffError: as `sniff` does.
        RefusedError: the page is gone.
    """
    with Calling(address, token) as line, subject.opened(Limits(), line) as source:
        record = sniff(
            source, evidence=options.evidence, budget=options.budget,
            tell=lambda early: line.tell(type="grown", html=fragment(_plain(early), name), words=_words(early, name)),
        )  # fmt: skip
        found = _plain(record)
        line.tell(
            type="done", html=fragment(found, name), words=_words(record, name), label=record.label,
            record=found.to_json().decode(), page=document(found).decode(),
        )  # fmt: skip
    return Reply(b"", record.label, record.bytes_read or 0)


def fragment(answer: Classification | Failure, name: str) -> str:
    """Return the article on a model for a page that grows; its policy allows no styles in attributes."""
    from xml.etree.ElementTree import tostring

    from ..render.report import article

    found = article(answer, name, "model")
    for picture in found.iter("svg"):
        picture.set("data-style", picture.attrib.pop("style", ""))  # the page's script sets it
    return tostring(found, encoding="unicode", method="html")


def _plain(record: Classification) -> Classification:
    """Return a record in which dropped files are called what the page calls them, in its warnings, too."""
    from .dropped import plain

    return msgspec.json.decode(plain(record.to_json().decode()), type=Classification)


def _words(record: Classification, name: str) -> str:
    sure = "" if record.confidence is None else f", {record.confidence:.1%} sure"
    return f"{name}: {record.label}{sure}"


def ready() -> None:
    """Do nothing, in a worker that has imported everything by then."""
