"""A fast part of the ONNX matrix of benchmarks/conformance: files made by hand, and some made by real exporters."""

from __future__ import annotations

import pytest

from benchmarks.conformance import made, onnx_forms
from benchmarks.conformance.report import listed
from benchmarks.conformance.truth import Made


@pytest.mark.parametrize("case", list(onnx_forms.cases()), ids=lambda case: str(case.name))
def test_by_hand(case: Made) -> None:
    answers = made.answer(case)
    assert len(answers) == 3
    assert not listed(answers)


# what was wrong once: an axis counted from the other end, one that is time, a factor that is computed, or quantised
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # onnxruntime's quantiser cleans up late
@pytest.mark.parametrize(
    "name", ["mean subtracted, then nn.RMSNorm", "standardised over time", "RMSNorm by F.normalize"]
)
def test_by_exporters(name: str) -> None:
    for module in ("torch", "transformers", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    from benchmarks.conformance import onnx_matrix

    quick = (case for case in onnx_matrix.cases(name) if "dynamo23" not in case.group)
    answers = [answer for case in quick for answer in made.answer(case)]
    assert len(answers) > 15
    assert not listed(answers)
    assert all(answer.outcome == "right" for answer in answers)
