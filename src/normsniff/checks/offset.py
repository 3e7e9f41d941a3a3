"""scale-offset: whether a file stores γ, γ - 1, or a γ that 1 was added to once too often.

Two witnesses, never one site: what was added after training, told by the last bits (`history`), and the pooled values.
Both are held against what the family stores in this format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..record import Finding, Severity, StoredScale
from ..words import amount
from .additions import NATIVES, Convention, Seen, is_doubled, is_zero_centred, see, weighed
from .history import STEPS
from .stored import Explanation, explain, stored_as
from .subject import Subject

_MOST_GROUPS = 2 / 3  # that must agree before values alone are believed
_FEWEST = 64  # values of a component that values alone are judged by


def find(subject: Subject) -> Iterator[Finding]:
    """Yield one finding a component, fault and convention."""
    for component, every in see(subject).items():
        seen = weighed([one for one in every if one.exact])
        told = list(_by_history(subject, component, seen))
        yield from told or _by_values(component, seen)


def stores(subject: Subject) -> list[StoredScale | None]:
    """Return what is stored at every norm, in the order of the subject; None where there is nothing to tell it by.

    The norms of a component that have one convention are told together.
    """
    found: dict[int, StoredScale] = {}
    for every in see(subject).values():
        for convention in dict.fromkeys(one.convention for one in every):
            alike = [one for one in every if one.convention == convention]
            varied = [one for one in alike if one.varies]
            if varied:
                told = stored_as(_explained(varied), None if convention == "unknown" else sum(varied[0].sound[0]))
                found |= {id(norm): told for one in alike for norm in one.group.norms}
    return [found.get(id(norm)) if norm.stored is not None else None for norm in subject.norms]


def _explained(seen: Sequence[Seen]) -> list[Explanation]:
    """Return what may have been stored and added, for groups of one convention whose values vary."""
    ratios = {step: math.fsum(one.told.ratios[step] for one in seen if one.told is not None) for step in STEPS}
    groups = [one.group.values() for one in seen]
    return explain(groups, ratios, NATIVES[seen[0].convention], seen[0].expected)


def _by_history(subject: Subject, component: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    faults: dict[tuple[Convention, bool], list[Seen]] = {}
    for one in seen:
        if one.excess:
            faults.setdefault((one.convention, one.excess > 0), []).append(one)
    for (convention, doubled), hit in faults.items():
        alike = [one for one in seen if one.convention == convention]
        family = subject.fact.name[:60] if subject.fact is not None else "the network"
        if subject.checkpoint.graph is not None and convention == "minus-one":
            family = "the graph"
        lead = max(hit, key=lambda one: (not one.joined, len(one.group.norms)))
        agreed = is_doubled(hit) if doubled else is_zero_centred(hit)
        sure = any(one.strong for one in hit) or (agreed and not lead.joined)
        severity: Severity = "error" if sure else "warning"
        if convention == "unknown":
            severity = "warning" if lead.added == 2 else "note"
        names = tuple(name for one in hit for name in one.group.names)
        left = [name for one in alike if one.open for name in one.group.names]
        total = sum(len(one.group.norms) for one in alike)
        yield Finding(
            code="scale-offset",
            severity=severity,
            component=component,
            norms=names,
            reason=f"{_words(lead)} in {len(names)} of {amount(total, 'norm')} ({_span(hit)}"
            + (f"; of {len(left)} more the values do not tell" if left else "")
            + f"): {_consequence(lead, family)}",
            cure=_cure(lead),
            confidence=_wrong(hit),
            details={
                "convention": convention,
                "groups": {
                    one.group.place: {
                        "added": one.added,
                        "log_ratio": round(one.told.log_ratio, 1),
                        "strong": one.strong,
                    }
                    for one in hit
                    if one.told is not None
                },
                "values_agree": agreed,
                "not_told": left,
                "stores": _named(hit),
            },
        )


def _words(one: Seen) -> str:
    said = {
        0: "1 was not added to the stored scale",
        1: "1 was added to the stored scale after training",
        2: "1 was added twice to the stored scale after training",
        -1: "1 was subtracted from the stored scale after training",
    }[one.added or 0]
    return f"by the values, {said}" if one.joined else said


def _consequence(one: Seen, family: str) -> str:
    match one.convention:
        case "minus-one":
            if one.excess < 0:
                return f"{family} stores scale - 1 already, so every gain is about lost"
            return f"{family} stores scale - 1 and adds the 1 itself, so every gain is about doubled"
        case "added":
            if one.added == 2:
                return f"the converter of {family} adds it once, so every gain is about doubled"
            return f"the file of {family} should hold the full scale"
        case "plain":
            gain = "doubled" if one.excess > 0 else "lost"
            return f"{family} computes with the stored scale as it is, so every gain is about {gain}"
    return "no family is known that tells whether the network expects that"


def _cure(one: Seen) -> str:
    if one.convention == "unknown":
        return "compare with what the model's code does with the weight: weight, or 1 + weight"
    if one.excess < 0:
        return "add 1 to these tensors, or convert again without the subtraction"
    times = str(one.excess)
    return f"subtract {times} from these tensors, or convert again from the original with the addition once"


def _by_values(component: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    """Judge by the values where the last bits tell nothing: weaker, so never more than a warning."""
    known = [one for one in seen if one.convention != "unknown" and one.varies]
    if sum(one.group.values().size for one in known) < _FEWEST:
        return
    for test, words, cure in _SIGNS:
        every = [one for one in known if test([one])]
        if len(every) < _MOST_GROUPS * len(known):
            continue
        for convention in dict.fromkeys(one.convention for one in every):
            hit = [one for one in every if one.convention == convention]
            names = tuple(name for one in hit for name in one.group.names)
            yield Finding(
                code="scale-offset",
                severity="warning",
                component=component,
                norms=names,
                reason=f"the effective scales of {amount(len(names), 'norm')} are {_span(hit)}, {words}",
                cure=cure,
                confidence=_wrong(hit),
                details={
                    "convention": convention,
                    "groups": [one.group.place for one in hit],
                    "stores": _named(hit),
                },
            )


def _wrong(hit: Sequence[Seen]) -> float:
    """Return the probability that the scales came about otherwise than those of the family's files."""
    right = math.fsum(one.probability for one in _explained(hit) if (one.native, one.added) in hit[0].sound)
    return round(min(max(1 - right, 0.0), 1 - 1e-6), 6)


def _named(hit: Sequence[Seen]) -> dict[str, float]:
    return stored_as(_explained(hit), None).probabilities


_SIGNS = (
    (
        is_doubled,
        "as when 1 is added to a full scale; training from a scale of 1 in code that adds 1 looks the same",
        "compare with the original, and with what the model's code does with the weight: weight, or 1 + weight",
    ),
    (
        is_zero_centred,
        "as those of scale - 1 are, where the full scale is computed with",
        "compare with the original: if it stores scale - 1, the 1 was not added",
    ),
)
"""What values alone may show: the test of a group, what that looks like, what to do."""


def _span(seen: Sequence[Seen]) -> str:
    means = [
        float(np.mean(one.stored + one.site.offset))
        for each in seen
        for one in each.group.norms
        if one.stored is not None and one.stored.size
    ]
    return f"means {min(means):.3g} to {max(means):.3g}" if means else "not read"
