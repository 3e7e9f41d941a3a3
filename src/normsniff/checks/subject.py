"""What the checks look at: the norms of one model with their values, pooled over the blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import decode, families, meter
from ..anatomy.parts import Anatomy, Site
from ..checkpoint import Checkpoint, TensorInfo
from ..dtypes import FLOATS
from ..errors import BudgetSpent, NormsniffError
from ..families import Fact
from ..limits import Limits
from ..measure.samples import prefetch, whole
from .history import History, history

Float64 = NDArray[np.float64]
VECTORS = ("scale or shift", "scales and shifts")  # one, and several, of what a norm stores
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class ReadNorm:
    """One norm with its values.

    Attributes:
        site: of the anatomy.
        stored: scale as stored, float64 of its stored shape; None if there is none or it was not read.
        shift: likewise.
    """

    site: Site
    stored: Float64 | None
    shift: Float64 | None

    @property
    def name(self) -> str:
        """Of the site."""
        return self.site.name

    @property
    def scale(self) -> Float64 | None:
        """Effective γ."""
        return None if self.stored is None else self.stored + self.site.offset

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """Least and largest stored scale: not finite if any is not, NaN without any."""
        return extremes(self.stored)

    @property
    def unread(self) -> bool:
        """Whether something is stored that could not be read."""
        return (self.site.scale is not None and self.stored is None) or (
            self.site.shift is not None and self.shift is None
        )


class StoredVector(NamedTuple):
    """A scale or a shift that was read.

    Attributes:
        norm: whose.
        values: as stored, not empty.
        extremes: least and largest of them; not finite if any is not.
    """

    norm: ReadNorm
    values: Float64
    extremes: tuple[float, float]

    @property
    def finite(self) -> bool:
        """Whether all values are."""
        return all(map(math.isfinite, self.extremes))


@dataclass(frozen=True, slots=True)
class Group:
    """The norms that stand at the same place of every block, or one norm outside of the blocks.

    Attributes:
        component: tower.
        place: their name with # for numbers.
        norms: in the order of the network.
    """

    component: str
    place: str
    norms: tuple[ReadNorm, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites."""
        return tuple(one.name for one in self.norms)

    @property
    def running(self) -> bool:
        """Whether the number in their name counts nodes of a graph, not blocks: one block has two of them, or none."""
        return self.place.count("#") == 1 and len(self.norms) > 1 and len(by_layer(self)) < len(self.norms)

    @property
    def exact(self) -> bool:
        """Whether all scales that were read are stored as floating-point numbers: others lie on a grid of their own."""
        scales = [one.site.scale for one in self.norms if one.site.scale is not None and one.stored is not None]
        return bool(scales) and all(scale.dtype in FLOATS and scale.affine is None for scale in scales)

    @property
    def smallest(self) -> float:
        """The spacing of the stored type around zero, where it has one that matters."""
        stored = {one.site.scale.dtype for one in self.norms if one.site.scale is not None}
        return 2.0**-24 if stored == {"F16"} else 0.0

    def values(self) -> Float64:
        """Return all stored scales in one vector."""
        found = [one.stored.reshape(-1) for one in self.norms if one.stored is not None]
        return np.concatenate(found) if found else np.empty(0)


@dataclass(frozen=True)
class Subject:
    """One model, read for its checks.

    Attributes:
        checkpoint: its header.
        anatomy: its sites.
        norms: its sites with their values, in the same order.
        fact: what is known of the family that the file claims; None if none is known.
    """

    checkpoint: Checkpoint
    anatomy: Anatomy
    norms: tuple[ReadNorm, ...]
    fact: Fact | None

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Norms pooled by their place in the blocks."""
        named = _pooled(self.norms, lambda one: one.name)
        parts = (_pooled(group.norms, _stored_as) if group.running else [group] for group in named)
        return tuple(group for part in parts for group in part)

    @cached_property
    def histories(self) -> tuple[History | None, ...]:
        """What the last bits of each group say; None where they are not those of numbers, or too few."""
        return tuple(history(group.values(), group.smallest) if group.exact else None for group in self.groups)

    @cached_property
    def stored(self) -> tuple[StoredVector, ...]:
        """Every vector that was read, the scale of a norm before its shift."""
        return tuple(_vectors(self.norms))


def read_subject(checkpoint: Checkpoint, anatomy: Anatomy, limits: Limits) -> Subject:
    """Read the scales and shifts of all norms; what cannot be read is None."""
    tensors = [one for site in anatomy.sites for one in (site.scale, site.shift) if one is not None]
    prefetch(whole(tensors))
    norms = tuple(ReadNorm(s, _read(s.scale, limits), _read(s.shift, limits)) for s in anatomy.sites)
    return Subject(checkpoint, anatomy, norms, families.fact_of(checkpoint.metadata, checkpoint.config))


def _pooled(norms: Iterable[ReadNorm], name: Callable[[ReadNorm], str]) -> list[Group]:
    found: dict[tuple[str, str], list[ReadNorm]] = {}
    for one in norms:
        found.setdefault((one.site.component, _NUMBER.sub("#", name(one))), []).append(one)
    return [Group(component, place, tuple(alike)) for (component, place), alike in found.items()]


def _stored_as(one: ReadNorm) -> str:
    """Return the name of a norm's scale, which exporters that number their nodes mostly keep."""
    return one.name if one.site.scale is None else one.site.scale.name


def by_layer(group: Group) -> Mapping[int, ReadNorm]:
    """Return the norms of a group by the index of their block."""
    return {one.site.layer: one for one in group.norms if one.site.layer is not None}


def _read(tensor: TensorInfo | None, limits: Limits) -> Float64 | None:
    if tensor is None:
        return None
    try:
        values = decode.exact(tensor, limits)
    except BudgetSpent:
        raise
    except NormsniffError:
        return None
    meter.charge(30 + values.size // 50, "checking norms")
    meter.hold(8 * values.size + 200, "checking norms")
    return values


def extremes(values: Float64 | None) -> tuple[float, float]:
    """Return the least and the largest value: not finite if any is not, NaN without any."""
    if values is None or not values.size:
        return math.nan, math.nan
    return float(values.min()), float(values.max())


def _vectors(norms: Sequence[ReadNorm]) -> Iterator[StoredVector]:
    for one in norms:
        if one.stored is not None and one.stored.size:
            yield StoredVector(one, one.stored, one.extremes)
        if one.shift is not None and one.shift.size:
            yield StoredVector(one, one.shift, extremes(one.shift))
