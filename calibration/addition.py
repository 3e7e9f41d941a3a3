"""The sections of docs/calibration.md on thresholds, on counted rules, and on adding up what all of them say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .fit import VIEWS, Array
from .table import Row
from .validate import FOLDINGS, RIGHT, TRAINED, dependence, foldings

NAMES = {"roles": "roles known", "shapes": "shapes alone"}


def percent(value: float | None) -> str:
    """Return a share as the page writes it."""
    return "–" if value is None else f"{100 * value:.1f} %"


_LADDER = (0.8, 0.85, 0.9, 0.95, 0.98)


def thresholds(views: dict[str, list[Row]], least: dict[str, float]) -> Iterator[str]:
    """Yield how the thresholds of the kernel were found, and what others would give."""
    yield "## From which confidence on the kernel answers alone\n"
    yield "The rule: the lowest confidence, 0.8 at least, from which on (and from every higher one on) the share of"
    yield f"right answers set as a target is met, {RIGHT['roles']:.1%} with roles and {RIGHT['shapes']:.1%} from shapes"
    yield f"alone, over {FOLDINGS} foldings of the runs and the rows of {TRAINED} steps or more that have one of the"
    yield f"norms. It gives **{least['roles']:g}** with roles and **{least['shapes']:g}** from shapes alone. The share"
    yield "met is thus no independent finding. What it costs is the coverage.\n"
    yield f"| view | what | {' | '.join(f'from {x:g}' for x in _LADDER)} |"
    yield f"|---|---|{'---|' * len(_LADDER)}"
    for view in VIEWS:
        sure, right = foldings(views[view], view)
        yield f"| {NAMES[view]} | answered | {' | '.join(percent((sure >= x).mean()) for x in _LADDER)} |"
        yield f"| {NAMES[view]} | right of these | {' | '.join(percent(right[sure >= x].mean()) for x in _LADDER)} |"
    yield ""
    yield _OTHERWISE


_OTHERWISE = """These hold where the kernel says more than all other evidence together. Elsewhere the tool answers from
0.8: the log-odds of declared and layout evidence are cautious counts, not fits, and 0.8 is what they have to reach
together. Half of the model types of transformers were hidden from the table of families and labelled by their layout
alone (three draws, `python -m benchmarks.conformance ... --hide 0.5`): 492 of 503 answers were right (97.8 %), at
confidences of about 0.9. Of the eleven wrong ones seven mix both norms in one stream, and four are Moonshine, which is
LayerNorm without shifts.
"""


_MADE = """`none` and `mixed` are counted on files that were made for it, too, of networks of every kind
(`calibration/kinds`, docs/conformance.md): where a graph or a list of layers says so, and for adapters, every network
counts once; where names and shapes do, all networks of a kind count as one, since one hand gave their layers names.
"""

_WORDS = """*Outside* are code bases other than transformers and llama.cpp: the half of the table in
`calibration/open_world` that rules may be written for, each code base counted once (docs/conformance.md has the answers
for both halves). There LayerNorm without a shift is not rare, and it has names of its own. So the lack of a shift is
weighed by what the norms are called: {words} names of norms without a shift were counted in both worlds (`bare_words`
in the shipped table); the counts of a name add to two cases that are divided as code bases outside are, the median over
the norms speaks for all, and never more surely than the rule *shift absent*. A name that nobody was seen to use does
not suffice for a label.
"""


def together(shipped: dict[str, Any], rows: Sequence[Row], p: Array) -> Iterator[str]:
    """Yield the counted rules, the chosen numbers, and whether the kinds of evidence may be added up."""
    yield "## Declared and layout evidence\n"
    yield "`python -m calibration counts` counts how often a rule was right over the families whose norm is known;"
    yield "model types that share the start of their name count once. A rule that was right n times and wrong m times"
    yield "gets the log-odds ln((n + 1)/(m + 1)): one success and one failure more than were seen, so that few cases"
    yield "say little.\n"
    yield "| rule | says | right | wrong | outside | log-odds | what was counted |\n|---|---|---|---|---|---|---|"
    for name, rule in shipped["rules"].items():
        outside = " / ".join(map(str, rule["outside"])) if any(rule["outside"]) else ""
        counted = f"{rule['right']} | {rule['wrong']} | {outside} | {rule['log_odds']:+.2f}"
        yield f"| {name} | {rule['says']} | {counted} | {rule['because']} |"
    yield "\nThe rules on architectures, shifts and the configuration keys of transformers follow from the facts that"
    yield "are shipped, and a test counts them again. The others were counted with the two reference tables behind"
    yield "those facts (`python -m calibration counts GGUF_TABLE TRANSFORMERS_TABLE`); their counts are kept.\n"
    yield _MADE
    yield f"{_WORDS.format(words=len(shipped['bare_words']))}\n"
    yield "What nothing at hand can count was chosen:\n\n| number | value | why |\n|---|---|---|"
    chosen = {"answer_from": shipped["answer_from"], "total_cap": shipped["total_cap"], **shipped["chosen"]}
    for name, choice in chosen.items():
        yield f"| {name} | {choice['value']:g} | {choice['because']} |"
    yield _ADDING
    yield "| rows of 300 steps or more | rows (runs) | slope of the kernel's log-odds | 90 % of resampled runs |"
    yield "|---|---|---|---|"
    for what, group in _SHIFTS:
        at = [i for i, r in enumerate(rows) if r["step"] >= TRAINED and r["truth"] != "neither" and group(r)]
        kept = [rows[i] for i in at]
        slope, low, high = dependence(kept, p[at])
        yield f"| {what} | {len(at)} ({len({r['run'] for r in kept})}) | {slope:.2f} | {low:.2f} to {high:.2f} |"
    yield _AFTER_ADDING


_SHIFTLESS = {"cohere", "modernbert"}


def _shifted(row: Row) -> bool:
    if row["source"] == "own":
        return bool(row["norm"] in ("ln", "ln-zero"))
    return bool(row["truth"] == "LayerNorm" and row["name"] not in (*_SHIFTLESS, "olmo") and row["norm"] != "other")


_SHIFTS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("all", lambda _: True),
    ("norms without a shift, or without parameters", lambda r: not _shifted(r)),
)

_ADDING = """
## Adding up

The log-odds of a component's evidence add up to the log-odds of its confidence, exactly: where the sum exceeds what any
calibration supports (`total_cap`), or what tampered weights are worth (`suspicious_cap`), an entry of the kind
`verdict` takes the difference back. Entries of that kind with log-odds of 0 name the rule that decided instead of the
sum: the threshold that an abstention missed, a sum that defies the weights (`against_kernel`), a structural label
(`mixed`, `none`), a declaration that was overruled.

Adding means to take the kinds of evidence for independent, given the norm. Two dependences are known:

- *Declaration and layout.* A declared family that is LayerNorm without a shift (Cohere, ModernBERT) foretells that none
  is stored. The lack then says nothing beyond the declaration and is not counted against it; likewise for an RMSNorm
  family with shifts. Where two implementations of an architecture differ (phimoe, refact), its name counts half and
  its layout nothing.
- *Layout and kernel.* Should the kernel be surer than it may be among models without shifts, of which most are RMSNorm,
  then adding would count something twice. A logistic regression of the truth on the cross-validated log-odds of the
  kernel (roles known) shows it: a slope of 1 or more says that they may be added in full.

"""

_AFTER_ADDING = """
The corpus holds no model whose shifts would decide otherwise than its truth, so that nothing can be said of the kernel
among models with shifts: they all are LayerNorm.
"""
