"""Live state dicts to scalars: agreement with the record, thrift, and arrays of several libraries."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import normsniff
from normsniff.training.summary import of_record
from tests.helpers.manifest import FIXTURES

LN = FIXTURES / "gpt2-ln" / "model.safetensors"
RMS = FIXTURES / "llama-rms.bf16.safetensors"


def load(path: Path) -> dict[str, Any]:
    return dict(safetensors.numpy.load_file(path))


def test_scalars_agree_with_the_record() -> None:
    state = load(LN)
    scalars = normsniff.monitor(state, vectors=1024)
    expected = of_record(normsniff.sniff(state))
    assert scalars["normsniff/rho_writers"] == pytest.approx(expected.rho["writers"].rho, rel=1e-5)
    assert scalars["normsniff/rho_readers"] == pytest.approx(expected.rho["readers"].rho, rel=1e-5)
    assert scalars["normsniff/rho_embeddings"] == pytest.approx(expected.rho["embeddings"].rho, rel=0.05)
    assert scalars["normsniff/scale_spread"] == pytest.approx(expected.scale_spread)
    assert scalars["normsniff/scale_mean"] == pytest.approx(expected.scale_mean)
    assert scalars["normsniff/p_layernorm"] == pytest.approx(expected.p_layernorm, abs=0.01)
    assert all(isinstance(value, float) for value in scalars.values())


def test_the_two_norms_differ() -> None:
    ln, rms = (normsniff.monitor(load(path)) for path in (LN, RMS))
    assert ln["normsniff/rho_writers"] < 0.2 < 0.7 < rms["normsniff/rho_writers"]
    assert rms["normsniff/p_layernorm"] < 0.2 < 0.9 < ln["normsniff/p_layernorm"]


def test_a_silent_kernel_leaves_its_scalar_out() -> None:
    assert "normsniff/p_layernorm" not in normsniff.monitor(load(FIXTURES / "random-ln.bf16.safetensors"))


def test_what_may_be_no_norm_gets_no_probability() -> None:
    state = load(LN)
    numbers = {name.replace(".weight", ".alpha"): np.ones(1, np.float32) for name in state if "ln_" in name}
    assert "normsniff/p_layernorm" not in normsniff.monitor({**state, **numbers})


def test_later_values_are_seen_and_none_is_kept() -> None:
    state = load(LN)
    monitor = normsniff.Monitor(state)
    before = monitor(state)
    later = {name: array + np.float32(array.ndim == 2) for name, array in state.items()}
    watched = [weakref.ref(array) for array in (*later.values(),)]
    after = monitor(later)
    assert after["normsniff/rho_writers"] > 10 > before["normsniff/rho_writers"]
    del later
    gc.collect()
    assert not any(ref() is not None for ref in watched)
    assert monitor(state) == before


def test_new_shapes_make_a_new_plan() -> None:
    monitor = normsniff.Monitor(load(LN))
    assert monitor(load(RMS)) == normsniff.monitor(load(RMS))


def test_prefix_and_wrapped_names() -> None:
    state = load(LN)
    plain = normsniff.monitor(state, prefix="")
    for wrapper in ("module.", "model.", "_orig_mod.", "model._orig_mod."):
        wrapped = normsniff.monitor({wrapper + name: array for name, array in state.items()}, prefix="")
        assert wrapped == plain, wrapper


def test_nothing_along_a_stream_is_an_error() -> None:
    with pytest.raises(normsniff.FormatError, match="residual stream"):
        normsniff.Monitor({"step": np.zeros(3)})


class Sliced:
    """An array that may only be converted in part, as one on an accelerator should be."""

    def __init__(self, array: Any) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.taken = 0

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        part = self.array[index]
        self.taken += part.size
        return part

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("converted whole")


def test_matrices_are_sliced_before_they_are_converted() -> None:
    rng = np.random.default_rng(0)
    d, layers = 64, 40
    state: dict[str, Any] = {"embed_tokens.weight": Sliced(rng.normal(size=(20_000, d)).astype(np.float32))}
    for i in range(layers):
        state[f"layers.{i}.input_layernorm.weight"] = np.ones(d, np.float32)
        state[f"layers.{i}.self_attn.o_proj.weight"] = Sliced(rng.normal(size=(d, d)).astype(np.float32))
        state[f"layers.{i}.mlp.down_proj.weight"] = Sliced(rng.normal(size=(d, 1024)).astype(np.float32))
    scalars = normsniff.monitor(state)
    assert scalars["normsniff/rho_writers"] == pytest.approx(1, abs=0.3)
    assert state["embed_tokens.weight"].taken == 256 * d
    touched = [one for one in state.values() if isinstance(one, Sliced) and one.taken]
    assert len(touched) == 12 + 1  # twelve writers and the embedding
    assert max(one.taken for one in touched) <= 512 * d


def test_bfloat16_of_numpy_and_torch() -> None:
    torch = pytest.importorskip("torch")
    state = load(LN)
    expected = normsniff.monitor({name: array.astype(ml_dtypes.bfloat16) for name, array in state.items()})
    live = {name: torch.nn.Parameter(torch.from_numpy(array).bfloat16()) for name, array in state.items()}
    assert normsniff.monitor(live) == expected
    assert expected["normsniff/rho_writers"] == pytest.approx(
        normsniff.monitor(state)["normsniff/rho_writers"], rel=0.05
    )
