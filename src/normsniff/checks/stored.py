"""What a file stores of a scale, as probabilities: γ, γ - 1, or either with 1 added once more.

Every explanation is a convention (what training wrote: γ, or γ - 1) and a number that was added afterwards. Its score
adds up what is expected of the family's files, how much the values look like a γ once the numbers are taken off again,
and what the last bits say of the addition (`history`). The weights were fitted on small models of half of 27 families
and hold for the other half (docs/check.md; ``python -m calibration.scales``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import meter
from ..record import StoredScale
from .history import STEPS
from .quantiles import quantiles

Float64 = NDArray[np.float64]

_TABLE = Path(__file__).parents[1] / "data" / "scales-v1.json"
_NAMES = {-2: "scale-2", -1: "scale-1", 0: "scale", 1: "scale+1", 2: "scale+2"}
_RARE = 1e-3  # share of negative values below which shares are alike
_STEPS = 100  # that the quantiles of one group take, and what is asked of it, beside its values
LOWEST = 0.005  # the quantile that the least values are told by


class ScaleWeights(msgspec.Struct, frozen=True):
    """What the score of an explanation is made of.

    Attributes:
        expected: for the one that the family's files have.
        values: for the five terms of `looks`.
        history: for the square root of the log of the likelihood ratio, with its sign.
        about: where they come from.
    """

    expected: float
    values: tuple[float, float, float, float, float]
    history: float
    about: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One way in which stored scales may have come about.

    Attributes:
        native: what training wrote beyond γ: 0, or -1.
        added: what was added afterwards: -1, 0, 1 or 2.
        probability: that it is so.
    """

    native: int
    added: int
    probability: float

    @property
    def beyond(self) -> int:
        """What the file stores beyond γ: 0 where it stores γ itself, -1 for γ - 1."""
        return self.native + self.added


@lru_cache(maxsize=1)
def weights() -> ScaleWeights:
    """Return the fitted weights."""
    return msgspec.json.decode(_TABLE.read_bytes(), type=ScaleWeights)


def looks(groups: Sequence[Float64], beyond: int) -> Float64:
    """Return how much groups of stored scales look like γ plus `beyond`: terms, each the mean over the groups.

    They are the share of negative values (of its logarithm), the least values (0.5 %), the median, and the squares of
    the two, clipped: a γ may be large in all of a group, and is seldom far below zero.
    """
    return _terms([_Spread.of(stored) for stored in groups], beyond)


class _Spread(NamedTuple):
    """What `looks` needs of one group, whatever is taken off it: its values, their least (0.5 %) and their median."""

    values: Float64
    low: float
    middle: float

    @classmethod
    def of(cls, stored: Float64) -> _Spread:
        meter.charge(_STEPS + stored.size // 40, "weighing what is stored")
        return cls(stored, *quantiles(stored, LOWEST, 0.5))


def _terms(groups: Sequence[_Spread], beyond: int) -> Float64:
    rows = []
    for one in groups:
        low, middle = min(max(one.low - beyond, -1.0), 2.0), min(max(one.middle - beyond, -1.0), 4.0)
        negative = math.log10(max(float(np.mean(one.values < beyond)), _RARE) / _RARE)
        rows.append([negative, low, low * low, middle, middle * middle])
    return np.asarray(np.mean(rows, axis=0), np.float64)


def witness(ratio: float) -> float:
    """Return what the last bits add to a score before its weight, from the log of the likelihood ratio of a sum."""
    return float(np.sign(ratio) * np.sqrt(abs(ratio)))


def explanations(natives: Sequence[int]) -> list[tuple[int, int]]:
    """Return what may have been written and added; γ - 1 may be a γ that 1 was taken from after training, too."""
    found = [(native, added) for native in natives for added in (0, *STEPS)]
    return found if 0 in natives else [*found, (0, -1)]


def explain(
    groups: Sequence[Float64], ratios: Mapping[int, float], natives: Sequence[int], expected: int = 0
) -> list[Explanation]:
    """Return every explanation of stored scales with its probability, the likeliest first.

    Args:
        groups: stored scales of one convention, each group the values of one place of all blocks: finite, not empty.
        ratios: sums over the groups of `history`'s log-ratios, by the number added; zeros where the last bits are not
            those that training left (quantised scales).
        natives: what training may have written beyond γ: ``(0,)``, ``(-1,)``, or both for an unknown family.
        expected: the number that the family's files have added, by their converter: 1 for Gemma in GGUF, else 0.
    """
    ways, spreads = explanations(natives), [_Spread.of(stored) for stored in groups]
    scores = np.array([_score(spreads, ratios, *way) + weights().expected * (way[1] == expected) for way in ways])
    odds = np.exp(scores - scores.max())
    found = [Explanation(*way, float(p)) for way, p in zip(ways, odds / odds.sum(), strict=True)]
    return sorted(found, key=lambda one: -one.probability)


def log_odds(values: Float64, ratios: Mapping[int, float], natives: Sequence[int], added: int, expected: int) -> float:
    """Return the natural log of the odds that `added` was added to one group, against `expected`, even beforehand.

    Args:
        values: its stored scales: finite, not empty.
        ratios: `history`'s log-ratios of the group.
        natives: what training may have written beyond γ.
        added: one number.
        expected: the other.
    """
    spreads = [_Spread.of(values)]
    one, other = (
        np.logaddexp.reduce([_score(spreads, ratios, n, number) for n in natives]) for number in (added, expected)
    )
    return float(one - other)


def _score(groups: Sequence[_Spread], ratios: Mapping[int, float], native: int, added: int) -> float:
    """Return how well an explanation fits the values and the last bits."""
    alike = float(_terms(groups, native + added) @ weights().values)
    return alike + (weights().history * witness(ratios[added]) if added else 0.0)


def stored_as(explained: Sequence[Explanation], expected: int | None) -> StoredScale:
    """Return what is stored, with its probabilities added up over what leads to it.

    Args:
        explained: from `explain`.
        expected: what the family's files store beyond γ; None where no family is known.
    """
    found: dict[str, float] = {}
    for one in explained:
        name = _NAMES[one.beyond]
        found[name] = found.get(name, 0.0) + one.probability
    odds = {name: round(p, 4) for name, p in sorted(found.items(), key=lambda pair: -pair[1])}
    return StoredScale(probabilities=odds, expected=None if expected is None else _NAMES[expected])
