"""The table that turns evidence into log-odds: numbers with their reasons, in ``data/``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import median

import msgspec

_RMS = re.compile(r"(^|_)rms")
_STRANGE = 0.1
"""How far names that nobody was seen to use stay from an answer: who was counted is who is known, and others differ."""

MIXED_SHARE = 0.15
"""Smallest share of the minority among a stream's norms that makes it mixed; below, odd norms are exceptions
(a final norm, an embedding norm, one projector)."""


class Rule(msgspec.Struct, frozen=True):
    """A rule that was counted.

    Attributes:
        says: what it says where it applies: a label, or ``as named``.
        right: how often that was so.
        wrong: how often it was not.
        log_odds: ±ln((right + 1)/(wrong + 1)), negative where it says RMSNorm.
        because: what was counted.
        outside: how many of the right and of the wrong ones are code bases outside of transformers and llama.cpp.
    """

    says: str
    right: int
    wrong: int
    log_odds: float
    because: str
    outside: tuple[int, int] = (0, 0)


class Choice(msgspec.Struct, frozen=True):
    """A number that nothing at hand can count, and why it is what it is."""

    value: float
    because: str


class Choices(msgspec.Struct, frozen=True):
    """All numbers that were chosen.

    Attributes:
        operators: log-odds of what a graph or a layer class computes.
        zero_shifts: log-odds of shifts that are all zero.
        few_shifts: log-odds where only a few norms have a shift.
        suspicious_cap: largest sum of log-odds where weights look tampered with.
        contradiction_from: log-odds from which on a kind of evidence can contradict another.
        against_kernel: least sum of log-odds that is believed against such a kernel result.
        too_high: mean of ln ρ above which neither norm explains the energy along the dead direction.
        rewritten_below: ρ below which a matrix was centred after training.
    """

    operators: Choice
    zero_shifts: Choice
    few_shifts: Choice
    suspicious_cap: Choice
    contradiction_from: Choice
    against_kernel: Choice
    too_high: Choice
    rewritten_below: Choice


class Fitted(msgspec.Struct, frozen=True):
    """A fitted kernel model: log-odds = intercept + Σ coefficient · term, within ±cap; see `features.terms`.

    Attributes:
        answer_from: the confidence from which on it may give a label alone.
    """

    intercept: float
    coefficients: dict[str, float]
    cap: float
    answer_from: float
    because: str


class Stop(msgspec.Struct, frozen=True):
    """When enough matrices were read: at this confidence, with kernel evidence of so many log-odds that agrees."""

    confidence: float
    kernel: float
    because: str


class Corpus(msgspec.Struct, frozen=True):
    """What the kernel models were fitted on: SHA-256 of the table's text, and its size."""

    sha256: str
    runs: int
    rows: int


class Weights(msgspec.Struct, frozen=True):
    """The whole table.

    Attributes:
        answer_from: the confidence from which on evidence of several kinds, or other than the kernel's, gives a label.
        total_cap: largest sum of log-odds.
        bare_words: by what a norm without a shift is called, how many families and code bases do so, first those with
            LayerNorm, then those with RMSNorm.
    """

    version: str
    about: str
    answer_from: Choice
    total_cap: Choice
    rules: dict[str, Rule]
    chosen: Choices
    stop: Stop
    corpus: Corpus
    kernel_roles: Fitted
    kernel_shapes: Fitted
    bare_words: dict[str, tuple[int, int]]

    def confidence(self, rule: str) -> float:
        """Return how likely a rule is right that says neither LayerNorm nor RMSNorm."""
        return probability(abs(self.rules[rule].log_odds))

    @property
    def answer_odds(self) -> float:
        """Log-odds from which down RMSNorm is said: those of `answer_from`."""
        return -math.log(self.answer_from.value / (1 - self.answer_from.value))

    def bare(self, words: Sequence[str]) -> float:
        """Return the log-odds of norms with a scale and no shift, by what they are called.

        The same names, from the same hands, go with the same norm; a name that nobody was seen to use comes from
        somewhere else, where LayerNorm without a shift is not as rare as in transformers. So the counts of a name
        add to those two cases that every rule starts from, divided as code bases outside are. The median over the
        norms speaks for all of them, and no more surely than all families together.

        Args:
            words: one a norm; "" where there is no name.
        """
        rule = self.rules["shift absent"]
        right, wrong = rule.outside
        layer_share = (wrong + 1) / (right + wrong + 2)
        found = []
        for word in words:
            layer, rms = self.bare_words.get(word) or self._naming(word)
            odds = math.log((layer + 2 * layer_share) / (rms + 2 * (1 - layer_share)))
            if not layer + rms:
                odds = max(odds, self.answer_odds + _STRANGE)
            found.append(odds if word else rule.log_odds)
        return round(max(median(found), rule.log_odds), 4)

    def _naming(self, word: str) -> tuple[int, int]:
        """Return the counts of a word that nobody was seen to use: if it says RMS, those of the others that say so.

        One family uses several of them, so that the most that use one are counted, but all that go with LayerNorm.
        """
        if not _RMS.search(word):
            return 0, 0
        alike = [counts for known, counts in self.bare_words.items() if _RMS.search(known)]
        return sum(layer for layer, _ in alike), max((rms for _, rms in alike), default=0)


def probability(log_odds: float) -> float:
    """Return the probability of log-odds."""
    return 1 / (1 + math.exp(-log_odds))


@cache
def load_weights() -> Weights:
    """Return the table that is shipped with this version."""
    text = (Path(__file__).parent.parent / "data" / "calibration-v1.json").read_bytes()
    return msgspec.json.decode(text, type=Weights)
