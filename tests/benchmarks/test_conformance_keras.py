"""A fast part of the Keras matrix of benchmarks/conformance: files made by hand, and some made by Keras."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.conformance import keras_forms, made
from benchmarks.conformance.report import listed
from benchmarks.conformance.truth import Made
from normsniff import sniff


@pytest.mark.parametrize("case", list(keras_forms.cases()), ids=lambda case: f"{case.name}, {case.group}")
def test_by_hand(case: Made) -> None:
    answers = made.answer(case)
    assert len(answers) >= 2
    assert not listed(answers)
    assert case.truth.open or all(answer.outcome == "right" for answer in answers)


def test_one_variable_is_answered_by_trained_weights_and_by_nothing_else(tmp_path: Path) -> None:
    trained = [case for case in keras_forms.cases() if "trained" in case.name]
    assert len(trained) == 2
    for case in trained:
        path = case.write(tmp_path)
        assert sniff(path).label == case.truth.label
        assert sniff(path, evidence=["declared", "layout"]).label == "undetermined"


@pytest.mark.parametrize(
    "name",
    [
        "LayerNormalization, center=False, nested", "LayerNormalization, neither, named", "RMSNormalization, blocks",
        "BatchNormalization, functional",
    ],
)  # fmt: skip
def test_by_keras(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # before the import, or it asks for TensorFlow
    monkeypatch.setenv("KERAS_HOME", os.devnull)
    pytest.importorskip("keras")
    from benchmarks.conformance import keras_matrix

    answers = [answer for case in keras_matrix.cases(name) for answer in made.answer(case)]
    assert len(answers) == 15
    assert not listed(answers)
