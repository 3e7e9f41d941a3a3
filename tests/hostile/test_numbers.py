"""A number that is huge, tiny or not finite decides nothing: it is scaled, or its matrix is left out and said so."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

import normsniff
from normsniff import decode, kernel
from normsniff.anatomy.parts import Anatomy
from normsniff.cli import cli
from normsniff.evidence.weights import load_weights
from normsniff.inputs.opening import opened
from normsniff.limits import Limits
from normsniff.outputs import write_arrays
from normsniff.record import Classification, Evidence
from normsniff.verdict import decide
from tests.helpers.manifest import FIXTURES


def arrays() -> dict[str, NDArray[Any]]:
    with opened(FIXTURES / "plain-rms.bf16.safetensors") as checkpoint:
        return {name: decode.read(tensor, Limits()).copy() for name, tensor in checkpoint.tensors.items()}


def assert_finite(value: Any) -> None:
    if isinstance(value, float):
        assert math.isfinite(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_finite(inner)


@pytest.mark.parametrize("huge", [1.9e19, 3e38, math.inf, math.nan, -math.inf, 1e-40])
@pytest.mark.parametrize("where", ["one weight", "all", "a scale"])
@pytest.mark.filterwarnings("error")
def test_every_number_of_the_record_is_finite(huge: float, where: str) -> None:
    model = arrays()
    for value in model.values():
        if (value.ndim == 1) == (where == "a scale"):
            value.flat[0 if where == "one weight" else slice(None)] = huge
    record = normsniff.sniff(model)
    assert_finite(msgspec.to_builtins(record))
    assert msgspec.json.decode(record.to_json(), type=Classification) == record
    assert record.label in ("RMSNorm", "undetermined")
    if where != "a scale" and not math.isfinite(huge):
        assert any("not finite" in warning for warning in record.warnings)


@pytest.mark.parametrize("huge", [3e38, math.inf, math.nan, 1e-45])
@pytest.mark.parametrize("command", [["norms"], ["norms", "--json"], ["check"], ["check", "--deep"], ["direction"]])
@pytest.mark.filterwarnings("error")
def test_no_command_stumbles_over_a_number(command: list[str], huge: float, tmp_path: Path) -> None:
    model = arrays()
    for value in model.values():
        if value.ndim == 1:
            value[:] = huge
    path = tmp_path / "m.safetensors"
    write_arrays(path, {name: value.astype(np.float32) for name, value in model.items()}, {})
    result = CliRunner().invoke(cli, [*command, str(path)], catch_exceptions=False)
    assert result.exit_code in (0, 1)


@pytest.mark.parametrize("filling", [b"\x00\x7c", b"\xff\xff", b"\xff\x7b", b"\x00\xfc\x00\x7c", b"\x00\x7c\x00\x00"])
@pytest.mark.parametrize("name", ["gpt2-ln.Q4_K.gguf", "llama-rms.Q8_0.gguf"])
@pytest.mark.filterwarnings("error")
def test_blocks_whose_scales_are_not_finite_raise_no_warning(name: str, filling: bytes, tmp_path: Path) -> None:
    data = bytearray((FIXTURES / name).read_bytes())
    start = len(data) // 3  # behind the header, in the blocks of matrices, and all scales and shifts after them
    data[start:] = (filling * len(data))[: len(data) - start]
    path = tmp_path / name
    path.write_bytes(data)
    assert_finite(msgspec.to_builtins(normsniff.sniff(path, budget=None)))
    assert_finite(msgspec.to_builtins(normsniff.check(path, deep=True)))
    assert len(list(normsniff.norms(path))) > 0


def test_a_weight_of_float64_that_float32_has_not(tmp_path: Path) -> None:
    model = {name: value.astype(np.float64) for name, value in arrays().items()}
    matrix = next(name for name, value in model.items() if value.ndim == 2)
    model[matrix].flat[0] = 1e300
    record = normsniff.sniff(model)
    assert any("not finite" in warning for warning in record.warnings)


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e-19, 1e19, 1e30, 1e37])
def test_a_shadow_has_no_unit(factor: float) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((40, 64)).astype(np.float32)
    ones = np.full(64, 1 / 8)
    plain, scaled = kernel.shadow(rows, 1, ones), kernel.shadow(rows * np.float32(factor), 1, ones)
    assert scaled.is_finite
    tolerance = 1e-3 if factor > 1e-38 else 0.2  # below 1e-38 float32 itself has few bits
    for name in ("rho", "z", "dispersion", "alignment", "relative_error"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=tolerance, abs=tolerance)
    both = scaled + scaled
    assert both.rho == pytest.approx(scaled.rho)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_shadow_of_what_is_not_finite_says_so(bad: float) -> None:
    rows = np.ones((4, 8), np.float32)
    rows[2, 3] = bad
    assert not kernel.shadow(rows, 1, np.ones(8)).is_finite


def test_log_odds_that_are_not_finite_are_no_evidence() -> None:
    said = Evidence(kind="kernel", component="main", label="RMSNorm", log_odds=math.nan, reason="")
    with pytest.raises(ArithmeticError, match="nan"):
        decide(Anatomy((), (), {}, "names"), [said], load_weights())


def test_axes_that_no_array_has_are_refused(tmp_path: Path) -> None:
    header = {"a.weight": {"dtype": "F32", "shape": [10**30, 0], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    with pytest.raises(normsniff.FormatError, match=r"axis of 2\^99"):
        normsniff.sniff(len(text).to_bytes(8, "little") + text)
    text = json.dumps({"a": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}).encode()
    with pytest.raises(normsniff.FormatError, match="65 axes"):
        normsniff.sniff(len(text).to_bytes(8, "little") + text + b"\0")
