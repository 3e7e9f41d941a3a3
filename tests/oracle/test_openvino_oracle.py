"""OpenVINO's own converter writes our ONNX fixtures as IR; both must tell the same story."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from normsniff import sniff
from normsniff.record import Classification
from tests.helpers.manifest import FIXTURES

NAMES = [
    "bert-ln.dynamo18.f16", "cohere-ln.dynamo23.f16", "gemma-rms.dynamo23.f16", "gpt2-ln.ort-skip.f16",
    "gpt2-ln.torchscript17.f16", "groupnorm-none.dynamo18.f32", "llama-rms.dynamo23.f16",
    "llama-rms.torchscript17.f16", "mixed.dynamo18.f16", "plain-rms.dynamo18.f16",
]  # fmt: skip


@pytest.fixture(scope="module")
def openvino() -> Any:
    return pytest.importorskip("openvino", exc_type=ImportError)


@pytest.mark.parametrize(("name", "compress"), [*((name, False) for name in NAMES), (NAMES[0], True), (NAMES[4], True)])
def test_a_converted_model_tells_the_same(openvino: Any, tmp_path: Path, name: str, compress: bool) -> None:
    original = FIXTURES / f"{name}.onnx"
    openvino.save_model(openvino.convert_model(original), tmp_path / "m.xml", compress_to_fp16=compress)
    expected, found = sniff(original), sniff(tmp_path / "m.xml")
    assert found.label == expected.label
    assert found.d_model == expected.d_model
    assert [(n.kind, n.role) for n in found.norms] == [(n.kind, n.role) for n in expected.norms]
    wanted, measured = _depth(expected), _depth(found)
    assert measured.keys() == wanted.keys()
    for role, rho in wanted.items():
        assert measured[role] == pytest.approx(rho, rel=0.02), role


def _depth(record: Classification) -> dict[str, float]:
    """Return the geometric mean of ρ over the matrices of each role."""
    logs: dict[str, list[float]] = defaultdict(list)
    for shadow in record.shadows:
        logs[shadow.role].append(math.log(max(shadow.rho, 1e-30)))
    return {role: math.exp(sum(values) / len(values)) for role, values in logs.items()}
