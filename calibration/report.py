"""Write docs/calibration.md: the corpus, the fit, how good it is on what it has not seen, and where it fails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from normsniff.evidence.features import DESCRIPTIONS, silence, trained

from .addition import NAMES, percent, thresholds, together
from .fit import OUT, VIEWS, Array, speaking, too_high, truth
from .heldout import SURE, held_out
from .plan import SECOND, THIRD
from .table import TABLE, Row, load
from .validate import (
    FOLDS,
    TRAINED,
    Score,
    by_level,
    cross_validated,
    reliability,
    score,
)

DOCS = Path(__file__).parents[1] / "docs"
PICTURE = "calibration-reliability.png"


def write(table: Path = TABLE) -> None:
    """Cross-validate and write the page and its picture."""
    rows = load(table)
    views = {view: speaking(rows, view) for view in VIEWS}
    p = {view: cross_validated(views[view], view) for view in VIEWS}
    DOCS.mkdir(exist_ok=True)
    _picture(views, p)
    shipped = json.loads(OUT.read_text())
    least = {view: float(shipped[f"kernel_{view}"]["answer_from"]) for view in VIEWS}
    parts = [
        _INTRODUCTION,
        "\n".join(_corpus(rows)),
        "\n".join(_model(shipped)),
        "\n".join(_quality(rows, views, p, least)),
        "\n".join(held_out(rows)),
        _MISSED,
        "\n".join(thresholds(views, least)),
        "\n".join(together(shipped, views["roles"], p["roles"])),
        "\n".join(_levels(views, p, least)),
        "\n".join(_failures(views, p)),
        _LIMITS,
    ]
    (DOCS / "calibration.md").write_text("\n".join(parts))


_INTRODUCTION = """# How far the kernel test can be trusted

Written by `python -m calibration report`; do not edit. The table behind it is `calibration/corpus.csv.gz`, made of the
spectra in `calibration/spectra.jsonl.xz`.

The kernel test asks whether weights lack energy along the dead direction of a LayerNorm. How much such a deficit, or
the lack of one, is worth was counted on models trained for this purpose, whose norm is known. Every figure on the
kernel comes from a fit that has seen no snapshot of the run it is asked about. What files declare and store is counted
below.
"""

_MISSED = """\
What of the targets is missed, and why, was tried by experiment on the runs that were not held out, in folds by run,
three to five foldings. "Answered" is from the threshold in brackets, of rows of 300 steps or more; W is the number of
sure answers that are wrong, a folding, and of how many runs. On 264 of the 509 runs:

| roles known | log loss | ECE | answered | W (runs) |
|---|---|---|---|---|
| ridge 0.05 | 0.160 | 0.042 | 67.0 % (0.91) | 5.0 (2) |
| **ridge 0.1** | 0.152 | 0.036 | 68.2 % (0.93) | 5.7 (3) |
| ridge 0.2 | 0.150 | 0.028 | 68.1 % (0.95) | 10.0 (5) |
| ridge 0.4 | 0.152 | 0.027 | 67.6 % (0.97) | 15.8 (5) |
| ridge 1 | 0.162 | 0.024 | 62.5 % (0.99) | 21.0 (7) |
| ratios alone, without deficits, ridge 0.2 | 0.148 | 0.023 | 57.8 % (0.98) | 6.0 (3) |

| shapes alone | log loss | ECE | answered | W (runs) |
|---|---|---|---|---|
| with both quartiles, ridge 0.1 | 0.261 | 0.037 | 63.6 % (0.80) | 0.8 (1) |
| with both quartiles, ridge 0.2 | 0.256 | 0.034 | 64.9 % (0.80) | 2.2 (2) |
| with both quartiles, ridge 0.4 | 0.254 | 0.028 | 65.0 % (0.83) | 3.2 (3) |
| **without the quartiles, ridge 0.4** | 0.250 | 0.030 | 65.2 % (0.82) | 3.0 (2) |
| ratios alone, without deficits, ridge 0.4 | 0.250 | 0.028 | 62.1 % (0.87) | 2.7 (2) |
| with both quartiles, ridge 1 | 0.253 | 0.026 | 64.8 % (0.87) | 5.2 (5) |

