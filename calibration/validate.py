"""How far to trust the fit: cross-validation grouped by run, and leaving out one level of one factor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from .fit import Array, fit, truth
from .table import Row

FOLDS = 10
BINS = 10
FOLDINGS = 5
"""Ways to fold the runs, for what must not hang on one of them."""
RIGHT = {"roles": 0.995, "shapes": 0.99}
"""Share of right answers that is asked for: the targets set before there was a fit."""
TRAINED = 300
"""Snapshots with at least so many steps are those that the targets speak of."""


@dataclass(frozen=True)
class Score:
    """What came of some rows. Rates are None where there is nothing to count.

    Attributes:
        rows: how many, of which `runs` independent.
        answered: answers over rows.
        wrong: wrong answers; any answer is wrong where the truth is neither norm.
        brier, ece: of P(LayerNorm), over the rows whose truth is one of the two norms and that got a probability: the
            tool gives none (log-odds of exactly 0) where weights look untrained or hold no scale, without a shadow.
    """

    rows: int
    runs: int
    answered: int
    wrong: int
    brier: float | None
    ece: float | None

    @property
    def coverage(self) -> float | None:
        """Return the share of rows that got an answer."""
        return self.answered / self.rows if self.rows else None

    @property
    def accuracy(self) -> float | None:
        """Return the share of answers that are right."""
        return 1 - self.wrong / self.answered if self.answered else None


def cross_validated(rows: Sequence[Row], view: str, seed: int = 0) -> Array:
    """Return P(LayerNorm) for every row, from a fit that has seen no row of its run."""
    groups = np.array([r["run"] for r in rows])
    found = np.zeros(len(rows))
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed).split(found, groups=groups):
        model = fit([rows[i] for i in train], view)
        found[test] = probability(model.odds([rows[i] for i in test], view))
    return found


def answer_from(rows: Sequence[Row], view: str) -> float:
    """Return the lowest confidence, 0.8 at least, from which on the share `RIGHT` of the answers is right.

    It must be so from every higher one on, too.

    Counted in cross-validation, in several foldings, over the rows of trained models that have one of the two norms.
    """
    sure, right = foldings(rows, view)
    lowest = 1.0
    for least in np.arange(0.99, 0.79, -0.01).round(2):
        answered = sure >= least
        if answered.any() and right[answered].mean() < RIGHT[view]:
            break
        lowest = float(least)
    return lowest


def foldings(rows: Sequence[Row], view: str) -> tuple[Array, Array]:
    """Return confidences of the rows of trained models that have one of the norms, and 1.0 where they are right.

    Both have the shape (foldings, rows).
    """
    trained = [i for i, r in enumerate(rows) if r["step"] >= TRAINED and r["truth"] != "neither"]
    y = truth([rows[i] for i in trained]) == 1
    p = np.stack([cross_validated(rows, view, seed)[trained] for seed in range(FOLDINGS)])
    return np.maximum(p, 1 - p), ((p > 0.5) == y).astype(np.float64)


def dependence(rows: Sequence[Row], p: Array, draws: int = 100) -> tuple[float, float, float]:
    """Return the slope of the truth on the log-odds of `p`, and the 5th and 95th percentile over resampled runs.

    A slope of 1 says that the log-odds are worth what they say in these rows, one below 1 that they say too much.
    """
    odds, y = np.log(p / (1 - p))[:, None], truth(rows)
    runs = np.array([r["run"] for r in rows])
    where = {run: np.flatnonzero(runs == run) for run in np.unique(runs)}
    random = np.random.default_rng(0)
    picks = [np.arange(len(rows))]
    for _ in range(draws):
        drawn = random.choice(list(where), len(where))
        picks.append(np.concatenate([where[run] for run in drawn]))
    slopes = [LogisticRegression(C=1e6).fit(odds[at], y[at]).coef_[0, 0] for at in picks]
    return float(slopes[0]), float(np.quantile(slopes[1:], 0.05)), float(np.quantile(slopes[1:], 0.95))


def left_out(rows: Sequence[Row], view: str, held: Callable[[Row], bool]) -> tuple[list[Row], Array]:
    """Return the rows that `held` picks, and P(LayerNorm) from a fit that has seen neither them nor their runs."""
    test = [r for r in rows if held(r)]
    runs = {r["run"] for r in test}
    model = fit([r for r in rows if r["run"] not in runs], view)
    return test, probability(model.odds(test, view))


def probability(odds: Array) -> Array:
    """Return the probability of log-odds."""
    return 1 / (1 + np.exp(-odds))


def score(rows: Sequence[Row], p: Array, threshold: float) -> Score:
    """Count answers at a confidence of at least `threshold`."""
    y = truth(rows)
    known, answer = y != 0.5, np.maximum(p, 1 - p) >= threshold
    wrong = answer & ~(known & ((p > 0.5) == (y == 1)))
    known &= p != 0.5
    brier = float(((p - y)[known] ** 2).mean()) if known.any() else None
    runs = len({r["run"] for r in rows})
    return Score(len(rows), runs, int(answer.sum()), int(wrong.sum()), brier, _ece(y[known], p[known]))


def least_ece(rows: Sequence[Row], p: Array, draws: int = 400) -> tuple[float, float, float]:
    """Return the ECE that these probabilities would show if they were right to the last digit: median, 5th, 95th.

    All rows of a run have one truth, so each is drawn for a run at once; with few runs in a bin chance alone moves its
    share away from its mean.
    """
    known = (truth(rows) != 0.5) & (p != 0.5)
    at = np.unique([r["run"] for r in rows], return_inverse=True)[1][known]
    random = np.random.default_rng(0)
    found = [_ece((random.random(at.max() + 1)[at] < p[known]).astype(np.float64), p[known]) for _ in range(draws)]
    low, middle, high = np.quantile([one for one in found if one is not None], (0.05, 0.5, 0.95))
    return float(middle), float(low), float(high)


def reliability(rows: Sequence[Row], p: Array) -> list[tuple[float, float, int]]:
    """Return mean P(LayerNorm), share of LayerNorm and count in bins of equal width."""
    y = truth(rows)
    known = (y != 0.5) & (p != 0.5)
    return list(_bins(y[known], p[known]))


def _ece(y: Array, p: Array) -> float | None:
    return sum(abs(m - s) * n for m, s, n in _bins(y, p)) / len(y) if len(y) else None


def _bins(y: Array, p: Array) -> Iterator[tuple[float, float, int]]:
    at = np.clip((p * BINS).astype(int), 0, BINS - 1)
    for b in range(BINS):
        if (inside := at == b).any():
            yield float(p[inside].mean()), float(y[inside].mean()), int(inside.sum())


LEVELS: dict[str, Callable[[Row], Any]] = {
    "norm": lambda r: r["norm"] if r["source"] == "own" else None,
    "placement": lambda r: r["placement"] if r["source"] != "other" else None,
    "kind": lambda r: r["kind"],
    "class": lambda r: r["name"] if r["source"] != "own" else None,
    "optimiser": lambda r: r["optimiser"],
    "weight decay": lambda r: "none" if r["decay"] == "0.0" or r["optimiser"] == "adam" else "some",
    "initialisation": lambda r: r["init"],
    "data": lambda r: "images" if r["kind"] == "vision" else r["data"],
    "experts": lambda r: ("none" if r["experts"] == "0" else "some") if r["source"] == "own" else None,
    "query/key norm": lambda r: r["qk_norm"] if r["source"] == "own" else None,
    "biases": lambda r: r["biases"] if r["source"] == "own" else None,
    "gated": lambda r: r["glu"] if r["source"] == "own" else None,
    "tied": lambda r: r["tied"] if r["source"] == "own" and r["kind"] != "vision" else None,
    "positions": lambda r: r["positions"] if r["source"] == "own" else None,
    "width": lambda r: str(r["d"]),
    "rate": lambda r: r["rate"],
    "treatment": lambda r: r["treatment"],
}
"""Factors whose levels are left out one at a time; None where a factor does not apply."""


def by_level(
    rows: Sequence[Row], view: str, threshold: float, everywhere: Array
) -> Iterator[tuple[str, Any, Score, Score]]:
    """Yield factor, level, its score in cross-validation, and its score when the whole level is left out of the fit."""
    picked = [i for i, r in enumerate(rows) if r["step"] >= TRAINED]
    for factor, level_of in LEVELS.items():
        levels = {level_of(rows[i]) for i in picked} - {None}
        for level in sorted(levels, key=str):
            inside = [i for i in picked if level_of(rows[i]) == level]
            within = score([rows[i] for i in inside], everywhere[inside], threshold)
            if factor == "treatment" and level in ("none", "bf16-trained"):
                continue  # every run has them: nothing would be left to fit on
            if factor == "treatment":
                others = fit([r for r in rows if level_of(r) != level], view)
                test = [rows[i] for i in inside]
                yield factor, level, within, score(test, probability(others.odds(test, view)), threshold)
                continue
            test, p = left_out(rows, view, partial(_has, level_of, level))
            kept = [i for i, r in enumerate(test) if r["step"] >= TRAINED]
            yield factor, level, within, score([test[i] for i in kept], p[kept], threshold)


def _has(level_of: Callable[[Row], Any], level: Any, row: Row) -> bool:
    return bool(level_of(row) == level)
