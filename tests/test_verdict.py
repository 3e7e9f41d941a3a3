"""From evidence to a label."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import normsniff
from normsniff import verdict
from normsniff.anatomy.parts import Anatomy
from normsniff.evidence import load_weights
from normsniff.record import Classification, Component, Evidence, EvidenceKind, Label
from tests.helpers.manifest import models
from tests.helpers.real_models import REAL_MODELS

WEIGHTS = load_weights()
EMPTY = Anatomy((), (), {"main": 64}, "names")


def piece(kind: EvidenceKind, label: Label, odds: float = 0.0, component: str = "main", **details: Any) -> Evidence:
    return Evidence(kind=kind, component=component, label=label, log_odds=odds, reason="because", details=details)


def decide(*evidence: Evidence) -> Component:
    return verdict.decide(EMPTY, evidence, WEIGHTS)[0][0]


def notes(*evidence: Evidence) -> list[Evidence]:
    return verdict.decide(EMPTY, evidence, WEIGHTS)[1]


def test_log_odds_add_up_to_the_confidence() -> None:
    found = decide(piece("declared", "LayerNorm", 1.5), piece("kernel", "LayerNorm", 1.0))
    assert found.label == "LayerNorm"
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-2.5)), abs=1e-5)


def test_no_sum_is_trusted_beyond_the_cap() -> None:
    all_three = [piece("declared", "RMSNorm", -6), piece("kernel", "RMSNorm", -4), piece("layout", "RMSNorm", -4)]
    cap = WEIGHTS.total_cap.value
    assert decide(*all_three).confidence == pytest.approx(1 / (1 + math.exp(-cap)), abs=1e-5)
    (note,) = notes(*all_three)
    assert note.kind == "verdict"
    assert note.log_odds == pytest.approx(14 - cap, abs=1e-4)


def test_what_looks_tampered_with_is_trusted_less() -> None:
    odd = [piece("declared", "LayerNorm", 3.2), piece("kernel", "undetermined", suspicious=True)]
    cap = WEIGHTS.chosen.suspicious_cap.value
    assert decide(*odd).confidence == pytest.approx(1 / (1 + math.exp(-cap)), abs=1e-5)
    assert "tampered" in notes(*odd)[0].reason


KERNEL_ALONE: dict[str, Any] = {"answer_from": 0.93}


@pytest.mark.parametrize(
    ("evidence", "label", "reason"),
    [
        # a kernel result alone takes its own threshold; with a layout that says more, it does not
        ([piece("kernel", "LayerNorm", 2.0, **KERNEL_ALONE)], "undetermined", "a label is only given from 93% on"),
        ([piece("kernel", "LayerNorm", 3.0, **KERNEL_ALONE)], "LayerNorm", None),
        (
            [piece("kernel", "LayerNorm", 2.0, **KERNEL_ALONE), piece("layout", "undetermined", 0.3)],
            "undetermined",
            "a label is only given from 93% on",
        ),
        ([piece("kernel", "LayerNorm", 1.0, **KERNEL_ALONE), piece("layout", "LayerNorm", 1.2)], "LayerNorm", None),
        # a strong kernel result overrules a lone claim, and the record says so
        (
            [piece("declared", "RMSNorm", -3.2), piece("kernel", "LayerNorm", 5.9, **KERNEL_ALONE)],
            "LayerNorm",
            "the file declares another norm, and all other",
        ),
        (
            [piece("declared", "RMSNorm", -6.0), piece("kernel", "LayerNorm", 5.0)],
            "undetermined",
            "clearly point to LayerNorm",
        ),
        ([piece("layout", "mixed", confidence=0.75)], "undetermined", "75%"),
        ([piece("layout", "mixed", confidence=0.81)], "mixed", "the stream itself has norms of two kinds"),
    ],
)
def test_rules_that_decide_say_so(evidence: list[Evidence], label: Label, reason: str | None) -> None:
    assert decide(*evidence).label == label
    said = [note for note in notes(*evidence) if not note.log_odds]
    assert [note.label for note in said] == ([] if reason is None else [label])
    assert all(reason in note.reason for note in said if reason)


@pytest.mark.parametrize(
    ("evidence", "label"),
    [
        ([], "undetermined"),
        ([piece("kernel", "undetermined")], "undetermined"),
        ([piece("layout", "RMSNorm", -1.0)], "undetermined"),
        ([piece("layout", "RMSNorm", -2.3)], "RMSNorm"),
        ([piece("declared", "mixed", confidence=0.9)], "mixed"),
        ([piece("layout", "mixed"), piece("declared", "LayerNorm", 4.5)], "LayerNorm"),
        ([piece("layout", "mixed", confidence=0.9), piece("kernel", "RMSNorm", -2.0)], "mixed"),
        ([piece("declared", "none", confidence=0.9)], "none"),
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
    lack = piece("layout", "RMSNorm", -2.4)
    assert verdict.contradictions([piece("declared", "LayerNorm", 6.0), lack], WEIGHTS) == []


def test_towers_do_not_contradict_each_other() -> None:
    towers = [piece("declared", "RMSNorm", -5, "text"), piece("kernel", "LayerNorm", 5, "vision")]
    assert verdict.contradictions(towers, WEIGHTS) == []
    labels = {
        c.name: c.label
        for c in verdict.decide(Anatomy((), (), {"text": 64, "vision": 32}, "names"), towers, WEIGHTS)[0]
    }
    assert labels == {"text": "RMSNorm", "vision": "LayerNorm"}


def assert_adds_up(record: Classification) -> None:
    """A person who sums up the log-odds of a component gets those of its probabilities and of its confidence."""
    for part in record.components:
        total = math.fsum(e.log_odds for e in record.evidence if e.component == part.name)
        if part.probabilities is None:
            assert part.label in ("mixed", "none") or total == 0
            assert part.label == "undetermined" or any(e.kind == "verdict" for e in record.evidence)
            continue
        p = part.probabilities["LayerNorm"]
        assert math.log(p / (1 - p)) == pytest.approx(total, abs=2e-3)
        if part.label != "undetermined":
            assert part.confidence == pytest.approx(1 / (1 + math.exp(-abs(total))), abs=1e-5)


KINDS: tuple[tuple[EvidenceKind, ...], ...] = (("declared", "layout", "kernel"), ("kernel",))


@pytest.mark.parametrize("kinds", KINDS, ids=("all", "kernel"))
def test_the_record_of_every_fixture_adds_up(kinds: tuple[EvidenceKind, ...]) -> None:
    records = [normsniff.sniff(fixture.path, evidence=kinds) for fixture in models()]
    assert len(records) > 30
    for record in records:
        assert_adds_up(record)


@pytest.mark.models
@pytest.mark.parametrize("short", REAL_MODELS)
def test_the_record_of_every_real_model_adds_up(short: str, real_model: Callable[[str], Path]) -> None:
    for kinds in KINDS:
        assert_adds_up(normsniff.sniff(real_model(short), evidence=kinds))


@pytest.mark.parametrize(
    ("kind", "odds", "other", "label"),
    [
        ("layout", -2.3, "text", "undetermined"),
        ("layout", -0.4, "text", "undetermined"),  # scales called gamma, without shifts: maybe another norm
        ("kernel", -0.4, "text", "LayerNorm"),  # chance
        ("kernel", -2.3, "text", "undetermined"),
        ("layout", 0.4, "text", "LayerNorm"),
        ("layout", -2.3, "vision", "LayerNorm"),  # it serves the main one
    ],
)
def test_two_networks_that_may_differ_leave_open_which_the_file_is_about(
    kind: EvidenceKind, odds: float, other: str, label: str
) -> None:
    anatomy = Anatomy((), (), {"main": 64, other: 32}, "names")
    evidence = [piece("layout", "LayerNorm", 4.4), piece(kind, "RMSNorm", odds, other)]
    components, _ = verdict.decide(anatomy, evidence, WEIGHTS)
    assert verdict.main_of(components, evidence)[0].label == label
