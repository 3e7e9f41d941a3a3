"""The fit: a regularised logistic regression on a handful of terms, for roles known and for shapes alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.preprocessing import StandardScaler

from normsniff.evidence.features import deniable, log_odds, silence, terms

from .table import Row

OUT = Path(__file__).parents[1] / "src/normsniff/data/calibration-v1.json"
VIEWS = ("roles", "shapes")
STRENGTH = {"roles": 0.1, "shapes": 0.4}
"""Inverse strength of the ridge, on terms of mean 0 and variance 1 and rows of mean weight 1: of 0.05, 0.1, 0.2, 0.3,
0.4 and 0.6 the largest at which no more of the sure answers were wrong in cross-validation, on the runs that choices
may see, than the targets allow. With roles none is (one network of 210 has four wrong rows whatever is tried), and 0.1
answers as much as 0.2 with half the sure mistakes (docs/calibration.md)."""

Array = NDArray[np.float64]


def save(table: Mapping[str, Any]) -> None:
    """Write the shipped file: one number a line, two counts that belong together on one."""
    text = json.dumps(table, indent=2, ensure_ascii=False)
    OUT.write_text(re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text) + "\n")


@dataclass(frozen=True)
class Fitted:
    """Log-odds of LayerNorm = intercept + Σ coefficient · term."""

    intercept: float
    coefficients: dict[str, float]
    cap: float

    def odds(self, rows: Sequence[Row], view: str) -> Array:
        """Return the log-odds of rows, as the tool does."""
        return np.array([log_odds(view, r, self.intercept, self.coefficients, self.cap) for r in rows])


@cache
def too_high() -> float:
    """Return the surplus of energy above which the tool says nothing: chosen, and kept in the shipped file."""
    return float(json.loads(OUT.read_text())["chosen"]["too_high"]["value"])


def speaking(rows: Sequence[Row], view: str) -> list[Row]:
    """Return the rows of a view that have features, and that no rule silences."""
    return [r for r in rows if r["view"] == view and "matrices" in r and silence(r, too_high()) is None]


def truth(rows: Sequence[Row]) -> Array:
    """Return 1 for LayerNorm, 0 for RMSNorm, and 0.5 for neither: there the right answer is none."""
    return np.array([{"LayerNorm": 1.0, "RMSNorm": 0.0, "neither": 0.5}[r["truth"]] for r in rows])


def weights(rows: Sequence[Row]) -> Array:
    """Return the weights of rows, of mean 1.

    Every run counts the same, however many rows it has, times what its rows resemble of the files that the tool meets:
    those are trained (weight in proportion to the steps, 1 at 400) or as initialised (1), seldom between (a quarter).
    """
    runs, counts = np.unique([r["run"] for r in rows], return_counts=True)
    share = dict(zip(runs.tolist(), (1 / counts).tolist(), strict=True))
    found = np.array([share[r["run"]] * _likeness(r["step"]) for r in rows])
    mean: float = found.mean()
    return np.asarray(found / mean, np.float64)


def _likeness(step: int) -> float:
    return 1.0 if step == 0 else 0.25 if step < 300 else step / 400


def fit(rows: Sequence[Row], view: str) -> Fitted:
    """Fit one view: the ridge-regularised likelihood of what the tool says, its rules included.

    Where weights cannot speak for RMSNorm (`deniable`) the tool says nothing, whatever the sum: a sum below 0 is no
    error, and must not pull the others. A row whose truth is neither counts half for each norm.
    """
    found = [terms(view, r) for r in rows]
    names = list(found[0])
    x = np.array([[t[n] for n in names] for t in found])
    y, w = truth(rows), weights(rows)
    silent = np.array([deniable(r) is not None for r in rows])
    scaler = StandardScaler().fit(x, sample_weight=w)
    z = scaler.transform(x)

    def loss(b: Array) -> tuple[float, Array]:
        odds = b[0] + z @ b[1:]
        mute = silent & (odds < 0)
        odds = np.where(mute, 0.0, odds)
        slope = np.where(mute, 0.0, w * (expit(odds) - y))
        value = float(w @ (np.logaddexp(0.0, odds) - y * odds)) + float(b[1:] @ b[1:]) / (2 * STRENGTH[view])
        return value, np.concatenate([[slope.sum()], z.T @ slope + b[1:] / STRENGTH[view]])

    best = minimize(loss, np.zeros(1 + len(names)), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    slopes = best[1:] / scaler.scale_
    intercept = float(best[0] - slopes @ scaler.mean_)
    cap = math.log(len({r["run"] for r in rows}))  # one run in all of them may be wrong without our having seen it
    return Fitted(intercept, dict(zip(names, slopes.tolist(), strict=True)), cap)
