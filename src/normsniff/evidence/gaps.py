"""What a statement about all norms is worth where not everything in the file was understood.

"No norm has a shift" is said of every vector of the stream's width. One that nothing explains may be such a shift, so
each takes away the weight of one norm; where there are as many as norms, nothing is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from ..anatomy.parts import Anatomy, Site
from ..words import amount, have
from .weights import MIXED_SHARE

_FOREIGN = 3
"""Vectors of one other width that recur so often may be the norms of the main stream, and those that were found of a
tower beside it, where no name tells the towers apart."""

_FEW = 2
"""Norms of a stream: a final norm and one more do not tell what normalises inside of the blocks."""

_NAMELESS = 0.5
"""What a vector takes away that stands where a norm's scale does, alone, and that only its shape makes a norm's."""


class Gap(msgspec.Struct, frozen=True):
    """How much of what a statement is about was understood.

    Attributes:
        known_absence: weight from 0 to 1 of "no norm has a shift".
        known_shifts: weight of "the norms have shifts", which needs less: what was found is there.
        known_mixture: weight of "some have a shift, others none": 0 where what is unexplained may be the missing ones.
        unexplained: things that may be a norm or a shift of one.
        reason: what was not understood, to follow a "but"; "" if everything was.
    """

    known_absence: float
    known_shifts: float
    known_mixture: float = 1.0
    unexplained: int = 0
    reason: str = ""


def of(anatomy: Anatomy, component: str, stored: Sequence[Site]) -> Gap:
    """Weigh statements about the norms of one component.

    Args:
        anatomy: with its account.
        component: the tower.
        stored: the norms of its stream that store a scale or a shift.
    """
    width = anatomy.widths.get(component)
    doubtful = [one for one in anatomy.unexplained if one.width is None or one.width == width]
    nameless = [site for site in stored if not site.named and site.shift is None]
    beside = [
        site
        for site in anatomy.sites
        if site.component == component and site.role == "other" and site.width == width and site.shift is not None
    ]
    if len(stored) > _FEW and len(beside) < MIXED_SHARE * (len(stored) + len(beside)):
        beside = []  # a head or a mixer of its own kind beside a stream that is known well enough
    n = len(doubtful) + len(nameless) + len(beside)
    named = any(site.named for site in stored)
    foreign = _elsewhere(anatomy, width, named=named)
    if foreign >= (max(len(stored), _FOREIGN) if named else _FOREIGN):
        reason = f"{amount(foreign, 'vector')} of another width may be the norms of the main stream"
        return Gap(0.0, 0.0, 0.0, n + foreign, reason)
    alike = _alike(stored) and not anatomy.unreadable
    if not n:
        reason = "norms with a shift are named otherwise than those without" if not _alike(stored) else ""
        reason = "no name tells whether all of them are of one stream" if anatomy.unreadable else reason
        return Gap(1.0, 1.0, float(alike), 0, reason)
    without = sum(site.shift is None for site in stored) - len(doubtful)
    mixture = float(alike and without >= MIXED_SHARE * len(stored))
    taken = len(doubtful) + len(beside) + _NAMELESS * len(nameless)
    absence = 0.0 if any(one.width is None for one in doubtful) else max(0.0, 1 - taken / len(stored))
    names = [one.where for one in doubtful] + [site.name for site in (*nameless, *beside)]
    shown = ", ".join(name[:60] for name in names[:2]) + (" ..." if n > 2 else "")
    things = "a vector" if n == 1 else f"{n} vectors"
    verb = "is" if n == 1 else "are"
    reason = f"{things} as wide as the stream {verb} not explained: {shown}"
    if len(beside) == n:
        reason = f"{amount(n, 'norm')} as wide, inside of parts of the blocks, {have(n)} one: {shown}"
    return Gap(absence, 1.0, mixture, n, reason)


def _elsewhere(anatomy: Anatomy, width: int | None, *, named: bool) -> int:
    """How many unexplained vectors share the commonest other width; where norms are named, of those named alike."""
    others = (one for one in anatomy.unexplained if one.width not in (None, width) and (one.named or not named))
    widths = Counter(one.width for one in others)
    return max(widths.values(), default=0)


def _alike(stored: Sequence[Site]) -> bool:
    """Whether norms with and without a shift are told by the same signs: else these may be parts of one another."""
    ways: dict[bool, set[tuple[bool, bool]]] = {True: set(), False: set()}
    for site in stored:
        ways[site.shift is not None].add((site.named, site.mistakable))
    return not ways[True] or not ways[False] or bool(ways[True] & ways[False])
