"""Norms told by what they do: every form that we know to write one in, and what only looks like one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.conformance import graph_forms, onnx_suite
from benchmarks.conformance.graph_forms import FORMS
from benchmarks.conformance.truth import Made
from normsniff import Classification, sniff

REPOSITORY = Path(__file__).parents[3]
# The mean of another position is subtracted, then it is a true RMSNorm: there is no right word for that
OPEN = {"mean of the wrong position"}


def answer(made: Made, directory: Path) -> Classification:
    return sniff(made.write(directory))


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.runs])
def test_the_truth_of_a_form_is_what_the_reference_evaluator_measures(name: str) -> None:
    assert graph_forms.measured(FORMS[name]) == FORMS[name].truth


@pytest.mark.parametrize("made", list(graph_forms.cases(None)), ids=lambda made: f"{made.name} {made.variant}".strip())
def test_every_form_in_a_transformer(made: Made, tmp_path: Path) -> None:
    record = answer(made, tmp_path)
    assert record.label == (made.truth.label if made.name not in OPEN else "undetermined")


@pytest.mark.parametrize("made", list(onnx_suite.cases(None)), ids=lambda made: made.name)
def test_every_norm_of_the_suite_of_onnx(made: Made, tmp_path: Path) -> None:
    assert answer(made, tmp_path).label == made.truth.label


def test_the_suite_has_all_that_it_had() -> None:
    labels = [made.truth.label for made in onnx_suite.cases(None)]
    assert labels.count("LayerNorm") >= 57
    assert labels.count("RMSNorm") >= 38
    assert labels.count("none") >= 20


@pytest.mark.parametrize("name", ["named plugin", "named rms", "named by an attribute"])
def test_a_name_is_worth_less_than_arithmetic(name: str, tmp_path: Path) -> None:
    named, computed = (
        answer(next(iter(graph_forms.cases(one))), tmp_path)
        for one in (name, "ln spelled out" if "rms" not in name else "rms spelled out")
    )
    assert abs(named.evidence[0].log_odds) < abs(computed.evidence[0].log_odds)
    assert "names" in named.evidence[0].reason


def test_what_was_not_understood_is_named(tmp_path: Path) -> None:
    record = answer(next(iter(graph_forms.cases("named after nobody"))), tmp_path)
    assert record.label == "undetermined"
    assert "acme::Whiten" in record.evidence[0].reason


def test_the_probe_is_not_loaded_where_the_patterns_explain_everything() -> None:
    code = (
        "import sys, normsniff\n"
        f"normsniff.sniff({str(REPOSITORY / 'fixtures/llama-rms.dynamo23.f16.onnx')!r})\n"
        "sys.exit('normsniff.anatomy.graph.probe' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
