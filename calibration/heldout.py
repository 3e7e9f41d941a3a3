"""The section of docs/calibration.md on runs that no choice has seen: a fit on one half, tried on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .addition import NAMES, percent
from .fit import VIEWS, Array, fit, speaking
from .split import held
from .table import Row
from .validate import RIGHT, TRAINED, Score, answer_from, dependence, least_ece, probability, score

SURE = 0.9
TARGETS = {"roles": (0.80, RIGHT["roles"], 500), "shapes": (0.75, RIGHT["shapes"], 250)}
"""Answered, right of these, and one wrong in so many sure answers at most; set before the third part was trained."""
_ECE, _UNTRAINED, _NEITHER = 0.02, 0.002, 0.03


def held_out(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the targets, what the held-out half gives, and what it would give if the log-odds were stretched."""
    seen, unseen = [r for r in rows if not held(r)], [r for r in rows if held(r)]
    yield "## On runs that no choice has seen, against the targets set before\n"
    yield f"{_runs(unseen)} of the {_runs(rows)} runs were held out: whole families, whole optimisers and some of the"
    yield "rest (`calibration/split.py`). The terms, the ridge and the thresholds were chosen on the other"
    yield f"{_runs(seen)}, and this table was made once, after the last choice, with the fit on these. Rows without any"
    yield "feature or silenced by a rule count as not answered. Rows of 300 steps or more, unless it says otherwise.\n"
    yield "| target | found | met |\n|---|---|---|"
    notes = []
    for view in VIEWS:
        heard = speaking(seen, view)
        least, model = answer_from(heard, view), fit(heard, view)
        mine = speaking(unseen, view)
        p = probability(model.odds(mine, view))
        everything = [r for r in unseen if r["view"] == view]
        yield from _lines(view, everything, mine, p, least)
        notes.append(_stretched(view, mine, p))
    yield "\nProbabilities right to the last digit would not show an ECE of 0 on so few runs, all of whose rows"
    yield "have one truth: what they would show was drawn 400 times (median, 5 to 95 %).\n"
    yield from notes
    yield ""


def _lines(view: str, everything: Sequence[Row], rows: Sequence[Row], p: Array, least: float) -> Iterator[str]:
    name = f"{NAMES[view]} (from {least:g})"
    covered, right, seldom = TARGETS[view]

    def of(trained: bool, neither: bool, threshold: float) -> tuple[Score, int]:
        def fits(r: Row) -> bool:
            at_step: bool = r["step"] >= TRAINED if trained else r["step"] == 0
            return at_step and (r["truth"] == "neither") == neither

        at = [i for i, r in enumerate(rows) if fits(r)]
        return score([rows[i] for i in at], p[at], threshold), sum(map(fits, everything))

    main = [i for i, r in enumerate(rows) if r["step"] >= TRAINED and r["truth"] != "neither"]
    chance = least_ece([rows[i] for i in main], p[main])
    one, total = of(True, False, least)
    sure, _ = of(True, False, SURE)
    yield _line(f"{name}: answered ≥ {covered:.0%}", _share(one.answered, total), one.answered >= covered * total)
    found = f"{percent(one.accuracy)} ({one.wrong} of {one.answered} wrong, {_wrong_runs(rows, p, least)} runs)"
    yield _line(f"{name}: right of these ≥ {right:.1%}", found, (one.accuracy or 0) >= right)
    found = f"{sure.wrong} of {sure.answered}"
    yield _line(f"{name}: of the sure at most 1 in {seldom} wrong", found, sure.wrong * seldom <= sure.answered)
    found = f"{one.ece:.3f}; right probabilities would show {chance[0]:.3f} [{chance[1]:.3f} to {chance[2]:.3f}]"
    yield _line(f"{name}: ECE ≤ {_ECE:g}", found, one.ece is not None and one.ece <= _ECE)
    young, count = of(False, False, least)
    found = _share(young.answered, count)
    yield _line(f"{name}: untrained answered ≤ {_UNTRAINED:.1%}", found, young.answered <= _UNTRAINED * count)
    none, count = of(True, True, least)
    certain, _ = of(True, True, SURE)
    met = none.answered <= _NEITHER * count and not certain.answered
    found = f"{_share(none.answered, count)}, {certain.answered} sure"
    yield _line(f"{name}: neither norm, answered ≤ {_NEITHER:.0%}, none sure", found, met)


def _wrong_runs(rows: Sequence[Row], p: Array, least: float) -> int:
    wrong = (np.maximum(p, 1 - p) >= least) & [
        r["step"] >= TRAINED and r["truth"] != "neither" and (one > 0.5) != (r["truth"] == "LayerNorm")
        for r, one in zip(rows, p, strict=True)
    ]
    return len({rows[int(i)]["run"] for i in np.flatnonzero(wrong)})


def _stretched(view: str, rows: Sequence[Row], p: Array) -> str:
    at = [i for i, r in enumerate(rows) if r["step"] >= TRAINED and r["truth"] != "neither"]
    chosen, q = [rows[i] for i in at], p[at]
    slope, low, high = dependence(chosen, q)
    sure = score(chosen, probability(slope * np.log(q / (1 - q))), SURE)
    return (
        f"{NAMES[view].capitalize()}: the log-odds are worth {slope:.1f} times what they say [{low:.1f} to {high:.1f}]."
        f" Stretched by that, the ECE is {sure.ece:.3f}, and {sure.wrong} of {sure.answered} sure answers are wrong."
    )


def _runs(rows: Sequence[Row]) -> int:
    return len({r["run"] for r in rows})


def _share(found: int, total: int) -> str:
    return f"{percent(found / total if total else None)} ({found} of {total})"


def _line(text: str, found: str, met: bool) -> str:
    return f"| {text} | {found} | {'yes' if met else '**no**'} |"
