"""What is known of families, and how configurations and GGUF keys lead to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import families
from normsniff.families.architectures import hf_class
from normsniff.families.tables import data, rules


@pytest.mark.parametrize(
    ("architecture", "norm", "shift"),
    [
        ("llama", "RMSNorm", "never"),
        ("gpt2", "LayerNorm", "always"),
        ("command-r", "LayerNorm", "never"),
        ("mpt", "LayerNorm", "sometimes"),
        ("t5", "RMSNorm", "never"),
        ("nemotron", "LayerNorm", "always"),
        ("nemotron_h", "RMSNorm", "never"),
        ("olmo", "LayerNorm", "never"),
    ],
)
def test_llama_cpp_architectures(architecture: str, norm: str, shift: str) -> None:
    fact = families.gguf_architecture(architecture, {})
    assert fact is not None
    assert (fact.norm, fact.shift) == (norm, shift)
    assert fact.source.startswith("llama.cpp ")
    assert fact.date


def test_the_epsilon_key_decides_for_one_architecture_only() -> None:
    key = "cohere2moe.attention.layer_norm_rms_epsilon"
    with_key, without = (
        families.gguf_architecture("cohere2moe", {key: 1e-5}),
        families.gguf_architecture("cohere2moe", {}),
    )
    assert with_key is not None
    assert without is not None
    assert (with_key.norm, without.norm) == ("RMSNorm", "LayerNorm")
    t5 = families.gguf_architecture("t5", {"t5.attention.layer_norm_epsilon": 1e-6})
    assert t5 is not None
    assert t5.norm == "RMSNorm"


def test_disagreements_and_inner_norms_are_kept() -> None:
    for name in ("phimoe", "refact"):
        fact = families.gguf_architecture(name, {})
        assert fact is not None
        assert (fact.norm, fact.disputed) == ("RMSNorm", "LayerNorm")
    fact = families.gguf_architecture("deepseek32", {})
    assert fact is not None
    assert fact.inner == {"indexer.k_norm": "LayerNorm"}
    olmo = families.gguf_architecture("olmo", {})
    assert olmo is not None
    assert olmo.parametric is False
    assert families.gguf_architecture("no-such-architecture", {}) is None


@pytest.mark.parametrize(
    ("metadata", "norm", "components"),
    [
        ({"clip.projector_type": "mlp"}, "LayerNorm", {}),
        ({"clip.projector_type": "pixtral", "clip.has_vision_encoder": True}, "RMSNorm", {"vision": "RMSNorm"}),
        (
            {"clip.vision.projector_type": "gemma4v", "clip.audio.projector_type": "qwen2a"},
            "RMSNorm",
            {"vision": "RMSNorm", "audio": "LayerNorm"},
        ),
        ({"clip.projector_type": "internvl"}, "LayerNorm", {}),
        (
            {"clip.projector_type": "internvl", "clip.vision.embedding_length": 3200, "clip.vision.block_count": 45},
            "RMSNorm",
            {},
        ),
    ],
)
def test_projectors(metadata: dict[str, Any], norm: str, components: dict[str, str]) -> None:
    fact = families.gguf_architecture("clip", metadata)
    assert fact is not None
    assert fact.norm == norm
    assert {k: v for k, v in fact.components.items() if k != "main"} == components
    assert families.gguf_architecture("clip", {}) is None
    assert families.projector("no-such-projector", {}) is None


@pytest.mark.parametrize(
    ("config", "norm"),
    [
        ({"model_type": "bert"}, "LayerNorm"),
        ({"model_type": "cohere"}, "LayerNorm"),
        ({"model_type": "t5", "layer_norm_epsilon": 1e-6}, "RMSNorm"),
        ({"model_type": "phimoe", "rms_norm_eps": 1e-5}, "LayerNorm"),
        ({"model_type": "mobilebert"}, "none"),
        ({"model_type": "mobilebert", "normalization_type": "layer_norm"}, "LayerNorm"),
        ({"model_type": "cohere2_moe"}, "LayerNorm"),
        ({"model_type": "cohere2_moe", "rms_norm_eps": 1e-5}, "RMSNorm"),
        ({"model_type": "cohere2_moe", "rms_norm_eps": None}, "LayerNorm"),
        ({"model_type": "internvl_vision", "norm_type": "rms_norm"}, "RMSNorm"),
        ({"model_type": "patchtst", "norm_type": "layernorm"}, "LayerNorm"),
        ({"model_type": "unheard_of", "architectures": ["LlamaForCausalLM"]}, "RMSNorm"),
        ({"architectures": ["GPT2LMHeadModel"]}, "LayerNorm"),
        ({"architectures": ["PhiMoEForCausalLM"]}, None),  # disputed: says nothing of the original
        ({"model_type": "unheard_of", "text_config": {"model_type": "llama"}}, "RMSNorm"),
        ({"model_type": "unheard_of", "norm_type": "low_precision_layernorm"}, "LayerNorm"),
        ({"layer_norm_type": "rms"}, "RMSNorm"),
        ({"normalization": "RMSNorm"}, "RMSNorm"),
        ({"rms_norm": True}, "RMSNorm"),
        ({"norm_class": "torch.nn.LayerNorm"}, "LayerNorm"),
        ({"dim": 4096, "n_layers": 32, "norm_eps": 1e-5}, "RMSNorm"),
        ({"model_type": "unheard_of"}, None),
        ({}, None),
        ({"model_type": ["bert"], "architectures": {"a": 1}, "text_config": "x"}, None),
    ],
)
def test_configurations(config: dict[str, Any], norm: str | None) -> None:
    fact = families.from_config(config)
    assert (fact and fact.norm) == norm
    assert fact is None or fact.source


def test_towers_come_from_their_own_configurations() -> None:
    llava = {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}
    fact = families.from_config(llava)
    assert fact is not None
    assert fact.norm == "RMSNorm"
    assert [fact.label(tower) for tower in ("text", "main", "vision")] == ["RMSNorm", "RMSNorm", "LayerNorm"]
    other = families.from_config({**llava, "text_config": {"model_type": "opt"}})
    assert other is not None
    assert other.norm == "LayerNorm"
    pair = families.from_config(
        {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": {"model_type": "llama"}}
    )
    assert pair is not None
    assert [pair.label(side) for side in ("encoder", "decoder")] == ["LayerNorm", "RMSNorm"]


def test_deep_configurations_end() -> None:
    config: dict[str, Any] = {"model_type": "bert"}
    for _ in range(500):
        config = {"text_config": config}
    assert families.from_config(config) is None


@pytest.mark.parametrize(
    ("model_type", "path", "component", "offset"),
    [
        ("gemma3_text", "layers.N.self_attn.q_norm", "main", 1.0),
        ("qwen3_5_text", "layers.N.linear_attn.norm", "main", 0.0),
        ("qwen3_5_text", "norm", "main", 1.0),
        ("colpali", "vlm.vision_tower.post_layernorm", "vision", 0.0),
        ("colpali", "vlm.language_model.norm", "text", 1.0),
        ("gemma3", "vision_tower.post_layernorm", "vision", 0.0),
        ("nemotron", "model.layers.N.input_layernorm", "main", 1.0),
        ("llama4_text", "norm", "main", 0.0),
    ],
)
def test_zero_centred_scales(model_type: str, path: str, component: str, offset: float) -> None:
    fact = families.model_type(model_type)
    assert fact is not None
    assert fact.offset(path, component) == offset


def test_counts_cover_what_no_row_does() -> None:
    counts = families.counts()
    assert counts.shift["present"].get("RMSNorm", 0) == 0
    assert counts.eps_key["rms_norm_eps"]["RMSNorm"] > 10 * counts.eps_key["rms_norm_eps"]["LayerNorm"]
    assert set(counts.leaf_name["layer_norm1"]) == {"LayerNorm"}


def test_rules_do_not_contradict_the_table() -> None:
    table = data().transformers
    for family in rules().family:
        for name in family.model_types:
            assert name not in table or table[name].norm == family.norm
    for words in rules().setting.words:
        assert words == words.lower()
    for name in data().hf_classes.values():
        assert name in data().gguf


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(["bert", "llama", "cohere2_moe"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["model_type", "architectures", "text_config", "vision_config", "norm_type", "rms_norm", "encoder"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["model_type", "architectures", "text_config", "decoder", "norm"]), JSON))
def test_any_configuration_gives_a_fact_or_none(config: dict[str, Any]) -> None:
    fact = families.from_config(config, {"format": "mlx"})
    assert fact is None or fact.norm in ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined")


@pytest.mark.parametrize(
    ("name", "norm"),
    [("RobertaForCausalLM", "LayerNorm"), ("MistralModel", "RMSNorm"), ("GPT2LMHeadModel", "LayerNorm"),
     ("Llama", None), ("RobertaPreLayerNormForMaskedLM", None), ("ForCausalLM", None), ("Model", None), ("", None),
     ("RobertaFor" * 100 + "CausalLM", None)],
)  # fmt: skip
def test_classes_of_one_backbone_have_its_norm(name: str, norm: str | None) -> None:
    fact = hf_class(name)
    assert (None if fact is None else fact.norm) == norm
