"""All findings about one model that was read: families of checks in the order in which their findings are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .. import meter
from ..anatomy.parts import Anatomy
from ..checkpoint import Checkpoint
from ..limits import Limits
from ..record import SEVERITIES, Classification, Finding
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


def inspect(
    checkpoint: Checkpoint, anatomy: Anatomy, record: Classification, limits: Limits
) -> tuple[list[Finding], int]:
    """Return what is wrong with the norms of a model, gravest first, and how many of them could not be read.

    Their vectors are read, and no matrix.

    Args:
        checkpoint: its header, open.
        anatomy: its sites.
        record: the verdict on it.
        limits: caps on one vector.
    """
    meter.charge(_SITE * len(anatomy.sites), "checking norms")
    subject = read_subject(checkpoint, anatomy, limits)
    found = [*(one for family in FAMILIES for one in family(subject)), *labels.of_record(record)]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity)), sum(one.unread for one in subject.norms)
