"""What a configuration says of its norm in so many words beats the default of its family."""

from __future__ import annotations

from typing import Any

import pytest

from normsniff.families import fact_of, from_config
from normsniff.families.settings import norm_setting, signature


@pytest.mark.parametrize(
    ("config", "norm"),
    [
        ({"model_type": "gpt2", "rms_norm": True}, "RMSNorm"),
        ({"model_type": "gpt2"}, "LayerNorm"),
        ({"model_type": "olmo", "layer_norm_type": "rms"}, "RMSNorm"),
        ({"model_type": "mpt", "norm_type": "low_precision_rmsnorm"}, "RMSNorm"),
        ({"model_type": "mpt", "attn_config": {"norm_type": "rmsnorm"}}, "RMSNorm"),
        ({"model_type": "llama", "norm_class": "torch.nn.LayerNorm"}, "LayerNorm"),
        ({"model": {"norm_class": "TritonRMSNorm"}}, "RMSNorm"),
        ({"_norm_type": "FP32LayerNorm"}, "LayerNorm"),
        ({"model_type": "chatglm"}, "LayerNorm"),
        ({"model_type": "chatglm", "rmsnorm": True}, "RMSNorm"),
    ],
)
def test_a_setting_decides(config: dict[str, Any], norm: str) -> None:
    fact = from_config(config)
    assert fact is not None
    assert fact.norm == norm


def test_a_flag_that_is_false_disputes_a_family() -> None:
    fact = from_config({"model_type": "llama", "use_rms_norm": False})
    assert fact is not None
    assert (fact.norm, fact.disputed) == ("RMSNorm", "LayerNorm")


def test_a_setting_of_a_tower_or_of_inner_norms_is_not_the_streams() -> None:
    assert norm_setting({"vision": {"norm_type": "layernorm"}, "qk_config": {"norm": "rmsnorm"}}) is None


def test_a_setting_in_the_metadata_of_a_gguf_decides() -> None:
    fact = fact_of({"general.architecture": "gpt2", "gpt2.norm_type": "rmsnorm"}, None)
    assert fact is not None
    assert fact.norm == "RMSNorm"


def test_a_training_run_is_known_by_the_settings_that_it_saves() -> None:
    settings = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 16, "bias": False, "vocab_size": 9}
    assert signature(settings) == ("nanoGPT", "LayerNorm")
    fact = fact_of({"settings": settings}, None)
    assert fact is not None
    assert fact.norm == "LayerNorm"


def test_a_configuration_of_any_size_and_depth_is_looked_at_in_bounds() -> None:
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"a": deep, "norm_type": 3}
    assert norm_setting({f"k{n}": deep for n in range(5000)}) is None


@pytest.mark.parametrize(
    ("config", "offset", "known"),
    [
        ({"normalization": "RMSNorm", "layernorm_zero_centered_gamma": True}, 1.0, True),  # Megatron-LM
        ({"normalization": "LayerNorm", "apply_layernorm_1p": True}, 1.0, True),
        ({"model": {"normalization": "layernorm1p"}}, 1.0, True),  # NeMo
        ({"normalization": "RMSNorm", "layernorm_zero_centered_gamma": False}, 0.0, False),
        ({"normalization": "RMSNorm"}, 0.0, False),  # legacy NeMo adds 1 to the scales of Gemma, and sets nothing
        ({"model_type": "llama"}, 0.0, True),
    ],
)
def test_a_setting_may_say_that_one_is_added_to_the_scale(config: dict[str, Any], offset: float, known: bool) -> None:
    fact = fact_of({}, config)
    assert fact is not None
    assert fact.offset("decoder.layers.0.self_attention.linear_qkv.layer_norm") == offset
    assert (fact.offset("x") == 1.0 or fact.scale_known) == known
