"""scale-offset: whether a file stores γ, γ - 1, or a γ that 1 was added to once too often.

Two witnesses, never one site: what was added after training, told by the last bits (`history`), and the pooled values.
Both are held against what the family stores in this format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..record import Finding, Severity, StoredScale
from .history import CERTAIN, STEPS, History
from .stored import Explanation, explain, stored_as
from .subject import Group, Subject

Convention = Literal["minus-one", "added", "plain", "unknown"]
"""What the family stores here: γ - 1; γ, to which its converter added 1; γ as it was trained; or it is not known."""

_NATIVES: Mapping[Convention, tuple[int, ...]] = {"minus-one": (-1,), "added": (-1,), "plain": (0,), "unknown": (0, -1)}
"""What training wrote beyond γ."""

_NEGATIVE = 0.05
"""Share of negative values above which a scale is a γ - 1: 53 of 54 copies of trained models stored so are above it;
clean language models stay at 0.8 %, single sites of theirs reach 47 % (which is why groups are pooled)."""

_DOUBLED, _HIGH, _HIGH_MEDIAN = 1.2, 0.9, 1.5
"""The least effective scales (their 0.5 % quantile) of a doubled group are above the first, or above the second with a
median above the third: no clean group of 54 files, and 48 of 54 doubled copies."""

_LOWEST = 0.005
_MOST_GROUPS = 2 / 3  # that must agree before values alone are believed
_FEWEST = 64  # values of a component that values alone are judged by


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    group: Group
    convention: Convention
    exact: bool
    told: History | None
    added: int = 0

    @property
    def strong(self) -> bool:
        return self.told is not None and self.told.strong


def find(subject: Subject) -> Iterator[Finding]:
    """Yield one finding a component and fault."""
    for component, every in _seen(subject).items():
        seen = [one for one in every if one.exact]
        told = list(_by_history(subject, component, _pooled(seen)))
        yield from told or _by_values(component, seen)


def stores(subject: Subject) -> list[StoredScale | None]:
    """Return what is stored at every norm, in the order of the subject; None where there is nothing to tell it by.

    The norms of a component that have one convention are told together.
    """
    found: dict[int, StoredScale] = {}
    for every in _seen(subject).values():
        for convention in dict.fromkeys(one.convention for one in every):
            alike = [one for one in every if one.convention == convention]
            varied = [one for one in alike if _varies(one.group)]
            if varied:
                told = stored_as(_explained(varied), None if convention == "unknown" else _expected(convention))
                found |= {id(norm): told for one in alike for norm in one.group.norms}
    return [found.get(id(norm)) if norm.stored is not None else None for norm in subject.norms]


def _seen(subject: Subject) -> Mapping[str, list[_Seen]]:
    found: dict[str, list[_Seen]] = {}
    for group, told in zip(subject.groups, subject.histories, strict=True):
        if any(one.stored is not None for one in group.norms):
            seen = _Seen(group, _convention(subject, group), group.exact, told)
            found.setdefault(group.component, []).append(seen)
    return found


def _explained(seen: Sequence[_Seen]) -> list[Explanation]:
    """Return what may have been stored and added, for groups of one convention whose values vary."""
    ratios = {step: math.fsum(one.told.ratios[step] for one in seen if one.told is not None) for step in STEPS}
    convention = seen[0].convention
    groups = [one.group.values() for one in seen]
    return explain(groups, ratios, _NATIVES[convention], 1 if convention == "added" else 0)


def _expected(convention: Convention) -> int:
    """Return what the family's files store beyond γ."""
    return -1 if convention == "minus-one" else 0


def _convention(subject: Subject, group: Group) -> Convention:
    """Return what is stored by the family's rules."""
    site = group.norms[0].site
    if site.offset:
        return "minus-one"
    fact = subject.fact
    if fact is None or subject.checkpoint.graph is not None or fact.label(site.component) == "undetermined":
        return "unknown"
    return "added" if fact.converted(site.name) else "plain"


def _pooled(seen: list[_Seen]) -> list[_Seen]:
    """Add up the likelihoods of groups of one convention; who agrees with what is certain together, is taken in."""
    sums: dict[Convention, list[int]] = {}
    for convention in dict.fromkeys(one.convention for one in seen):
        told = [one.told for one in seen if one.convention == convention and one.told is not None]
        totals = {step: math.fsum(one.ratios[step] for one in told) for step in STEPS}
        certain = {one.added for one in told if one.added} | {s for s, total in totals.items() if total >= CERTAIN}
        sums[convention] = sorted(certain, key=lambda step: -totals[step])
    return [
        replace(one, added=next((s for s in sums[one.convention] if one.told and one.told.ratios[s] > 0), 0))
        for one in seen
    ]


def _by_history(subject: Subject, component: str, seen: list[_Seen]) -> Iterator[Finding]:
    faults: dict[str, list[_Seen]] = {}
    for one in seen:
        if (fault := _fault(one)) is not None:
            faults.setdefault(fault, []).append(one)
    for fault, hit in faults.items():
        judged = [one for one in seen if one.convention == hit[0].convention]
        family = subject.fact.name[:60] if subject.fact is not None else ""
        agreed = _doubled(hit) if fault == "doubled" else _zero_centred(hit)
        hit = _joined(hit, judged, fault)
        severity: Severity = "error" if any(one.strong for one in hit) or agreed else "warning"
        if hit[0].convention == "unknown":
            severity = "warning" if hit[0].added == 2 else "note"
        names = tuple(name for one in hit for name in one.group.names)
        total = sum(len(one.group.norms) for one in judged)
        yield Finding(
            code="scale-offset",
            severity=severity,
            component=component,
            norms=names,
            reason=f"{_words(hit[0])} in {len(names)} of {total} norms ({_span(hit)}): {_consequence(hit[0], family)}",
            cure=_cure(hit[0]),
            confidence=_wrong(judged),
            details={
                "convention": hit[0].convention,
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
                "stores": _named(judged),
            },
        )


