"""The GPU path without a GPU: array-API code, a stand-in for CuPy, and clear refusals."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from click.testing import CliRunner

import normsniff
from normsniff.cli import cli
from normsniff.kernel.namespaces import mover
from tests.helpers.manifest import FIXTURES

PATH = FIXTURES / "gpt2-ln.F32.gguf"


def stand_in(count: int | Exception) -> ModuleType:
    """A module named cupy whose arrays are those of array-api-strict, which refuses whatever the standard lacks."""

    def get_device_count() -> int:
        if isinstance(count, Exception):
            raise count
        return count

    module = ModuleType("cupy")
    vars(module)["cuda"] = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=get_device_count))
    vars(module)["asarray"] = array_api_strict.asarray
    for name in ("ndarray", "generic"):  # what array-api-compat asks for to recognise CuPy's own arrays
        vars(module)[name] = type(name, (), {})
    return module


def test_the_samples_run_through_the_other_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = normsniff.sniff(PATH)
    monkeypatch.setitem(sys.modules, "cupy", stand_in(1))
    moved = normsniff.sniff(PATH, device="cuda")
    assert moved.label == expected.label
    for one, other in zip(moved.shadows, expected.shadows, strict=True):
        assert one.rho == pytest.approx(other.rho, rel=1e-4)
        assert one.z == pytest.approx(other.z, rel=1e-3)


@pytest.mark.parametrize("count", [0, RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")])
def test_no_gpu_is_said_clearly(count: int | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", stand_in(count))
    with pytest.raises(normsniff.DeviceError, match="GPU"):
        normsniff.sniff(PATH, device="cuda")
    result = CliRunner().invoke(cli, ["--device", "cuda", str(PATH)])
    assert result.exit_code == 2
    assert "GPU" in result.stderr


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(normsniff.MissingExtra, match=r"\[gpu\]"):
        mover("cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(normsniff.DeviceError, match="tpu"):
        mover("tpu")  # type: ignore[arg-type]  # on purpose
    assert np.array_equal(mover("cpu")(np.ones(2)), np.ones(2))