**The understatement can be taken away, and the sure mistakes come back with it.** On 197 of the first 376 runs, with
the terms and the ridge of 0.2 of then (slope: what the log-odds are worth over what they say):

| | roles: log loss | ECE | slope | W (runs) | shapes: log loss | ECE | slope | W (runs) |
|---|---|---|---|---|---|---|---|---|
| as it was | 0.149 | 0.036 | 1.48 | 1.0 (1) | 0.237 | 0.041 | 1.34 | 0 |
| one temperature, fitted out of fold | 0.149 | 0.029 | 1.06 | 14.7 (5) | 0.236 | 0.031 | 1.00 | 9.0 (4) |
| a temperature for either norm | 0.146 | 0.023 | 1.04 | 14.7 (5) | 0.240 | 0.032 | 0.98 | 10.3 (5) |
| isotonic | 0.150 | 0.030 | 1.04 | 18.7 (7) | 0.257 | 0.032 | 0.90 | 13.7 (7) |
| temperature with a contamination of either norm | 0.145 | 0.028 | 0.95 | 14.7 (5) | 0.234 | 0.029 | 0.94 | 9.0 (4) |
| likelihood with 2 % contamination, ridge 0.2 | 0.154 | 0.040 | 1.55 | 1.0 (1) | 0.242 | 0.044 | 1.41 | 0 |
| likelihood with 2 % contamination, ridge 1 | 0.153 | 0.028 | 1.14 | 10.7 (3) | 0.229 | 0.035 | 1.24 | 3.3 (2) |
| likelihood with 10 % contamination, ridge 1 | 0.180 | 0.055 | 1.52 | 7.7 (3) | 0.254 | 0.064 | 1.54 | 1.7 (1) |
| uncertainty of the coefficients taken in (Laplace) | 0.226 | 0.110 | 2.24 | 0 | 0.291 | 0.079 | 1.79 | 0 |

All of them move along one line: what is stretched lifts the same four to seven networks over 0.9. A contamination caps
log-odds at ln((1 - ε)/ε), which for an honest ε of two in a hundred is 0.98, so that these are sure all the same. They
are mostly LayerNorm encoders with norms behind their sub-layers (BART, RoBERTa, ELECTRA), trained with Adam and its
like, whose element-wise steps leak along the mean, and which after a thousand steps have learned little but
frequencies; and a LayerNorm stream that is also read as it is. Nothing in their weights tells them from RMSNorm.

Two bounds say how far ECE can fall at all. With a cap of one in n runs, a confidence that is right to the last digit is
wrong at least once in n sure answers: one in 500, as asked, and no understatement exclude each other below 500 runs.
And right probabilities would show an ECE of about 0.03 here, not of 0.02 (the table above, *right probabilities*): the
rows of a run share their truth, and the bins between 0.1 and 0.9 hold a dozen runs each.

Coverage is missed for the same reason, and because some rows cannot be answered: with roles known 6 of 100 are of
networks without writers and readers (graphs, Fourier and recurrent layers, mixers), 3 are RMSNorms without a scale;
from shapes alone 7 of 100 are RMSNorms whose scales lie around zero, which nothing tells from biases, so that there
may be no norm at all, and 3 store none. Most of the rest moved little: small rates, plain SGD, 300 to 400 steps,
large initial values are in the corpus on purpose.

Networks of neither kind that would be answered store scales and subtract no mean of a vector. nGPT, which divides by
the length, is told by its weights: their vectors are all of one length (docs/kernel.md, section 4). A GroupNorm of
one group, which subtracts the mean of all tokens, is not: one such network of the seen half, whose names and shifts
say what it is, looks like an RMSNorm to the kernel in all of its seven rows. (Under it the means of the writers'
biases stay where they were, though not those of the writers; this one has no biases.) That weights must follow the
scales before a lack of shadows counts from shapes alone is part of these figures. The tool itself, asked with
`--evidence kernel` (`python -m calibration.answers`), answered 14 of 225 seen rows of neither kind, 8 of them surely
and all of nGPT, before its vectors were looked at; now 1 of 253, surely (nGPT of which half was pruned away). Of the
other half, looked at once, it answers (with the shipped fit) 12 of 313, 11 of them surely: six of a GroupNorm and six
of a plain MLP (features: 13 and 13).
"""

_LIMITS = """
## Limits

