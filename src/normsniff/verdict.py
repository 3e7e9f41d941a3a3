"""Evidence to label: add the log-odds, abstain below a threshold, and say where kinds of evidence disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from msgspec.structs import replace

from .anatomy.parts import SERVING_TOWERS, Anatomy
from .evidence.weights import Weights, probability
from .record import EVIDENCE_KINDS, Component, Contradiction, Evidence, EvidenceKind, Label

_STRUCTURE = {"mixed": "the stream itself has norms of two kinds", "none": "neither norm was found"}
_SERVING_SHARE = 0.25
"""A tower that serves another one is the main stream only if it is four times as large (as in OCR models, where the
vision tower may outweigh the language model by half)."""


def decide(anatomy: Anatomy, evidence: Sequence[Evidence], weights: Weights) -> tuple[list[Component], list[Evidence]]:
    """Return the verdict on every component, the main one first, and what the verdict itself adds to the evidence.

    Components are those of the anatomy, or ``main`` alone where it found none. The main one has the most
    parameters along its stream. What is added are corrections, so that the log-odds of a component add up to those of
    its confidence, and the reasons of rules that decided instead of the sum.

    Raises:
        ArithmeticError: log-odds that are not finite, which no evidence may have.
    """
    for one in evidence:
        if not math.isfinite(one.log_odds):  # no sum, no comparison and no cap would hold: rather no answer
            raise ArithmeticError(f"{one.kind} evidence on {one.component} has log-odds of {one.log_odds}")
    names = list(anatomy.widths) or ["main"]
    names += [e.component for e in evidence if e.component not in names]
    elements = dict.fromkeys(names, 0)
    for matrix in anatomy.matrices:
        elements[matrix.component] = elements.get(matrix.component, 0) + matrix.tensor.size
    ordered = sorted(elements, key=lambda name: -elements[name] * (_SERVING_SHARE if name in SERVING_TOWERS else 1.0))
    found = [_component(name, anatomy, [e for e in evidence if e.component == name], weights) for name in ordered]
    return [component for component, _ in found], [note for _, notes in found for note in notes]


def main_of(components: Sequence[Component], evidence: Sequence[Evidence]) -> tuple[Component, list[str]]:
    """Return what to say of the whole file, and why that is not simply the verdict on its largest network.

    A language model is what its file is about, and towers that serve another one are not. Between other networks
    (MusicGen: a T5 encoder and a decoder) size alone says nothing, unless the file declares the norm of the main one.
    """
    main, *others = components
    if main.name == "text" or any(e.kind == "declared" and e.component == main.name for e in evidence):
        return main, []
    odds = {one.name: _sum([e for e in evidence if e.component == one.name]) for one in components}
    for other in others:
        if other.name in SERVING_TOWERS or odds[main.name] * odds[other.name] >= 0:
            continue
        sure = abs(odds[other.name]) >= 1
        # weights that lean a little are chance; what is stored and leans the other way is not
        stored = _sum([e for e in evidence if e.component == other.name and e.kind != "kernel"])
        if sure or odds[main.name] * stored < 0:
            have = "have" if sure else "may have"
            why = f"{main.name} and {other.name} {have} different norms, and nothing says which the file is about"
            return replace(main, label="undetermined", confidence=None, probabilities=None), [why]
    return main, []


def contradictions(evidence: Sequence[Evidence], weights: Weights) -> list[Contradiction]:
    """Return pairs of kinds of evidence that point in opposite directions, both strongly."""
    found = []
    for component in dict.fromkeys(e.component for e in evidence):
        sums = {
            kind: sum(e.log_odds for e in evidence if e.kind == kind and e.component == component)
            for kind in EVIDENCE_KINDS
        }
        for first, second in combinations(EVIDENCE_KINDS, 2):
            strength = min(abs(sums[first]), abs(sums[second]))
            if sums[first] * sums[second] < 0 and strength >= weights.chosen.contradiction_from.value:
                found.append(
                    Contradiction(
                        component=component,
                        between=(first, second),
                        statement=f"{_words(first, component, evidence)}; but {_words(second, component, evidence)}",
                        strength=round(strength, 4),
                    )
                )
    return found


def is_settled(components: Sequence[Component], evidence: Sequence[Evidence], weights: Weights) -> bool:
    """Whether further matrices would not change the verdicts: all are sure, and the kernel evidence agrees."""
    for component in components:
        kernel = sum(e.log_odds for e in evidence if e.kind == "kernel" and e.component == component.name)
        agreed = kernel if component.label == "LayerNorm" else -kernel if component.label == "RMSNorm" else 0.0
        if (component.confidence or 0.0) < weights.stop.confidence or agreed < weights.stop.kernel:
            return False
    return True


def _words(kind: EvidenceKind, component: str, evidence: Sequence[Evidence]) -> str:
    strongest = max((e for e in evidence if e.kind == kind and e.component == component), key=lambda e: abs(e.log_odds))
    return f"{kind} evidence says {strongest.label} ({strongest.reason})"


def _component(
    name: str, anatomy: Anatomy, evidence: list[Evidence], weights: Weights
) -> tuple[Component, list[Evidence]]:
    notes = list(_corrections(name, evidence, weights))
    label, confidence, probabilities, why = _label([*evidence, *notes], weights)
    if why:
        notes.append(Evidence(kind="verdict", component=name, label=label, log_odds=0.0, reason=why))
    rewritten = any(e.details.get("rewritten_from") for e in evidence)
    component = Component(
        name=name,
        label=label,
        confidence=confidence,
        probabilities=probabilities,
        d_model=anatomy.widths.get(name),
        norms=sum(1 for site in anatomy.sites if site.component == name),
        rewritten_from="LayerNorm" if rewritten else None,
    )
    return component, notes


def _corrections(name: str, evidence: list[Evidence], weights: Weights) -> Iterator[Evidence]:
    """Yield what takes the sum of the log-odds back to the most that is believed."""
    suspicious = any(e.details.get("suspicious") for e in evidence)
    cap, rule = weights.total_cap, "the calibration supports no more"
    if suspicious:
        cap, rule = weights.chosen.suspicious_cap, "the weights look tampered with"
    total = _sum(evidence)
    if abs(total) > cap.value:
        yield Evidence(
            kind="verdict", component=name, label="undetermined",
            log_odds=round(math.copysign(cap.value, total) - total, 4),
            reason=f"certainty is kept to {probability(cap.value):.1%}: {rule}", details={"cap": cap.value},
        )  # fmt: skip


def _sum(evidence: Sequence[Evidence], kind: EvidenceKind | None = None) -> float:
    return math.fsum(e.log_odds for e in evidence if kind in (None, e.kind))


def _label(
    evidence: list[Evidence], weights: Weights
) -> tuple[Label, float | None, dict[str, float] | None, str | None]:
    """Return label, confidence, probabilities, and the rule that decided if it was not the sum."""
    declared = [e for e in evidence if e.kind == "declared"]
    # "mixed" and "none" are statements about structure: no log-odds speak for them. What the file computes or
    # declares comes before what its layout suggests, and a declared norm outweighs a layout that shows none.
    for candidate in (*declared, *(e for e in evidence if e.kind == "layout")):
        overruled = candidate.kind == "layout" and any(abs(e.log_odds) >= 1 for e in declared)
        if candidate.label in ("mixed", "none") and not overruled:
            confidence = round(candidate.details["confidence"], 6)
            said = f"{_STRUCTURE[candidate.label]}, so that the odds between the two norms do not apply"
            if confidence < weights.answer_from.value:
                return "undetermined", None, None, f"{said}; but that is right in {confidence:.0%} of such files only"
            return candidate.label, confidence, None, said
    if not any(e.log_odds for e in evidence):
        return "undetermined", None, None, None
    total, kernel = _sum(evidence), _sum(evidence, "kernel")
    p = probability(total)
    probabilities = {"LayerNorm": round(p, 6), "RMSNorm": round(1 - p, 6)}
    label: Label = "LayerNorm" if p > 0.5 else "RMSNorm"
    confidence, least = max(p, 1 - p), _answer_from(evidence, weights)
    defied = kernel * total < 0 and abs(kernel) >= weights.chosen.contradiction_from.value
    if defied and abs(total) < weights.chosen.against_kernel.value:
        other = "RMSNorm" if label == "LayerNorm" else "LayerNorm"
        why = f"all in all {label} is likelier ({confidence:.1%}), but the weights themselves clearly point to {other}"
    elif confidence < least:
        why = f"{label} is likelier ({confidence:.1%}), but a label is only given from {least:.0%} on"
    else:
        claims = _sum(evidence, "declared")
        overruled = claims * total < 0 and abs(claims) >= 1
        note = "the file declares another norm, and all other evidence together outweighs that" if overruled else None
        return label, round(confidence, 6), probabilities, note
    return "undetermined", None, probabilities, why


def _answer_from(evidence: list[Evidence], weights: Weights) -> float:
    """Return the confidence that an answer takes: the kernel's own where it says more than all the rest."""
    kernel = [e for e in evidence if e.kind == "kernel" and e.log_odds]
    rest = _sum(evidence, "declared") + _sum(evidence, "layout")
    alone = abs(_sum(kernel)) > abs(rest)
    return max((e.details.get("answer_from", 0.0) for e in kernel if alone), default=0.0) or weights.answer_from.value
