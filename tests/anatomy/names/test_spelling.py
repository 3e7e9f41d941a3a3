"""Every way to part the words of a name comes out as the one that the tables speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.anatomy.names.spelling import Speller, spell

ROWS = [
    ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight"),
    ("model/layers/0/self_attn/q_proj/weight:0", "model.layers.0.self_attn.q_proj.weight"),
    ("['encoder']['layers'][3]['selfAttn']['qProj']['kernel']", "encoder.layers.3.self_attn.q_proj.kernel"),
    ("('encoder', 'layers', '3', 'norm', 'scale')", "encoder.layers.3.norm.scale"),
    ("Block_0__LayerNorm_0__scale", "block_0.layernorm_0.scale"),
    ("a|layers|2|norm|bias", "a.layers.2.norm.bias"),
    ("a::layers::2::norm::bias", "a.layers.2.norm.bias"),
    ("a->layers->2->norm->bias", "a.layers.2.norm.bias"),
    ("encoder-layer-0-attention-self-query-weight", "encoder.layer.0.attention.self.query.weight"),
    ("model.layers.3.self-attn.q-proj.weight", "model.layers.3.self_attn.q_proj.weight"),
    ("model layers 3 self_attn q_proj weight", "model.layers.3.self_attn.q_proj.weight"),
    ("modelLayers10InputLayernormWeight", "model.layers.10.input_layernorm.weight"),
    ("model_layers_0_post_attention_layernorm_weight", "model.layers.0.post_attention_layernorm.weight"),
    ("transformer_h_11_attn_c_attn_bias", "transformer.h.11.attn.c_attn.bias"),
    ("transformer_h_0_ln_1_weight", "transformer.h.0.ln_1.weight"),
    ("layers_0_mlp_fc1_weight", "layers.0.mlp.fc1.weight"),
    ("layers.0.layer_norm_weight", "layers.0.layer_norm.weight"),
    ("layers.0.attn.in_proj_weight", "layers.0.attn.in_proj_weight"),
    ("layers.0.norm1.a_2", "layers.0.norm1.a_2"),
    ("model.layers.0.input_layernorm.weight.value", "model.layers.0.input_layernorm.weight"),
    ("blk.0.attn_q.weight", "blk.0.attn_q.weight"),
    ("MODEL.LAYERS.0.INPUT_LAYERNORM.WEIGHT", "model.layers.0.input_layernorm.weight"),
]


@pytest.mark.parametrize(("name", "spelled"), ROWS, ids=[name for name, _ in ROWS])
def test_a_name_is_words_whatever_parts_them(name: str, spelled: str) -> None:
    assert spell(name) == spelled
    assert Speller(10)(name) == spelled


def test_numbers_of_a_pattern_that_was_seen_are_kept() -> None:
    speller = Speller(10)
    assert [speller(f"a/layers/{n}/norm/weight") for n in (0, 7, 12)] == [
        f"a.layers.{n}.norm.weight" for n in (0, 7, 12)
    ]


def test_names_beyond_the_most_patterns_stay_as_they_are() -> None:
    speller = Speller(1)
    assert speller("a/norm") == "a.norm"
    assert speller("b/norm") == "b/norm"


@given(st.text(max_size=80))
def test_any_text_is_spelled_and_spelling_it_again_changes_nothing_of_its_words(name: str) -> None:
    spelled = spell(name)
    assert len(spelled) <= 2 * len(name)
    assert not any(mark in spelled for mark in "/|[]\"'")


@given(st.integers(0, 99), st.sampled_from([".", "/", "__", "|", "::", "->"]))
def test_the_separator_does_not_matter(number: int, separator: str) -> None:
    parts = ["model", "layers", str(number), "post_attention_layernorm", "weight"]
    assert Speller(9)(separator.join(parts)) == ".".join(parts)
