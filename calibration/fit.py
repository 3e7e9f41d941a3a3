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
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from normsniff.evidence.features import log_odds, silence, terms

from .table import Row

OUT = Path(__file__).parents[1] / "src/normsniff/data/calibration-v1.json"
VIEWS = ("roles", "shapes")
STRENGTH = 0.1
"""scikit-learn's C: of 0.1, 0.2, 0.3, 0.6 and 1 the strongest whose log loss in cross-validation is within 3 % of the
best one's. That is 0.1 for both views. From 0.3 on single sure answers are wrong."""

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
    """Fit one view. A row whose truth is neither enters twice, with half its weight for each norm."""
    found = [terms(view, r) for r in rows]
    names = list(found[0])
    x = np.array([[t[n] for n in names] for t in found])
    y, w = truth(rows), weights(rows)
    scaler = StandardScaler().fit(x, sample_weight=w)
    both = np.concatenate([scaler.transform(x)] * 2)
    model = LogisticRegression(C=STRENGTH, max_iter=5000, tol=1e-8)
    model.fit(both, np.repeat([1, 0], len(rows)), sample_weight=np.concatenate([w * y, w * (1 - y)]))
    slopes = model.coef_[0] / scaler.scale_
    intercept = float(model.intercept_[0] - slopes @ scaler.mean_)
    cap = math.log(len({r["run"] for r in rows}))  # one run in all of them may be wrong without our having seen it
    return Fitted(intercept, dict(zip(names, slopes.tolist(), strict=True)), cap)
