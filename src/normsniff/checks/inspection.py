"""The checks of one model: header, norm vectors, verdict, findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ..inputs.opening import Source
from ..limits import Limits
from ..pipeline import modelled
from ..record import EVIDENCE_KINDS, EvidenceKind
from . import copies, epsilon, labels, lengths, numbers, offset, presence, storage
from .findings import Finding, Report, in_order
from .subject import Subject, read_subject

FAMILIES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    offset.find,
    numbers.find,
    presence.find,
    copies.find,
    storage.find,
    epsilon.find,
    lengths.find,
    labels.find,
)
"""The families of findings, in the order in which equally grave ones are told."""

_SHALLOW: tuple[EvidenceKind, ...] = ("declared", "layout")


def check(source: Source, *, deep: bool = False, limits: Limits | None = None) -> Report:
    """Say what is wrong with the norms of one model.

    The header and the norms' own vectors are read, and no matrix.

    Args:
        source: whatever `sniff` takes.
        deep: read samples of matrices too, as `sniff` does: ``contradiction``, ``rewritten`` and ``tampered`` need it.
        limits: caps on what a file may cost.

    Raises:
        NormsniffError: as `sniff` does.
    """
    started = time.perf_counter()
    with modelled(source, evidence=EVIDENCE_KINDS if deep else _SHALLOW, limits=limits) as model:
        record = model.classify()
        subject = read_subject(model.checkpoint, model.anatomy, record, model.limits)
        found = in_order(one for family in FAMILIES for one in family(subject))
        return Report(
            path=model.name,
            format=record.format,
            architecture=record.architecture,
            label=record.label,
            confidence=record.confidence,
            norms=len(subject.norms),
            unread=sum(one.unread for one in subject.norms),
            deep=deep,
            findings=found,
            bytes_read=model.checkpoint.bytes_read if model.checkpoint.sources else None,
            requests=model.checkpoint.requests,
            seconds=round(time.perf_counter() - started, 6),
        )
