"""How sure the values of scales make it what a file stores: γ, γ - 1, or either with 1 added.

    python -m calibration.scales train     # small models of 27 families, trained in two ways (30 minutes)
    python -m calibration.scales fit       # fit on half of the families, write the weights and the table

``scales.npz`` keeps the stored scales of the trained models, in float32, by family, recipe and place. Their
values are taken as trained in one of three types, as they are or with γ rescaled (networks whose next matrices are
divided by the same number compute the same), stored as γ or as γ - 1, shifted by -1, 0, 1 or 2 in that type or in
float32, and some rounded to 8 bits. The weights of `normsniff.checks.stored` are a conditional logit over what may
have been added; half of the cases have nothing added. Of four ways to let the likelihood ratio of the last bits count
(clipped, two logarithms, the root) the one that fits the families of the fit best was taken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from normsniff.checks.history import STEPS, history
from normsniff.checks.stored import explanations, looks, witness

CORPUS = Path(__file__).parent / "scales.npz"
SHIPPED = Path(__file__).parents[1] / "src" / "normsniff" / "data" / "scales-v1.json"
DOCS = Path(__file__).parents[1] / "docs" / "check.md"
TYPES: Mapping[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
BINS = ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.99), (0.99, 0.999), (0.999, 1.001))
_JITTER = 0.02  # relative: values of the other convention lie on no grid of this one
_RESCALED = (0.15, 8.0)  # of γ: real ones average 0.1 (T5) to 7 (Qwen2.5)
_RIDGE = 1e-3  # keeps weights finite; tens of cases a weight make it count for nothing

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Scales:
    """The stored scales of one trained model, by convention.

    Attributes:
        family: model type.
        native: what is stored beyond γ, 0 or -1, to the values of each place of the blocks.
    """

    family: str
    native: Mapping[int, tuple[Float64, ...]]

    def stored(self, native: int, random: np.random.Generator) -> list[Float64]:
        """Return the scales as if they had been trained so; from the other convention, off its grid."""
        if self.native.get(native):
            return list(self.native[native])
        step = 1 if native == 0 else -1
        return [
            (one + step) * (1 + random.uniform(-_JITTER, _JITTER, one.shape))
            for one in self.native.get(-1 - native, ())
        ]


@dataclass(frozen=True)
class Treatment:
    """One file, and what is known of it.

    Attributes:
        family: model type.
        native: what training wrote beyond γ.
        added: the truth.
        kind: words for the table: what the values were trained in, and whether they were rounded to 8 bits.
        terms: of every explanation, in the order of `explanations`: expected, five of `looks`, the witness.
    """

    family: str
    native: int
    added: int
    kind: str
    terms: Float64

    @property
    def beyond(self) -> NDArray[np.int64]:
        """What every explanation stores beyond γ."""
        return np.array([sum(way) for way in explanations((self.native,))])

    @property
    def truth(self) -> NDArray[np.bool_]:
        """Which explanations store what the file does."""
        return np.asarray(self.beyond == self.native + self.added)

    @property
    def weight(self) -> float:
        """So that half of the cases have nothing added."""
        return float(len(STEPS)) if self.added == 0 else 1.0


def corpus() -> list[Scales]:
    """Return the kept scales."""
    found: dict[tuple[str, str], dict[int, list[Float64]]] = {}
    with np.load(CORPUS) as kept:
        for key in kept.files:
            family, recipe, convention, _ = key.split("/", 3)
            groups = found.setdefault((family, recipe), {}).setdefault(-1 if convention == "w" else 0, [])
            groups.append(kept[key].astype(np.float64))
    return [Scales(family, {k: tuple(v) for k, v in both.items()}) for (family, _), both in found.items()]


def shifted(values: NDArray[Any], number: int, kind: Any) -> Float64:
    """Add 1 as often as `number` says (or subtract it), rounding to `kind` each time."""
    for _ in range(abs(number)):
        values = (values.astype(kind) + kind(np.sign(number))).astype(kind)
    return values.astype(kind).astype(np.float64)


def eight_bits(values: Float64) -> Float64:
    """Round to 255 steps, as a quantisation of whole vectors does."""
    step = float(np.abs(values).max()) / 127 or 1.0
    return np.asarray(np.round(values / step) * step, np.float64)


def cases(models: Sequence[Scales]) -> Iterator[Treatment]:
    """Yield every treatment of every model."""
    random = np.random.default_rng(0)
    for model in models:
        for native in (0, -1):
            plain = model.stored(native, random)
            factor = math.exp(random.uniform(*np.log(_RESCALED)))
            for stored in (plain, [(one - native) * factor + native for one in plain]):
                if stored:
                    yield from _treated(model.family, native, stored)


def _treated(family: str, native: int, stored: Sequence[Float64]) -> Iterator[Treatment]:
    for name, kind in TYPES.items():
        base = [one.astype(kind) for one in stored]
        for wide in dict.fromkeys((name, "float32")):
            for added in (0, *STEPS):
                groups = [shifted(one, added, TYPES[wide]) for one in base]
                told = [seen for one in groups if (seen := history(one)) is not None]
                ratios = {step: math.fsum(seen.ratios[step] for seen in told) for step in STEPS}
                yield Treatment(family, native, added, name, _terms(native, groups, ratios))
                if (name, wide) == ("bfloat16", "float32"):
                    rounded = [eight_bits(one) for one in groups]
                    yield Treatment(family, native, added, "8 bits", _terms(native, rounded, dict.fromkeys(STEPS, 0.0)))


def _terms(native: int, groups: Sequence[Float64], ratios: Mapping[int, float]) -> Float64:
    rows = [
        [float(added == 0), *looks(groups, written + added), witness(ratios[added]) if added else 0.0]
        for written, added in explanations((native,))
    ]
    return np.array(rows)


def held_out(family: str) -> bool:
    """Whether a family is left out of the fit: half of them, by their names."""
    return hashlib.sha256(f"normsniff scale {family}".encode()).digest()[0] < 128


def fit(known: Sequence[Treatment]) -> Float64:
    """Return the seven weights."""
    from scipy.optimize import minimize

    def loss(weights: Float64) -> tuple[float, Float64]:
        total, gradient = 0.0, np.zeros_like(weights)
        for case in known:
            odds = probabilities(case, weights)
            right = odds * case.truth / max(float(odds[case.truth].sum()), 1e-12)
            total -= case.weight * math.log(max(float(odds[case.truth].sum()), 1e-12))
            gradient += case.weight * (odds - right) @ case.terms
        n = sum(case.weight for case in known)
        return total / n + _RIDGE * float(weights @ weights), gradient / n + 2 * _RIDGE * weights

    found: Float64 = minimize(loss, np.zeros(known[0].terms.shape[1]), jac=True, method="L-BFGS-B").x
    return found


def probabilities(case: Treatment, weights: Float64) -> Float64:
    """Return the probability of every explanation."""
    scores = case.terms @ weights
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum(), np.float64)


def table(judged: Sequence[Treatment], weights: Float64) -> Iterator[str]:
    """Yield the lines of the reliability table, as Markdown: by what was said, then by what the values are."""
    seen = [likeliest(case, probabilities(case, weights)) for case in judged]
    yield "| said | cases | mean of what was said | right |"
    yield "|---|---|---|---|"
    for low, high in BINS:
        some = [one for one in seen if low <= one[1] < high]
        if some:
            yield f"| {_span(low, high)} | {len(some)} | {_mean(some, 1):.1%} | {_mean(some, 2):.1%} |"
    yield ""
    yield "| values | cases | right | 90 % sure | of these right | cannot tell |"
    yield "|---|---|---|---|---|---|"
    for kind in dict.fromkeys(case.kind for case in judged):
        for native, words in ((0, "γ"), (-1, "γ − 1")):
            some = [one for one in seen if (one[0].kind, one[0].native) == (kind, native)]
            sure = [one for one in some if one[1] >= 0.9]
            share = sum(one[0].weight for one in sure) / sum(one[0].weight for one in some)
            yield (
                f"| {words}, {kind} | {len(some)} | {_mean(some, 2):.1%} | {share:.0%} | {_mean(sure, 2):.1%}"
                f" | {1 - share:.0%} |"
            )


def likeliest(case: Treatment, odds: Float64) -> tuple[Treatment, float, bool]:
    """Return the largest probability of anything stored, and whether that is right."""
    stored = {int(n): float(odds[case.beyond == n].sum()) for n in case.beyond}
    best = max(stored, key=lambda n: stored[n])
    return case, stored[best], best == case.native + case.added


def _mean(some: Sequence[tuple[Treatment, float, bool]], at: int) -> float:
    return float(np.average([one[at] for one in some], weights=[one[0].weight for one in some])) if some else math.nan


def _span(low: float, high: float) -> str:
    return f"below {high:.0%}" if not low else f"over {low:.1%}" if high > 1 else f"{low:.0%} to {high:.1%}"


def write(weights: Float64, about: str, lines: Sequence[str]) -> None:
    """Write the weights that are shipped, and the table into the docs."""
    rounded = [round(float(one), 4) for one in weights]
    text = {"expected": rounded[0], "values": rounded[1:6], "history": rounded[6], "about": about}
    SHIPPED.write_text(json.dumps(text, indent=1) + "\n", "utf-8")
    begin, end = "<!-- reliability: python -m calibration.scales fit -->", "<!-- end of reliability -->"
    before, _, rest = DOCS.read_text("utf-8").partition(begin)
    DOCS.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{rest.partition(end)[2]}", "utf-8")


def collect(folders: Sequence[Path]) -> None:
    """Write `CORPUS` out of trained models: folders FAMILY-RECIPE as `train` leaves them."""
    import normsniff

    kept: dict[str, NDArray[np.float32]] = {}
    for folder in folders:
        family, _, recipe = folder.name.rpartition("-")
        places: dict[tuple[str, bool], list[NDArray[np.float32]]] = {}
        with normsniff.norms(folder) as norms:
            for one in norms:
                if one.stored is not None and np.ptp(one.stored) > 0:
                    key = re.sub(r"\d+", "#", one.name), bool(one.zero_centred)
                    places.setdefault(key, []).append(one.stored.reshape(-1))
        for (place, zero), values in places.items():
            kept[f"{family}/{recipe}/{'w' if zero else 'g'}/{place}"] = np.concatenate(values)
    np.savez_compressed(CORPUS, **kept)  # type: ignore[arg-type]  # numpy's stub takes no mapping of names


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m calibration.scales", description=__doc__)
    parser.add_argument("stage", choices=["train", "fit"])
    parser.add_argument("--out", type=Path, default=Path("calibration/kept/scales"))
    given = parser.parse_args()
    if given.stage == "train":
        from .scale_models import train

        collect(sorted(train(given.out)))
        return
    every = list(cases(corpus()))
    chosen, judged = ([case for case in every if held_out(case.family) == held] for held in (False, True))
    weights = fit(chosen)
    families = sorted({case.family for case in chosen}), sorted({case.family for case in judged})
    about = f"python -m calibration.scales fit: {len(chosen)} cases of {', '.join(families[0])}"
    lines = [f"{len(judged)} cases of {len(families[1])} held-out families ({', '.join(families[1])}):", ""]
    lines += table(judged, weights)
    write(weights, about, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
