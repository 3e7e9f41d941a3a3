"""From evidence to a label."""

from __future__ import annotations

import math

import pytest

from normsniff import verdict
from normsniff.anatomy.parts import Anatomy
from normsniff.evidence import load_weights
from normsniff.record import Component, Evidence, EvidenceKind, Label

WEIGHTS = load_weights()
EMPTY = Anatomy((), (), {"main": 64}, "names")


def piece(kind: EvidenceKind, label: Label, odds: float = 0.0, component: str = "main") -> Evidence:
    return Evidence(kind=kind, component=component, label=label, log_odds=odds, reason="because")


def decide(*evidence: Evidence) -> Component:
    return verdict.decide(EMPTY, evidence, WEIGHTS)[0]


def test_log_odds_add_up_to_the_confidence() -> None:
    found = decide(piece("declared", "LayerNorm", 1.5), piece("kernel", "LayerNorm", 1.0))
    assert found.label == "LayerNorm"
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-2.5)), abs=1e-5)


def test_no_sum_is_trusted_beyond_the_cap() -> None:
    found = decide(piece("declared", "RMSNorm", -6), piece("kernel", "RMSNorm", -4), piece("layout", "RMSNorm", -4))
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-WEIGHTS.total_cap)), abs=1e-5)


@pytest.mark.parametrize(
    ("evidence", "label"),
    [
        ([], "undetermined"),
        ([piece("kernel", "undetermined")], "undetermined"),
        ([piece("layout", "RMSNorm", -1.0)], "undetermined"),
        ([piece("layout", "RMSNorm", -2.3)], "RMSNorm"),
        ([piece("declared", "mixed")], "mixed"),
        ([piece("layout", "mixed"), piece("declared", "LayerNorm", 4.5)], "LayerNorm"),
        ([piece("layout", "mixed"), piece("kernel", "RMSNorm", -2.0)], "mixed"),
        ([piece("declared", "none")], "none"),
        ([piece("layout", "none"), piece("declared", "LayerNorm", 4.5)], "LayerNorm"),
        ([piece("declared", "RMSNorm", -4.5), piece("kernel", "LayerNorm", 5.5)], "undetermined"),
    ],
)
def test_labels(evidence: list[Evidence], label: Label) -> None:
    found = decide(*evidence)
    assert found.label == label
    assert (found.confidence is None) == (label == "undetermined")


def test_strong_disagreement_is_a_contradiction() -> None:
    against = [piece("declared", "RMSNorm", -4.5), piece("layout", "LayerNorm", 4.5), piece("kernel", "LayerNorm", 5.0)]
    found = verdict.contradictions(against, WEIGHTS)
    assert [c.between for c in found] == [("declared", "layout"), ("declared", "kernel")]
    assert found[0].strength == 4.5
    assert "declared evidence says RMSNorm" in found[0].statement


def test_a_missing_shift_alone_contradicts_nothing() -> None:
    bias_free = [piece("declared", "LayerNorm", 6.0), piece("layout", "RMSNorm", WEIGHTS.shift.absent)]
    assert verdict.contradictions(bias_free, WEIGHTS) == []


def test_towers_do_not_contradict_each_other() -> None:
    towers = [piece("declared", "RMSNorm", -5, "text"), piece("kernel", "LayerNorm", 5, "vision")]
    assert verdict.contradictions(towers, WEIGHTS) == []
    labels = {
        c.name: c.label for c in verdict.decide(Anatomy((), (), {"text": 64, "vision": 32}, "names"), towers, WEIGHTS)
    }
    assert labels == {"text": "RMSNorm", "vision": "LayerNorm"}