- The corpus is small models (most of d 48 to 128, two to four layers) trained for 300 to 2,000 steps, few for longer.
  Files in the world are larger and trained for longer, where both the shadow and its absence are clearer; the figures
  are not theirs.
- Runs, not rows, are independent: a run gives six to ten rows. An accuracy of 99 % over 100 runs is compatible with
  one run in 30 wrong. Cross-validation over all runs is a little too good, because choices were made while looking at
  half of them.
- A stream of few directions (an encoder that has learned little but frequencies, a pruned model) shows deep "shadows"
  by chance, in all of its matrices at once. The ratios count the directions; ρ of the whole knows only its spread.
- The fit weighs longer runs more, because files in the world are trained to the end; its confidence is meant for them.
- The kernel sees whether a mean is subtracted, and not whether there is a norm. A network with a scaled substitute for
  a norm (DyT, Derf) is given away by the single numbers stored beside its scales (`evidence/substitutes.py`), and gets
  no answer. Inside a graph, in packed weights, or with those numbers folded away, it is not recognised.
- Without any norm that names, a graph or scales show the kernel never says RMSNorm: there may be none at all. That
  keeps networks without norms from a wrong answer, and costs RMSNorm networks without parameters theirs. Where writers
  or readers alone are known, it says RMSNorm softly: a graph network with LayerNorm (MiniMol) has no shadow in its
  writers.
- A LayerNorm network whose stream is also read as it is keeps its mean. Nothing in its weights tells that from RMSNorm.
- A matrix that training has moved little carries no shadow. Large initial values, small rates and plain SGD leave
  such matrices after hundreds of steps; the right answer is then none, and coverage pays for it.
