"""What was added to the scales of each place of the blocks, told of all places of a tower together.

A place whose last bits are certain speaks for itself; those that are not are pooled. Of several sums that the last bits
allow, the values choose. A place that shows nothing is taken in where its values make the same fault likely, and is
left open where they do not tell: who converts shifts all norms, or those of some names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..measure.gains import NEGATIVE
from .history import CERTAIN, STEPS, History, absence
from .quantiles import median, quantiles
from .stored import LOWEST, log_odds
from .subject import Group, Subject

Convention = Literal["minus-one", "added", "plain", "unknown"]
"""What the family stores here: γ - 1; γ, to which its converter added 1; γ as it was trained; or it is not known."""

NATIVES: Mapping[Convention, tuple[int, ...]] = {"minus-one": (-1,), "added": (-1,), "plain": (0,), "unknown": (0, -1)}
"""What training wrote beyond γ."""

_DOUBLED, _HIGH, _HIGH_MEDIAN = 1.2, 0.9, 1.5
"""The least effective scales (their 0.5 % quantile) of a doubled group are above the first, or above the second with a
median above the third: no clean group of 54 files, and 48 of 54 doubled copies."""

_ALONE = math.log(1000)
"""Odds from which the values of one place are believed where nothing else speaks: one place of ten in one file of a
hundred beforehand. Clean places of the models at hand have 12 at most, those of `calibration.scales` below 19."""
_BLOCKS, _VALUES = 3, 64  # of such a place: single norms are often odd

_LIKELY = math.log(19)  # odds of 95 % from which a place without a trace is taken in; as much against it clears it


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One place of the blocks.

    Attributes:
        group: its norms.
        convention: what the family stores there.
        exact: whether its scales are stored as floating-point numbers.
        told: what their last bits say.
        added: the number that was added to what training wrote; None if nothing shows.
        joined: whether `added` rests on the values alone.
        absent: whether the last bits tell that a converter left the place out.
        open: whether the values do not tell if the fault of other places is here, too.
    """

    group: Group
    convention: Convention
    exact: bool
    told: History | None
    added: int | None = None
    joined: bool = False
    absent: bool = False
    open: bool = False

    @property
    def strong(self) -> bool:
        """Whether whole grids tell what was added."""
        return self.absent or (self.told is not None and self.told.strong and not self.joined)

    @property
    def expected(self) -> int:
        """What is added to the scales of the family's files, by their converter."""
        return 1 if self.convention == "added" else 0

    @property
    def sound(self) -> tuple[tuple[int, int], ...]:
        """What the family's files come about by: what training wrote beyond γ, and what was added."""
        ways = tuple((native, self.expected) for native in NATIVES[self.convention])
        return (*ways, (0, -1)) if self.convention == "minus-one" else ways

    @property
    def excess(self) -> int:
        """What was added beyond that, where it is a fault; else 0."""
        if self.added is None or (self.convention == "minus-one" and self.added < 0 and not is_zero_centred([self])):
            return 0  # γ - 1 of a full γ is right there
        return self.added - self.expected

    @property
    def varies(self) -> bool:
        """Whether the values are finite and not all alike."""
        values = self.group.values()
        return bool(values.size and np.isfinite(values).all() and values.std() > 0)

    def odds(self, added: int) -> float:
        """Return the natural log of the odds that `added` was added, against what is expected."""
        ratios = dict.fromkeys(STEPS, 0.0) if self.told is None else self.told.ratios
        return log_odds(self.group.values(), ratios, NATIVES[self.convention], added, self.expected)


def see(subject: Subject) -> Mapping[str, list[Seen]]:
    """Return the places of every tower that were read."""
    found: dict[str, list[Seen]] = {}
    for group, told in zip(subject.groups, subject.histories, strict=True):
        if any(one.stored is not None for one in group.norms):
            seen = Seen(group, _convention(subject, group), group.exact, told)
            found.setdefault(group.component, []).append(seen)
    return found


def weighed(seen: Sequence[Seen]) -> list[Seen]:
    """Return the places of a tower with what was added to each, as far as last bits and values tell."""
    told: list[Seen] = []
    for convention in dict.fromkeys(one.convention for one in seen):
        told += _pooled([_alone(one) for one in seen if one.convention == convention])
    return _joined([_by_values_alone(one) for one in told])


def is_doubled(seen: Sequence[Seen]) -> bool:
    """Whether effective scales are so high that no clean group has them."""
    values = np.concatenate([one.group.values() + one.group.norms[0].site.offset for one in seen])
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    low, middle = quantiles(values, LOWEST, 0.5)
    return low > _DOUBLED or (low > _HIGH and middle > _HIGH_MEDIAN)


