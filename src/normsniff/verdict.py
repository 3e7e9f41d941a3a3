"""Evidence to label: add the log-odds, abstain below a threshold, and say where kinds of evidence disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from .anatomy.parts import SERVING_TOWERS, Anatomy
from .evidence.weights import Weights
from .record import EVIDENCE_KINDS, Component, Contradiction, Evidence, EvidenceKind, Label

_STRUCTURAL_CONFIDENCE: dict[tuple[EvidenceKind, Label], float] = {
    # Provisional: how far to trust a label that no log-odds speak for.
    ("declared", "mixed"): 0.95,
    ("layout", "mixed"): 0.85,
    ("declared", "none"): 0.97,
    ("layout", "none"): 0.9,
}

_SERVING_SHARE = 0.25
"""A tower that serves another one is the main stream only if it is four times as large (as in OCR models, where the
vision tower may outweigh the language model by half)."""


def decide(anatomy: Anatomy, evidence: Sequence[Evidence], weights: Weights) -> list[Component]:
    """Return the verdict on every component, the main one first.

    Components are those of the anatomy, or ``main`` alone where it found none. The main one has the most
    parameters along its stream.
    """
    names = list(anatomy.widths) or ["main"]
    names += [e.component for e in evidence if e.component not in names]
    elements = dict.fromkeys(names, 0)
    for matrix in anatomy.matrices:
        elements[matrix.component] = elements.get(matrix.component, 0) + matrix.tensor.size
    ordered = sorted(elements, key=lambda name: -elements[name] * (_SERVING_SHARE if name in SERVING_TOWERS else 1.0))
    return [_component(name, anatomy, [e for e in evidence if e.component == name], weights) for name in ordered]


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
            if sums[first] * sums[second] < 0 and strength >= weights.contradiction_from:
                found.append(
                    Contradiction(
                        component=component,
                        between=(first, second),
                        statement=f"{_words(first, component, evidence)}; but {_words(second, component, evidence)}",
                        strength=round(strength, 4),
                    )
                )
    return found


def _words(kind: EvidenceKind, component: str, evidence: Sequence[Evidence]) -> str:
    strongest = max((e for e in evidence if e.kind == kind and e.component == component), key=lambda e: abs(e.log_odds))
    return f"{kind} evidence says {strongest.label} ({strongest.reason})"


def _component(name: str, anatomy: Anatomy, evidence: list[Evidence], weights: Weights) -> Component:
    label, confidence, probabilities = _label(evidence, weights)
    rewritten = any(e.details.get("rewritten_from") for e in evidence)
    return Component(
        name=name,
        label=label,
        confidence=confidence,
        probabilities=probabilities,
        d_model=anatomy.widths.get(name),
        norms=sum(1 for site in anatomy.sites if site.component == name),
        rewritten_from="LayerNorm" if rewritten else None,
    )


def _label(evidence: list[Evidence], weights: Weights) -> tuple[Label, float | None, dict[str, float] | None]:
    suspicious = any(e.details.get("suspicious") for e in evidence)
    cap = weights.suspicious_cap if suspicious else weights.total_cap
    total = max(min(sum(e.log_odds for e in evidence), cap), -cap)
    declared = [e for e in evidence if e.kind == "declared"]
    # "mixed" and "none" are statements about structure: no log-odds speak for them. What the file computes or
    # declares comes before what its layout suggests, and a declared norm outweighs a layout that shows none.
    for candidate in (*declared, *(e for e in evidence if e.kind == "layout")):
        if candidate.label not in ("mixed", "none"):
            continue
        overruled = candidate.kind == "layout" and any(abs(e.log_odds) >= 1 for e in declared)
        if not overruled:
            return candidate.label, _STRUCTURAL_CONFIDENCE[candidate.kind, candidate.label], None
    if not any(e.log_odds for e in evidence):
        return "undetermined", None, None
    p = 1 / (1 + math.exp(-total))
    probabilities = {"LayerNorm": round(p, 6), "RMSNorm": round(1 - p, 6)}
    kernel = sum(e.log_odds for e in evidence if e.kind == "kernel")
    defied = kernel * total < 0 and abs(kernel) >= weights.contradiction_from and abs(total) < weights.against_kernel
    if defied or max(p, 1 - p) < weights.abstain_below:
        return "undetermined", None, probabilities
    return ("LayerNorm" if p > 0.5 else "RMSNorm"), round(max(p, 1 - p), 6), probabilities
