"""All findings about one model that was read: families of checks in the order in which their findings are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import meter
from ..anatomy.parts import Anatomy
from ..checkpoint import Checkpoint
from ..limits import Limits
from ..record import SEVERITIES, Classification, Finding, StoredScale
from . import container, copies, epsilon, labels, lengths, numbers, offset, presence, storage
from .subject import Subject, read_subject

FAMILIES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    container.find,
    offset.find,
    numbers.find,
    presence.find,
    copies.find,
    storage.find,
    epsilon.find,
    lengths.find,
)
"""The families of findings, in the order in which equally grave ones are told."""


_SITE = 200
"""Steps that all families take for one norm, beside its values: the real models at hand need 80 to 180."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the norms of a model show.

    Attributes:
        findings: gravest first.
        stores: what is stored at every site of the anatomy.
        unread: norms that could not be read.
    """

    findings: list[Finding]
    stores: list[StoredScale | None]
    unread: int


def inspect(checkpoint: Checkpoint, anatomy: Anatomy, record: Classification, limits: Limits) -> Inspection:
    """Look at the norms of a model. Their vectors are read, and no matrix.

    Args:
        checkpoint: its header, open.
        anatomy: its sites.
        record: the verdict on it.
        limits: caps on one vector.
    """
    meter.charge(_SITE * len(anatomy.sites), "checking norms")
    subject = read_subject(checkpoint, anatomy, limits)
    found = [*(one for family in FAMILIES for one in family(subject)), *labels.of_record(record)]
    return Inspection(
        findings=sorted(found, key=lambda one: SEVERITIES.index(one.severity)),
        stores=offset.stores(subject),
        unread=sum(one.unread for one in subject.norms),
    )