def is_zero_centred(seen: Sequence[Seen]) -> bool:
    """Whether effective scales are so often negative that they are γ - 1."""
    values = np.concatenate([one.group.values() + one.group.norms[0].site.offset for one in seen])
    return bool(values.size and np.mean(values < 0) > NEGATIVE and median(values.ravel()) < 0.5)


def _convention(subject: Subject, group: Group) -> Convention:
    """Return what is stored by the family's rules.

    A graph that adds no 1 must hold γ: as it was trained, or with the 1 that its exporter has folded into the scale.
    """
    site = group.norms[0].site
    if site.offset:
        return "minus-one"
    fact, is_graph = subject.fact, subject.checkpoint.graph is not None
    if fact is None and site.kind is not None and not site.by_name and not is_graph:
        return "plain"  # the class of its layer says what it computes
    if fact is None or not fact.scale_known or fact.label(site.component) == "undetermined":
        return "unknown"
    if not is_graph:
        return "added" if fact.converted(site.name) else "plain"
    if not fact.zero and not fact.baked:
        return "plain"
    return "added" if fact.offset(site.name.replace("/", "."), site.component) else "unknown"


def _alone(one: Seen) -> Seen:
    """Take what the last bits of a place are certain of by themselves."""
    certain = [] if one.told is None else _certain(one.told.ratios, one.expected)
    return replace(one, added=max(certain, key=one.odds)) if certain else one


def _certain(ratios: Mapping[int, float], expected: int) -> list[int]:
    """Return the numbers that were certainly added: what is expected, or what is certain against that, too."""
    sound = max(ratios[expected], 0.0) if expected else 0.0
    found = [step for step in STEPS if step != expected and ratios[step] - sound >= CERTAIN]
    return found or [step for step in STEPS if step == expected and ratios[step] >= CERTAIN]


def _pooled(alike: Sequence[Seen]) -> list[Seen]:
    """Add up the likelihoods of places of one convention; who agrees with what is certain together, is taken in."""
    totals = {
        step: math.fsum(one.told.ratios[step] for one in alike if one.told is not None and one.added in (None, step))
        for step in STEPS
    }
    certain = _certain(totals, alike[0].expected) if alike else []

    def taken(one: Seen) -> int | None:
        if one.added is not None or one.told is None:
            return one.added
        allowed = [step for step in certain if one.told.ratios[step] > 0 and one.odds(step) > 0]
        return max(allowed, key=one.odds) if allowed else None

    return _left_out([replace(one, added=taken(one)) for one in alike])


def _left_out(alike: Sequence[Seen]) -> list[Seen]:
    """Find the places that a converter left out: they still lie on the grid that it took the others off."""
    grids = {
        one.told.grid
        for one in alike
        if one.told is not None and one.expected and one.added == one.expected and one.strong
    }

    def is_left_out(one: Seen) -> bool:
        values = one.group.values()
        return (
            one.added is None
            and one.varies
            and any(absence(values, grid) >= CERTAIN for grid in grids)
            and one.odds(0) > 0
        )

    return [replace(one, added=0, absent=True) if grids and is_left_out(one) else one for one in alike]


def _by_values_alone(one: Seen) -> Seen:
    """Take a subtraction from the values of one place, where they are far out; those of an addition never are."""
    enough = len(one.group.norms) >= _BLOCKS and one.group.values().size >= _VALUES and one.varies
    if one.added is not None or one.convention == "unknown" or not enough or one.odds(one.expected - 1) < _ALONE:
        return one
    return replace(one, added=one.expected - 1, joined=True)


def _joined(told: Sequence[Seen]) -> list[Seen]:
    """Take in the places of a tower that leave no trace, and whose values show the fault of the others."""
    excess = _most(one for one in told if one.excess)
    return [_with(one, excess) if excess and one.added in (None, one.expected) and one.varies else one for one in told]


def _with(one: Seen, excess: int) -> Seen:
    added = one.expected + excess
    odds = one.odds(added)
    if odds >= _LIKELY:
        return replace(one, added=added, joined=True)
    return replace(one, open=odds > -_LIKELY)


def _most(faulty: Iterable[Seen]) -> int:
    """Return the excess of most norms; 0 where none has any."""
    count: dict[int, int] = {}
    for one in faulty:
        count[one.excess] = count.get(one.excess, 0) + len(one.group.norms)
    return max(count, key=lambda excess: count[excess]) if count else 0
