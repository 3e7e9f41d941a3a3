"""ρ as a regulariser: the kernel's value, gradients, edges, and a short training run."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import array_api_strict
import ml_dtypes  # noqa: F401 - numpy then knows bfloat16
import numpy as np
import pytest
import safetensors.numpy

import normsniff
from normsniff import kernel
from tests.helpers.manifest import FIXTURES, ROOT

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(48, 32)) + 0.2
SCALE = RNG.uniform(0.5, 2, 32) * RNG.choice([-1, 1], 32)


def load(name: str) -> dict[str, Any]:
    return dict(safetensors.numpy.load_file(FIXTURES / name))


class TestValue:
    def test_is_that_of_the_kernel(self) -> None:
        ones = np.ones(48) / np.sqrt(48)
        assert float(normsniff.penalty(MATRIX, 0)) == pytest.approx(kernel.shadow(MATRIX, 0, ones).rho)
        v = kernel.dead_direction(SCALE).vector
        assert float(normsniff.penalty(MATRIX, 1, SCALE)) == pytest.approx(kernel.shadow(MATRIX, 1, v).rho)

    def test_does_not_depend_on_size(self) -> None:
        expected = float(normsniff.penalty(MATRIX, 1, SCALE))
        assert float(normsniff.penalty(1e3 * MATRIX, 1, 7 * SCALE)) == pytest.approx(expected)

    def test_more_axes(self) -> None:
        stack = RNG.normal(size=(3, 8, 5))
        flat = np.moveaxis(stack, 1, 0).reshape(8, 15)
        assert float(normsniff.penalty(stack, 1)) == pytest.approx(float(normsniff.penalty(flat, 0)))

    def test_a_scale_with_zeros_is_the_limit(self) -> None:
        scale = SCALE.copy()
        scale[3] = 1e-9
        close = float(normsniff.penalty(MATRIX, 1, scale))
        scale[3] = 0
        assert float(normsniff.penalty(MATRIX, 1, scale)) == pytest.approx(close) == pytest.approx(1)

    def test_a_zero_matrix(self) -> None:
        assert float(normsniff.penalty(np.zeros((4, 5)), 0)) == 0

    def test_keeps_to_the_array_api(self) -> None:
        matrix, scale = array_api_strict.asarray(MATRIX), array_api_strict.asarray(SCALE)
        found = normsniff.penalty(matrix, 1, scale)
        assert isinstance(found, type(matrix))
        assert float(found) == pytest.approx(float(normsniff.penalty(MATRIX, 1, SCALE)))

    @pytest.mark.parametrize("scale", [np.ones(31), np.ones((32, 1))])
    def test_shapes_must_fit(self, scale: Any) -> None:
        with pytest.raises(ValueError, match="does not fit axis 1"):
            normsniff.penalty(MATRIX, 1, scale)
        with pytest.raises(ValueError, match="fit axis 0"):
            normsniff.penalty(MATRIX[0], 0)


class TestNetworks:
    def test_agree_with_the_record(self) -> None:
        for name in ("gpt2-ln/model.safetensors", "llama-rms.bf16.safetensors", "cohere-ln/model.safetensors"):
            state = load(name)
            found = normsniff.Penalty(state)(state)
            shadows = normsniff.sniff(state, budget=None).shadows
            for role in ("writer", "reader"):
                expected = [s.rho for s in shadows if s.role == role]
                assert float(found[role + "s"]) == pytest.approx(np.mean(expected), rel=1e-3), (name, role)

    def test_scales_stored_minus_one_need_the_configuration(self) -> None:
        stored = load("gemma-rms.bf16.safetensors")
        with_config = normsniff.Penalty(stored, config={"model_type": "gemma"})
        shifted = {name: array + np.float32("norm" in name) for name, array in stored.items()}
        plain = normsniff.Penalty(shifted)
        assert float(with_config(stored)["readers"]) == pytest.approx(float(plain(shifted)["readers"]), rel=1e-2)
        assert normsniff.monitor(stored, config={"model_type": "gemma"})["normsniff/scale_mean"] > 1

    def test_nothing_to_regularise(self) -> None:
        with pytest.raises(normsniff.FormatError, match="residual stream"):
            normsniff.Penalty({"a.weight": np.ones((3, 4))})


class TestTorch:
    def test_gradients_are_those_of_finite_differences(self) -> None:
        torch = pytest.importorskip("torch")
        matrix = torch.tensor(MATRIX[:6, :5], requires_grad=True)
        scale = torch.tensor(SCALE[:5], requires_grad=True)
        assert torch.autograd.gradcheck(lambda m, g: normsniff.penalty(m, 1, g), (matrix, scale))
        assert torch.autograd.gradcheck(lambda m: normsniff.penalty(m, 0), (matrix,))

    def test_a_step_lowers_rho_and_keeps_the_size(self) -> None:
        torch = pytest.importorskip("torch")
        matrix = torch.nn.Parameter(torch.tensor(MATRIX))
        normsniff.penalty(matrix, 0).backward()
        assert float((matrix.detach() * matrix.grad).sum()) == pytest.approx(0, abs=1e-12)  # no shrinking
        with torch.no_grad():
            before, after = normsniff.penalty(matrix, 0), normsniff.penalty(matrix - matrix.grad, 0)
        assert after < before

    def test_zero_and_half_precision_matrices(self) -> None:
        torch = pytest.importorskip("torch")
        zero = torch.nn.Parameter(torch.zeros(4, 5))
        normsniff.penalty(zero, 0).backward()
        assert not zero.grad.any()
        half = torch.nn.Parameter(torch.tensor(MATRIX).bfloat16())
        found = normsniff.penalty(half, 0)
        found.backward()
        assert found.dtype == torch.float32
        assert half.grad.dtype == torch.bfloat16
        assert float(found.detach()) == pytest.approx(float(normsniff.penalty(MATRIX, 0)), rel=0.02)

    def test_the_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("torch")
        module = example("penalty")
        module.LAYERS, module.BATCH = 1, 4
        module.main(15)
        rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert [(row[0], row[1]) for row in rows] == [(n, w) for n in ("LayerNorm", "RMSNorm") for w in ("0.0", "0.1")]
        for without, with_penalty in (rows[:2], rows[2:]):
            assert float(with_penalty[3]) < float(without[3]) / 3  # writers
            assert float(with_penalty[4]) < float(without[4]) / 3  # readers
            assert float(with_penalty[2]) == pytest.approx(float(without[2]), rel=0.05)  # loss


def example(name: str) -> Any:
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