def _joined(hit: list[_Seen], judged: list[_Seen], fault: str) -> list[_Seen]:
    """Take in the groups of the same convention that leave no trace, and whose values show the same fault."""
    shows = _doubled if fault == "doubled" else _zero_centred
    return [
        one if one in hit else replace(one, added=hit[0].added)
        for one in judged
        if one in hit or (one.added == 0 and shows([one]))
    ]


def _fault(one: _Seen) -> str | None:
    if one.added > (1 if one.convention == "added" else 0):
        return "doubled"
    if one.added < 0 and (one.convention != "minus-one" or _zero_centred([one])):  # γ - 1 of a full γ is right there
        return "lost"
    return None


def _words(one: _Seen) -> str:
    return {
        1: "1 was added to the stored scale after training",
        2: "1 was added twice to the stored scale after training",
        -1: "1 was subtracted from the stored scale after training",
    }[one.added]


def _consequence(one: _Seen, family: str) -> str:
    match one.convention:
        case "minus-one":
            if one.added < 0:
                return f"{family} stores scale - 1 already, so every gain is about lost"
            return f"{family} stores scale - 1 and adds the 1 itself, so every gain is about doubled"
        case "added":
            if one.added == 2:
                return f"the converter of {family} adds it once, so every gain is about doubled"
            return f"the file of {family} should hold the full scale"
        case "plain":
            gain = "doubled" if one.added > 0 else "lost"
            return f"{family} computes with the stored scale as it is, so every gain is about {gain}"
    return "no family is known that tells whether the network expects that"


def _cure(one: _Seen) -> str:
    if one.convention == "unknown":
        return "compare with what the model's code does with the weight: weight, or 1 + weight"
    if one.added < 0:
        return "add 1 to these tensors, or convert again without the subtraction"
    times = "1" if one.added == 1 or one.convention == "added" else "2"
    return f"subtract {times} from these tensors, or convert again from the original with the addition once"


def _by_values(component: str, seen: list[_Seen]) -> Iterator[Finding]:
    """Judge by the values where the last bits tell nothing: weaker, so never more than a warning."""
    judged = [one for one in seen if one.convention != "unknown" and _varies(one.group)]
    if sum(one.group.values().size for one in judged) < _FEWEST:
        return
    for test, words, cure in _SIGNS:
        hit = [one for one in judged if test([one])]
        if len(hit) < _MOST_GROUPS * len(judged):
            continue
        names = tuple(name for one in hit for name in one.group.names)
        yield Finding(
            code="scale-offset",
            severity="warning",
            component=component,
            norms=names,
            reason=f"the effective scales of {len(names)} norms are {_span(hit)}, {words}",
            cure=cure,
            confidence=_wrong(judged),
            details={
                "convention": hit[0].convention,
                "groups": [one.group.place for one in hit],
                "stores": _named(judged),
            },
        )


def _wrong(judged: Sequence[_Seen]) -> float | None:
    """Return the probability that something else was added than is expected: 1 by some converters, else nothing."""
    varied = [one for one in judged if _varies(one.group)]
    if not varied:
        return None
    expected = 1 if varied[0].convention == "added" else 0
    right = math.fsum(one.probability for one in _explained(varied) if one.added == expected)
    return round(min(max(1 - right, 0.0), 1 - 1e-6), 6)


def _named(judged: Sequence[_Seen]) -> dict[str, float]:
    varied = [one for one in judged if _varies(one.group)]
    return stored_as(_explained(varied), None).probabilities if varied else {}


def _varies(group: Group) -> bool:
    values = group.values()
    return bool(values.size and np.isfinite(values).all() and values.std() > 0)


def _doubled(seen: list[_Seen]) -> bool:
    """Whether effective scales are so high that no clean group has them."""
    values = np.concatenate([one.group.values() + one.group.norms[0].site.offset for one in seen])
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    low, middle = np.quantile(values, [_LOWEST, 0.5])
    return bool(low > _DOUBLED or (low > _HIGH and middle > _HIGH_MEDIAN))


def _zero_centred(seen: list[_Seen]) -> bool:
    """Whether effective scales are so often negative that they are γ - 1."""
    values = np.concatenate([one.group.values() + one.group.norms[0].site.offset for one in seen])
    return bool(values.size and np.mean(values < 0) > _NEGATIVE and np.median(values) < 0.5)


_SIGNS = (
    (
        _doubled,
        "as when 1 is added to a full scale; training from a scale of 1 in code that adds 1 looks the same",
        "compare with the original, and with what the model's code does with the weight: weight, or 1 + weight",
    ),
    (
        _zero_centred,
        "as those of scale - 1 are, where the full scale is computed with",
        "compare with the original: if it stores scale - 1, the 1 was not added",
    ),
)
"""What values alone may show: the test of a group, what that looks like, what to do."""


def _span(seen: list[_Seen]) -> str:
    means = [
        float(np.mean(one.stored + one.site.offset))
        for each in seen
        for one in each.group.norms
        if one.stored is not None and one.stored.size
    ]
    return f"means {min(means):.3g} to {max(means):.3g}" if means else "not read"