- Whoever adds or removes energy along the mean of the writers decides what this test sees: it is evidence, not proof.
"""


def _corpus(rows: Sequence[Row]) -> Iterator[str]:
    runs = {r["run"]: r for r in rows}
    failed = sum(1 for r in rows if r["view"] == "diverged")
    shapes = [r for r in rows if r["view"] == "shapes"]
    yield f"## Corpus\n\n{len(runs)} runs, {len(shapes)} snapshots and treated copies ({failed} runs diverged)."
    yield "A copy is the last snapshot cast, quantised, pruned, disturbed, averaged, merged with a LoRA, fine-tuned."
    second, third = sum(SECOND <= run < THIRD for run in runs), sum(run >= THIRD for run in runs)
    yield f"{second} runs are of the second part of the plan, drawn up after the first had been judged: small models,"
    yield "trained for 1,000 steps and more, with more of what had been left unanswered or wrong."
    yield f"{third} are of the third part: networks without a norm or with another one, partly normalised ones, today's"
    yield "recipes, sound. Of every part the runs that cost least came first, and time ended before all were made.\n"
    yield "| factor | runs |\n|---|---|"
    for name in (
        "truth", "norm", "placement", "kind", "optimiser", "init", "decay", "data", "d", "layers", "steps", "rate",
        "positions", "activation", "experts", "bf16",
    ):  # fmt: skip
        counts = Counter(str(r[name]) for r in runs.values())
        yield f"| {name} | {', '.join(f'{k} {n}' for k, n in counts.most_common())} |"
    classes = Counter(r["name"] for r in runs.values() if r["source"] == "real")
    yield f"| classes of transformers | {', '.join(f'{k} {n}' for k, n in sorted(classes.items()))} |"
    others = Counter(r["name"] for r in runs.values() if r["source"] == "other")
    yield f"| no transformers | {', '.join(f'{k} {n}' for k, n in sorted(others.items()))} |"
    copies = Counter(r["treatment"] for r in shapes)
    yield f"| rows by treatment | {', '.join(f'{k} {n}' for k, n in copies.most_common())} |"
    yield ""


def _model(shipped: dict[str, Any]) -> Iterator[str]:
    yield "## Features and fit\n"
    yield "| feature | meaning |\n|---|---|"
    for name, text in DESCRIPTIONS.items():
        yield f"| `{name}` | {text} |"
    yield "\nThe log-odds are linear in terms made of these (`normsniff.evidence.features.terms`): each mean enters as"
    yield "a deficit up to 0.5 and a deeper one, weighed by its precision, beside how trained the matrices look. What"
    yield "was learned enters as log-likelihood ratios (docs/kernel.md, section 4), that of a pool and those of its"
    yield "members averaged. The regression is ridge-regularised; every run counts the same.\n"
    yield "| term | roles known | shapes alone |\n|---|---|---|"
    both = {view: shipped[f"kernel_{view}"] for view in VIEWS}
    yield f"| intercept | {both['roles']['intercept']:.2f} | {both['shapes']['intercept']:.2f} |"
    for name in (*both["roles"]["coefficients"], *both["shapes"]["coefficients"]):
        cells = [both[view]["coefficients"].get(name) for view in VIEWS]
        yield f"| {name} | {' | '.join('' if c is None else f'{c:.2f}' for c in cells)} |"
    yield ""


_GROUPS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("untrained (step 0)", lambda r: r["step"] == 0),
    ("100 steps", lambda r: r["step"] == 100),
    ("300 steps or more", lambda r: r["step"] >= TRAINED and r["truth"] != "neither"),
    ("of these, as trained", lambda r: r["step"] >= TRAINED and r["truth"] != "neither" and _plain(r)),
    ("of these, treated", lambda r: r["step"] >= TRAINED and r["truth"] != "neither" and not _plain(r)),
    (
        "of these, matrices look trained (t > 0.5)",
        lambda r: r["step"] >= TRAINED and r["truth"] != "neither" and trained(r) > 0.5,
    ),
    ("1,000 steps or more", lambda r: r["step"] >= 1000 and r["truth"] != "neither"),
    ("truth is neither norm, 300 steps or more", lambda r: r["truth"] == "neither" and r["step"] >= TRAINED),
)


def _silent(row: Row) -> bool:
    return row["view"] in VIEWS and ("matrices" not in row or silence(row, too_high()) is not None)


def _plain(row: Row) -> bool:
    return row["treatment"] in ("none", "bf16-trained")


def _quality(
    rows: Sequence[Row], views: dict[str, list[Row]], p: dict[str, Array], least: dict[str, float]
) -> Iterator[str]:
    yield f"## Cross-validation, {FOLDS} folds, grouped by run\n\n![reliability]({PICTURE}){{.chart}}\n"
    yield f"Answered means a confidence of at least {least['roles']:g} with roles known, {least['shapes']:g} from"
    yield f"shapes alone, as where the tool answers from the kernel alone; sure means {SURE:g}. Brier score and ECE"
    yield "(ten bins) are over the rows that get a probability: where weights look untrained or hold no scale, and show"
    yield "no shadow, the tool gives none. The numbers in the picture are rows.\n"
    yield "| view | rows | number (runs) | answered | right of these | sure | right of these | Brier | ECE |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for view in VIEWS:
        for name, group in (*_GROUPS, ("all with a norm", lambda r: r["truth"] != "neither")):
            at = [i for i, r in enumerate(views[view]) if group(r)]
            if at:
                cells = _cells(*_both([views[view][i] for i in at], p[view][at], least[view]))
                yield f"| {NAMES[view]} | {name} | {cells} |"
    silent = Counter((r["view"], r["name"]) for r in rows if _silent(r) and r["step"] >= TRAINED)
    for view in VIEWS:
        found = [f"{name} {n}" for (v, name), n in silent.most_common() if v == view]
        what = f"Rows of {TRAINED} steps or more without any feature or silenced by a rule, {NAMES[view]}"
        yield f"\n{what}: {', '.join(found) or 'none'}."
    yield ""


def _both(rows: Sequence[Row], p: Array, threshold: float) -> tuple[Score, Score]:
    return score(rows, p, threshold), score(rows, p, SURE)


def _cells(one: Score, sure: Score) -> str:
    return " | ".join(
        [
            f"{one.rows} ({one.runs})", percent(one.coverage), percent(one.accuracy), percent(sure.coverage),
            percent(sure.accuracy), _number(one.brier), _number(one.ece),
        ]
    )  # fmt: skip


def _levels(views: dict[str, list[Row]], p: dict[str, Array], least: dict[str, float]) -> Iterator[str]:
    yield "## By factor, and with a whole level left out of the fit\n"
    yield f"Rows of at least {TRAINED} steps, answered and right of those answered. Left out: the fit has seen no run"
    yield "of that level. For treatments it has seen no row with it, but other rows of the same runs, so that those"
    yield "lines show robustness to the treatment, not to a new model. Any answer is wrong where the"
    yield "truth is neither norm.\n"
    for view in VIEWS:
        yield f"### {NAMES[view].capitalize()}\n"
        yield "| factor | level | rows (runs) | answered | right | left out: answered | right |"
        yield "|---|---|---|---|---|---|---|"
        for factor, level, within, without in by_level(views[view], view, least[view], p[view]):
            cells = [percent(s) for s in (within.coverage, within.accuracy, without.coverage, without.accuracy)]
            yield f"| {factor} | {level} | {within.rows} ({within.runs}) | {' | '.join(cells)} |"
        yield ""


def _failures(views: dict[str, list[Row]], p: dict[str, Array]) -> Iterator[str]:
    yield "## Failures\n\nThe surest wrong answer of every run with one at a confidence of 0.8 or more, worst first.\n"
    yield "| view | run | truth | P(LayerNorm) | wrong rows | what | snapshot |\n|---|---|---|---|---|---|---|"
    for view in VIEWS:
        rows, y = views[view], truth(views[view])
        wrong: dict[int, list[tuple[float, Row]]] = {}
        for r, one, t in zip(rows, p[view], y, strict=True):
            if max(one, 1 - one) >= 0.8 and (t == 0.5 or (one > 0.5) != (t == 1)):
                wrong.setdefault(r["run"], []).append((float(one), r))
        for run, found in sorted(wrong.items(), key=lambda item: -max(abs(q - 0.5) for q, _ in item[1])):
            q, r = max(found, key=lambda item: abs(item[0] - 0.5))
            what = f"{r['name']}, {r['norm']}, {r['placement']}, {r['kind']}, {r['optimiser']}, {r['init']}, d {r['d']}"
            snapshot = f"step {r['step']}, {r['treatment']}"
            yield f"| {NAMES[view]} | {run} | {r['truth']} | {q:.2f} | {len(found)} | {what} | {snapshot} |"
    yield ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _picture(views: dict[str, list[Row]], p: dict[str, Array]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), dpi=110)
    for axis, view in zip(axes, VIEWS, strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, group in (("all", lambda _: True), (f"{TRAINED} steps or more", lambda r: r["step"] >= TRAINED)):
            at = [i for i, r in enumerate(views[view]) if group(r)]
            points = reliability([views[view][i] for i in at], p[view][at])
            axis.plot([m for m, _, _ in points], [s for _, s, _ in points], marker="o", label=name)
            if name == "all":
                for mean, share, count in points:
                    axis.annotate(str(count), (mean, share), textcoords="offset points", xytext=(4, -11), fontsize=7)
        axis.set(
            title=NAMES[view],
            xlim=(-0.05, 1.12),
            xlabel="P(LayerNorm), cross-validated",
            ylabel="share that is LayerNorm",
        )
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / PICTURE, metadata={"Software": None})
    plt.close(figure)
