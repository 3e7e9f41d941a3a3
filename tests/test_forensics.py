"""Models that were changed after training: recognised, reported, and not believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import quants
from numpy.typing import NDArray

import normsniff
from normsniff.record import EvidenceKind
from tests.helpers.manifest import FIXTURES

State = dict[str, NDArray[Any]]
HEADS = 4
KERNEL: tuple[EvidenceKind, ...] = ("kernel",)


@pytest.fixture(scope="module")
def gpt2() -> State:
    from safetensors.numpy import load_file

    state: State = load_file(FIXTURES / "gpt2-ln" / "model.safetensors")
    state["lm_head.weight"] = state["transformer.wte.weight"].copy()  # centring the embedding must not touch the head
    return state


def forward(state: State, tokens: NDArray[np.int64], *, rms: bool) -> NDArray[np.float64]:
    """Run the tiny GPT-2 in float64; a missing shift is zero."""
    p = {k.removeprefix("transformer."): v.astype(np.float64) for k, v in state.items()}

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        x = x if rms else x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(x * p[f"{name}.weight"] + p.get(f"{name}.bias", 0.0))

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.asarray(x @ p[f"{name}.weight"] + p[f"{name}.bias"])

    x = p["wte.weight"][tokens] + p["wpe.weight"][: len(tokens)]
    n, d = x.shape
    for layer in sorted({k.split(".")[1] for k in p if k.startswith("h.")}):
        q, k, v = np.split(linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn"), 3, axis=1)
        heads = [part.reshape(n, HEADS, d // HEADS).transpose(1, 0, 2) for part in (q, k, v)]
        scores = heads[0] @ heads[1].transpose(0, 2, 1) / np.sqrt(d // HEADS)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ heads[2]).transpose(1, 0, 2).reshape(n, d)
        x = x + linear(mixed, f"h.{layer}.attn.c_proj")
        hidden = linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + linear(hidden, f"h.{layer}.mlp.c_proj")
    return np.asarray(norm(x, "ln_f") @ p["lm_head.weight"].T)


def centred(state: State) -> State:
    """Take the mean out of everything that writes into the stream: LayerNorm and RMSNorm are then the same."""
    out = dict(state)
    for key, value in state.items():
        if key.endswith(("wte.weight", "wpe.weight", "c_proj.weight", "c_proj.bias")):
            out[key] = (value - value.astype(np.float64).mean(axis=-1, keepdims=True)).astype(np.float32)
    return out


def as_rms_norm(state: State) -> State:
    """Centre, and move every shift into the bias of what reads it, as SliceGPT does: an RMSNorm model."""
    out = centred(state)
    for layer in ("0", "1"):
        for norm, reader in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            shift = out.pop(f"transformer.h.{layer}.{norm}.bias")
            weight = out[f"transformer.h.{layer}.{reader}.weight"]
            out[f"transformer.h.{layer}.{reader}.bias"] = out[f"transformer.h.{layer}.{reader}.bias"] + shift @ weight
    return out  # the final shift stays: the head has no bias to take it


def q8_0(values: NDArray[Any]) -> NDArray[np.float32]:
    kind = gguf.GGMLQuantizationType.Q8_0
    return np.asarray(quants.dequantize(quants.quantize(values.astype(np.float32), kind), kind), dtype=np.float32)


ROUND_TRIPS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "F32": lambda a: a,
    "F16": lambda a: a.astype(np.float16),
    "BF16": lambda a: a.astype(ml_dtypes.bfloat16),
    "Q8_0": lambda a: q8_0(a) if a.ndim == 2 else a,
}


class TestRewritten:
    tokens = np.arange(40) % 90

    def test_the_rewrites_keep_the_function(self, gpt2: State) -> None:
        expected = forward(gpt2, self.tokens, rms=False)
        assert np.abs(expected).max() > 1
        assert np.allclose(forward(centred(gpt2), self.tokens, rms=False), expected, atol=1e-4)
        assert np.allclose(forward(as_rms_norm(gpt2), self.tokens, rms=True), expected, atol=1e-4)
        assert not np.allclose(forward(gpt2, self.tokens, rms=True), expected, atol=1e-2)

    @pytest.mark.parametrize("dtype", ROUND_TRIPS)
    @pytest.mark.parametrize("evidence", [("declared", "layout", "kernel"), ("kernel",)])
    def test_are_recognised(self, gpt2: State, dtype: str, evidence: Any) -> None:
        state = {k: ROUND_TRIPS[dtype](v) for k, v in as_rms_norm(gpt2).items()}
        record = normsniff.sniff(state, evidence=evidence)
        assert record.rewritten_from == "LayerNorm", record.evidence
        assert record.label != "LayerNorm"

    @pytest.mark.parametrize("dtype", ROUND_TRIPS)
    def test_a_trained_model_is_not_taken_for_one(self, gpt2: State, dtype: str) -> None:
        record = normsniff.sniff({k: ROUND_TRIPS[dtype](v) for k, v in gpt2.items()})
        assert record.rewritten_from is None
        assert record.label == "LayerNorm"


class TestHidden:
    def hide(self, state: State, amount: float) -> State:
        """Add energy along **1** to the writers, which LayerNorm ignores."""
        rng = np.random.default_rng(0)
        out = dict(state)
        for key, value in state.items():
            if key.endswith(("c_proj.weight", "wte.weight", "wpe.weight")):
                out[key] = (value + amount * value.std() * rng.normal(size=(value.shape[0], 1))).astype(np.float32)
        return out

    def test_hiding_keeps_the_function(self, gpt2: State) -> None:
        expected = forward(gpt2, TestRewritten.tokens, rms=False)
        assert np.allclose(forward(self.hide(gpt2, 2.0), TestRewritten.tokens, rms=False), expected, atol=1e-3)

    def test_is_suspicious_and_not_labelled_with_confidence(self, gpt2: State) -> None:
        hidden = self.hide(gpt2, 2.0)
        record = normsniff.sniff(hidden)
        (kernel,) = (e for e in record.evidence if e.kind == "kernel")
        assert kernel.details["suspicious"] is True
        assert "hide" in kernel.reason
        assert (record.confidence or 0) < 0.9
        assert normsniff.sniff(hidden, evidence=KERNEL).label in ("undetermined", "LayerNorm")


class TestContradictions:
    def test_wrong_gguf_architecture(self) -> None:
        """The same tensors under a false name."""
        content = (FIXTURES / "gpt2-ln.F32.gguf").read_bytes()
        forged = content.replace(b"gpt2", b"olmo")  # same length; olmo is LayerNorm too, so nothing contradicts
        assert normsniff.sniff(forged).contradictions == []
        key, old, new = b"general.architecture", b"gpt2", b"qwen"
        at = content.index(key) + len(key)
        forged = content[:at] + content[at:].replace(old, new, 1)
        record = normsniff.sniff(forged)
        assert record.label != "RMSNorm"
        assert {("declared", "layout"), ("declared", "kernel")} <= {c.between for c in record.contradictions}

    def test_a_wrong_model_type_is_overruled_by_the_weights(self, tmp_path: Path) -> None:
        """A lone claim; with the layout, too, which sides with the weights. The record says what happened."""
        shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "llama", "rms_norm_eps": 1e-6}')
        for kinds in (("declared", "kernel"), ("declared", "layout", "kernel")):
            record = normsniff.sniff(tmp_path, evidence=kinds)
            assert record.label == "LayerNorm", record.evidence
            assert ("declared", "kernel") in {c.between for c in record.contradictions}
            assert any("outweighs that" in e.reason for e in record.evidence if e.kind == "verdict")

    def test_a_removed_shift(self, gpt2: State) -> None:
        bare = {k: v for k, v in gpt2.items() if ".ln_" not in k or not k.endswith("bias")}
        record = normsniff.sniff(bare)
        assert record.label == "LayerNorm"

    def test_onnx_patched_from_layer_norm_to_rms_norm(self) -> None:
        import onnx

        model = onnx.load(FIXTURES / "cohere-ln.dynamo23.f16.onnx")
        for node in list(model.graph.node):
            if node.op_type == "RMSNormalization":  # the exporter writes ReduceMean, Sub, RMSNormalization
                producer = {output: n for n in model.graph.node for output in n.output}
                sub = producer[node.input[0]]
                while sub.op_type != "Sub":
                    sub = producer[sub.input[0]]
                node.input[0] = sub.input[0]
        record = normsniff.sniff(model.SerializeToString())
        assert [site.kind for site in record.norms if site.role == "stream"] == ["RMSNorm"] * 3
        assert any(c.between == ("declared", "kernel") for c in record.contradictions)
        assert record.label == "undetermined"
