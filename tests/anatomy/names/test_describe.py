"""Anatomy from names: what each convention calls a norm, a reader, a writer, and which axis is the stream."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.anatomy.names import describe as names
from normsniff.anatomy.names import patterns as paths
from normsniff.anatomy.parts import Anatomy, Matrix, Site
from normsniff.checkpoint import Checkpoint, TensorInfo
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource
from normsniff.source.views import Extent

D, F, V = 8, 20, 97
NOWHERE = BytesSource(b"")
Shapes = dict[str, tuple[int, ...]]


def checkpoint(
    shapes: Mapping[str, tuple[int, ...]],
    kind: str = "safetensors",
    config: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Checkpoint:
    tensors = {
        name: TensorInfo(name, (dtypes or {}).get(name, "F32"), shape, Extent(NOWHERE, 0, 0))
        for name, shape in shapes.items()
    }
    return Checkpoint(kind, None, tensors, (NOWHERE,), "", metadata or {}, config)


def norm(path: str, d: int = D) -> Shapes:
    return {f"{path}.weight": (d,), f"{path}.bias": (d,)}


def site(anatomy: Anatomy, name: str) -> Site:
    return next(site for site in anatomy.sites if site.name == name)


def matrix(anatomy: Anatomy, name: str) -> Matrix:
    return next(m for m in anatomy.matrices if m.tensor.name == name)


def reads(anatomy: Anatomy, name: str) -> str | None:
    """The name of the norm that a matrix reads."""
    found = matrix(anatomy, name)
    return None if found.site is None else anatomy.sites[found.site].name


def block(prefix: str, before: str, between: str) -> Shapes:
    """A Llama-like block with two norms."""
    return {
        f"{prefix}{before}.weight": (D,),
        f"{prefix}{between}.weight": (D,),
        f"{prefix}self_attn.q_proj.weight": (D, D),
        f"{prefix}self_attn.k_proj.weight": (4, D),
        f"{prefix}self_attn.o_proj.weight": (D, D),
        f"{prefix}mlp.up_proj.weight": (F, D),
        f"{prefix}mlp.down_proj.weight": (D, F),
    }


LLAMA: Shapes = {
    "model.embed_tokens.weight": (V, D),
    **block("model.layers.0.", "input_layernorm", "post_attention_layernorm"),
    **block("model.layers.1.", "input_layernorm", "post_attention_layernorm"),
    "model.norm.weight": (D,),
    "lm_head.weight": (V, D),
}


def test_llama() -> None:
    anatomy = names.describe(checkpoint(LLAMA))
    assert [(s.name, s.role, s.layer, s.width, s.kind, s.offset) for s in anatomy.sites] == [
        ("model.layers.0.input_layernorm", "stream", 0, D, None, 0.0),
        ("model.layers.0.post_attention_layernorm", "stream", 0, D, None, 0.0),
        ("model.layers.1.input_layernorm", "stream", 1, D, None, 0.0),
        ("model.layers.1.post_attention_layernorm", "stream", 1, D, None, 0.0),
        ("model.norm", "stream", None, D, None, 0.0),
    ]
    assert dict(anatomy.widths) == {"main": D}
    assert anatomy.basis == "names"
    one = "model.layers.1."
    assert reads(anatomy, one + "self_attn.q_proj.weight") == one + "input_layernorm"
    assert reads(anatomy, one + "mlp.up_proj.weight") == one + "post_attention_layernorm"
    assert reads(anatomy, "lm_head.weight") == "model.norm"
    assert [(m.role, m.axis, m.layer) for m in anatomy.matrices[:6]] == [
        ("embedding", 1, None),
        ("reader", 1, 0),
        ("reader", 1, 0),
        ("writer", 0, 0),
        ("reader", 1, 0),
        ("writer", 0, 0),
    ]


def test_gemma_2_puts_norms_on_both_sides() -> None:
    p = "model.layers.0."
    shapes = {**LLAMA, p + "pre_feedforward_layernorm.weight": (D,), p + "post_feedforward_layernorm.weight": (D,)}
    anatomy = names.describe(checkpoint(shapes))
    assert reads(anatomy, p + "mlp.up_proj.weight") == p + "pre_feedforward_layernorm"
    assert "no configuration: models with these names often store scale - 1" in anatomy.notes


def test_olmo_2_reads_the_raw_stream() -> None:
    shapes = block("model.layers.0.", "post_attention_layernorm", "post_feedforward_layernorm") | {
        "model.norm.weight": (D,),
        "lm_head.weight": (V, D),
    }
    anatomy = names.describe(checkpoint(shapes))
    assert reads(anatomy, "model.layers.0.self_attn.q_proj.weight") is None
    assert reads(anatomy, "model.layers.0.mlp.up_proj.weight") is None
    assert reads(anatomy, "lm_head.weight") == "model.norm"


def test_one_norm_serves_both_halves_of_a_parallel_block() -> None:
    shapes = {name: shape for name, shape in LLAMA.items() if "post_attention" not in name}
    anatomy = names.describe(checkpoint(shapes))
    assert reads(anatomy, "model.layers.0.mlp.up_proj.weight") == "model.layers.0.input_layernorm"


def bert(prefix: str, word: str = "weight") -> Shapes:
    shift = {"weight": "bias", "gamma": "beta"}[word]
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (V, D),
        "embeddings.position_embeddings.weight": (16, D),
        "embeddings.token_type_embeddings.weight": (2, D),
        f"embeddings.LayerNorm.{word}": (D,),
        f"embeddings.LayerNorm.{shift}": (D,),
        "pooler.dense.weight": (D, D),
    }
    for n in range(2):
        p = f"encoder.layer.{n}."
        shapes |= {
            f"{p}attention.self.query.weight": (D, D),
            f"{p}attention.output.dense.weight": (D, D),
            f"{p}attention.output.LayerNorm.{word}": (D,),
            f"{p}attention.output.LayerNorm.{shift}": (D,),
            f"{p}intermediate.dense.weight": (F, D),
            f"{p}output.dense.weight": (D, F),
            f"{p}output.LayerNorm.{word}": (D,),
            f"{p}output.LayerNorm.{shift}": (D,),
        }
    return {prefix + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize("word", ["weight", "gamma"])
@pytest.mark.parametrize("prefix", ["", "bert.", "module.bert.", "_orig_mod.model."])
def test_bert_reads_the_norm_of_the_layer_before(prefix: str, word: str) -> None:
    anatomy = names.describe(checkpoint(bert(prefix, word)))
    assert len(anatomy.sites) == 5
    assert all(s.scale and s.shift and s.role == "stream" for s in anatomy.sites)
    layer = prefix + "encoder.layer."
    assert reads(anatomy, layer + "0.attention.self.query.weight") == prefix + "embeddings.LayerNorm"
    assert reads(anatomy, layer + "1.attention.self.query.weight") == layer + "0.output.LayerNorm"
    assert reads(anatomy, layer + "1.intermediate.dense.weight") == layer + "1.attention.output.LayerNorm"
    assert matrix(anatomy, layer + "1.output.dense.weight").role == "writer"
    assert [m.role for m in anatomy.matrices[:3]] == ["embedding", "position", "position"]
    assert not any("pooler" in m.tensor.name for m in anatomy.matrices)


def test_tensorflow_names_and_orientation() -> None:
    p = "tf_bert/bert/encoder/layer_._0/"
    shapes: Shapes = {
        p + "attention/self/query/kernel:0": (D, D),
        p + "attention/output/dense/kernel:0": (D, D),
        p + "attention/output/LayerNorm/gamma:0": (D,),
        p + "attention/output/LayerNorm/beta:0": (D,),
        p + "intermediate/dense/kernel:0": (D, F),
        p + "output/dense/kernel:0": (F, D),
        p + "output/LayerNorm/gamma:0": (D,),
        p + "output/LayerNorm/beta:0": (D,),
        "tf_bert/bert/embeddings/LayerNorm/gamma:0": (D,),
        "tf_bert/bert/embeddings/LayerNorm/beta:0": (D,),
    }
    anatomy = names.describe(checkpoint(shapes, "Keras"))
    assert site(anatomy, p + "output/LayerNorm").layer == 0
    assert [m.axis for m in anatomy.matrices] == [0, 1, 0, 1]
    assert reads(anatomy, p + "attention/self/query/kernel:0") == "tf_bert/bert/embeddings/LayerNorm"


GPT2: Shapes = {
    "wte.weight": (V, D),
    "wpe.weight": (16, D),
    **norm("h.0.ln_1"),
    "h.0.attn.bias": (1, 1, 16, 16),
    "h.0.attn.c_attn.weight": (D, 3 * D),
    "h.0.attn.c_proj.weight": (D, D),
    **norm("h.0.ln_2"),
    "h.0.mlp.c_fc.weight": (D, 4 * D),
    "h.0.mlp.c_proj.weight": (4 * D, D),
    **norm("ln_f"),
}


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_conv1d_orientation_is_read_off_the_matrices_that_are_not_square(prefix: str) -> None:
    anatomy = names.describe(checkpoint({prefix + name: shape for name, shape in GPT2.items()}))
    assert matrix(anatomy, prefix + "h.0.attn.c_attn.weight").axis == 0
    assert matrix(anatomy, prefix + "h.0.attn.c_proj.weight").axis == 1
    assert matrix(anatomy, prefix + "h.0.mlp.c_proj.weight").axis == 1
    assert reads(anatomy, prefix + "h.0.mlp.c_fc.weight") == prefix + "h.0.ln_2"
    assert not any(name.endswith("attn.bias") for name in (m.tensor.name for m in anatomy.matrices))


def test_without_a_last_norm_gpt_1_is_post_norm() -> None:
    shapes = {name: shape for name, shape in GPT2.items() if "ln_f" not in name}
    shapes |= {name.replace("h.0", "h.1"): shape for name, shape in shapes.items() if name.startswith("h.0")}
    anatomy = names.describe(checkpoint(shapes))
    assert reads(anatomy, "h.0.attn.c_attn.weight") is None
    assert reads(anatomy, "h.0.mlp.c_fc.weight") == "h.0.ln_1"
    assert reads(anatomy, "h.1.attn.c_attn.weight") == "h.0.ln_2"


def bart(final_norm: bool) -> Shapes:
    shapes: Shapes = {"model.shared.weight": (V, D)}
    for side in ("encoder", "decoder"):
        p = f"model.{side}.layers.0."
        shapes |= norm(f"model.{side}.layernorm_embedding") | norm(p + "self_attn_layer_norm")
        shapes |= norm(p + "final_layer_norm")
        shapes |= {
            p + "self_attn.q_proj.weight": (D, D),
            p + "fc1.weight": (F, D),
            p + "fc2.weight": (D, F),
        }
        if final_norm:
            shapes |= norm(f"model.{side}.layer_norm")
    p = "model.decoder.layers.0."
    return (
        shapes
        | norm(p + "encoder_attn_layer_norm")
        | {
            p + "encoder_attn.q_proj.weight": (D, D),
            p + "encoder_attn.k_proj.weight": (D, D),
        }
    )


def test_bart_and_mbart_share_names_and_differ_in_placement() -> None:
    p, e = "model.decoder.layers.0.", "model.encoder."
    after = names.describe(checkpoint(bart(final_norm=False)))
    assert dict(after.widths) == {"encoder": D, "decoder": D}
    assert reads(after, p + "self_attn.q_proj.weight") == "model.decoder.layernorm_embedding"
    assert reads(after, p + "encoder_attn.q_proj.weight") == p + "self_attn_layer_norm"
    assert reads(after, p + "encoder_attn.k_proj.weight") == e + "layers.0.final_layer_norm"
    assert reads(after, p + "fc1.weight") == p + "encoder_attn_layer_norm"
    before = names.describe(checkpoint(bart(final_norm=True)))
    assert reads(before, p + "self_attn.q_proj.weight") == p + "self_attn_layer_norm"
    assert reads(before, p + "encoder_attn.q_proj.weight") == p + "encoder_attn_layer_norm"
    assert reads(before, p + "encoder_attn.k_proj.weight") == e + "layer_norm"
    assert matrix(before, p + "encoder_attn.k_proj.weight").component == "encoder"
    assert reads(before, p + "fc1.weight") == p + "final_layer_norm"
    forced = names.describe(checkpoint(bart(final_norm=True), config={"do_layer_norm_before": False}))
    assert reads(forced, p + "fc1.weight") == p + "encoder_attn_layer_norm"


def test_t5_has_a_norm_in_each_sub_layer() -> None:
    shapes: Shapes = {"shared.weight": (V, D)}
    for side, last in (("encoder", 1), ("decoder", 2)):
        p = f"{side}.block.0.layer."
        shapes |= {
            p + "0.layer_norm.weight": (D,),
            p + "0.SelfAttention.q.weight": (12, D),
            p + "0.SelfAttention.o.weight": (D, 12),
            f"{p}{last}.layer_norm.weight": (D,),
            f"{p}{last}.DenseReluDense.wi.weight": (F, D),
            f"{p}{last}.DenseReluDense.wo.weight": (D, F),
            f"{side}.final_layer_norm.weight": (D,),
        }
    p = "decoder.block.0.layer.1."
    shapes |= {
        p + "layer_norm.weight": (D,),
        p + "EncDecAttention.q.weight": (12, D),
        p + "EncDecAttention.k.weight": (12, D),
    }
    anatomy = names.describe(checkpoint(shapes))
    assert reads(anatomy, "encoder.block.0.layer.1.DenseReluDense.wi.weight") == "encoder.block.0.layer.1.layer_norm"
    assert reads(anatomy, p + "EncDecAttention.q.weight") == p + "layer_norm"
    assert reads(anatomy, p + "EncDecAttention.k.weight") == "encoder.final_layer_norm"
    assert matrix(anatomy, "encoder.block.0.layer.0.SelfAttention.o.weight").role == "writer"
    assert {m.layer for m in anatomy.matrices} == {0, None}


# --- llama.cpp ---------------------------------------------------------------------------------------------------


def gguf(architecture: str, shapes: Shapes, **metadata: Any) -> Anatomy:
    return names.describe(checkpoint(shapes, "GGUF", metadata={"general.architecture": architecture, **metadata}))


def ggml_block(p: str, *norms: str) -> Shapes:
    shapes: Shapes = {p + name + ".weight": (D,) for name in norms}
    return shapes | {
        p + "attn_q.weight": (D, D),
        p + "attn_output.weight": (D, D),
        p + "ffn_up.weight": (F, D),
        p + "ffn_down.weight": (D, F),
    }


@pytest.mark.parametrize(
    ("norms", "attention", "mlp"),
    [
        (("attn_norm", "ffn_norm"), "attn_norm", "ffn_norm"),
        (("attn_norm",), "attn_norm", "attn_norm"),
        (("attn_norm", "attn_norm_2"), "attn_norm_2", "attn_norm"),  # Falcon-40B
        (("attn_norm", "post_attention_norm"), "attn_norm", "post_attention_norm"),  # gpt-oss, Qwen3-Next
        (("attn_norm", "attn_output_norm"), "attn_norm", "attn_output_norm"),  # DBRX
        (("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), "attn_norm", "ffn_norm"),  # Gemma 2
        (("post_attention_norm", "post_ffw_norm"), None, None),  # OLMo 2
    ],
)
def test_llama_cpp_blocks(norms: tuple[str, ...], attention: str | None, mlp: str | None) -> None:
    shapes: Shapes = {"token_embd.weight": (V, D), "output_norm.weight": (D,), **ggml_block("blk.0.", *norms)}
    anatomy = gguf("llama", shapes)
    assert reads(anatomy, "blk.0.attn_q.weight") == (attention and "blk.0." + attention)
    assert reads(anatomy, "blk.0.ffn_up.weight") == (mlp and "blk.0." + mlp)
    assert matrix(anatomy, "blk.0.attn_output.weight").axis == 0


def test_llama_cpp_bert() -> None:
    shapes: Shapes = norm("token_embd_norm") | {"token_embd.weight": (V, D), "token_types.weight": (2, D)}
    for n in range(2):
        shapes |= ggml_block(f"blk.{n}.", "attn_output_norm", "layer_output_norm")
    anatomy = gguf("bert", shapes)
    assert reads(anatomy, "blk.0.attn_q.weight") == "token_embd_norm"
    assert reads(anatomy, "blk.1.attn_q.weight") == "blk.0.layer_output_norm"
    assert reads(anatomy, "blk.1.ffn_up.weight") == "blk.1.attn_output_norm"


def test_old_llava_projectors_have_up_and_down_swapped() -> None:
    p = "v.blk.0."
    shapes = norm(p + "ln1") | norm(p + "ln2") | norm("v.post_ln")
    shapes |= {p + "attn_q.weight": (D, D), p + "ffn_down.weight": (F, D), p + "ffn_up.weight": (D, F)}
    anatomy = gguf("clip", shapes, **{"clip.projector_type": "mlp"})
    assert matrix(anatomy, p + "ffn_down.weight").role == "reader"
    assert matrix(anatomy, p + "ffn_up.weight").role == "writer"
    assert reads(anatomy, p + "ffn_down.weight") == p + "ln2"


def test_a_norm_without_a_suffix_is_a_norm() -> None:
    shapes: Shapes = {"blk.0.attn_norm.weight": (D,), "blk.0.post_attention_norm": (D,), "blk.0.ssm_dt_norm": (4,)}
    anatomy = gguf("plamo2", shapes)
    assert [(s.name, s.role) for s in anatomy.sites] == [
        ("blk.0.attn_norm", "stream"),
        ("blk.0.post_attention_norm", "stream"),
        ("blk.0.ssm_dt_norm", "other"),
    ]


# --- other conventions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "reader", "axis", "norm_name"),
    [
        pytest.param(
            {"layers.0.attention_norm.weight": (D,), "layers.0.ffn_norm.weight": (D,), "norm.weight": (D,),
             "layers.0.feed_forward.w1.weight": (F, D), "layers.0.feed_forward.w2.weight": (D, F)},
            "layers.0.feed_forward.w1.weight", 1, "layers.0.ffn_norm", id="mistral-native",
        ),
        pytest.param(
            {**norm("blocks.0.norm1"), **norm("blocks.0.norm2"), **norm("norm"), "blocks.0.mlp.fc1.weight": (F, D)},
            "blocks.0.mlp.fc1.weight", 1, "blocks.0.norm2", id="timm",
        ),
        pytest.param(
            {"decoder.layers.0.self_attention.linear_qkv.layer_norm_weight": (D,),
             "decoder.layers.0.self_attention.linear_qkv.weight": (3 * D, D),
             "decoder.layers.0.mlp.linear_fc1.layer_norm_weight": (D,)},
            "decoder.layers.0.self_attention.linear_qkv.weight", 1,
            "decoder.layers.0.self_attention.linear_qkv.layer_norm", id="transformer-engine",
        ),
        pytest.param(
            {"params/encoderblock_0/LayerNorm_0/scale": (D,), "params/encoderblock_0/LayerNorm_0/bias": (D,),
             "params/encoderblock_0/LayerNorm_2/scale": (D,),
             "params/encoderblock_0/MlpBlock_3/Dense_0/kernel": (D, F)},
            "params/encoderblock_0/MlpBlock_3/Dense_0/kernel", 0, "params/encoderblock_0/LayerNorm_2", id="flax",
        ),
        pytest.param(
            {**norm("blocks.0.ln1"), **norm("blocks.0.ln2"), **norm("ln_out"),
             "blocks.0.att.key.weight": (D, D), "blocks.0.ffn.key.weight": (F, D)},
            "blocks.0.ffn.key.weight", 1, "blocks.0.ln2", id="rwkv",
        ),
        pytest.param(
            {**norm("blocks.0.n1"), **norm("blocks.0.n2"), **norm("nf"), "blocks.0.qkv.weight": (3 * D, D),
             "blocks.0.up.weight": (F, D), "blocks.0.down.weight": (D, F)},
            "blocks.0.up.weight", 1, "blocks.0.n2", id="numbered",
        ),
        pytest.param(
            {**norm("blocks.0.n0"), **norm("blocks.0.n1"), **norm("nf"), "blocks.0.qkv.weight": (3 * D, D),
             "blocks.0.up.weight": (F, D), "blocks.0.down.weight": (D, F)},
            "blocks.0.qkv.weight", 1, "blocks.0.n0", id="numbered from 0",
        ),
        pytest.param(
            {**norm("transformer_blocks.0.norm1"), **norm("transformer_blocks.0.norm2"),
             **norm("transformer_blocks.0.norm3"), "transformer_blocks.0.ff.net.0.proj.weight": (F, D),
             "transformer_blocks.0.ff.net.2.weight": (D, F), "transformer_blocks.0.attn2.to_q.weight": (D, D)},
            "transformer_blocks.0.attn2.to_q.weight", 1, "transformer_blocks.0.norm2", id="diffusers",
        ),
        pytest.param(
            {**norm("visual.transformer.resblocks.0.ln_1"), **norm("visual.transformer.resblocks.0.ln_2"),
             "visual.transformer.resblocks.0.attn.in_proj_weight": (3 * D, D), **norm("visual.ln_post")},
            "visual.transformer.resblocks.0.attn.in_proj_weight", 1, "visual.transformer.resblocks.0.ln_1",
            id="open-clip",
        ),
        pytest.param(
            {"backbone.layers.0.norm.weight": (D,), "backbone.layers.0.mixer.norm.weight": (16,),
             "backbone.layers.1.norm.weight": (D,),
             "backbone.layers.0.mixer.in_proj.weight": (40, D), "backbone.norm_f.weight": (D,)},
            "backbone.layers.0.mixer.in_proj.weight", 1, "backbone.layers.0.norm", id="mamba-2",
        ),
        pytest.param(
            {"model.layers.0.input_layernorm.weight": (D,), "model.layers.0.post_attention_layernorm.weight": (D,),
             "model.layers.0.mlp.experts.gate_up_proj": (4, D, 2 * F),
             "model.layers.0.mlp.experts.down_proj": (4, F, D)},
            "model.layers.0.mlp.experts.gate_up_proj", 1, "model.layers.0.post_attention_layernorm",
            id="stacked-experts",
        ),
    ],
)  # fmt: skip
def test_conventions(shapes: Shapes, reader: str, axis: int, norm_name: str) -> None:
    anatomy = names.describe(checkpoint(shapes))
    found = matrix(anatomy, reader)
    assert (found.role, found.axis, reads(anatomy, reader)) == ("reader", axis, norm_name)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.ls1.gamma",
        "blocks.0.gamma_1",
        "layer.0.lambda_1",
        "model.layers.0.self_attn.q_proj.scales",
        "model.layers.0.self_attn.q_proj.biases",
        "model.layers.0.self_attn.q_proj.g_idx",
        "model.layers.0.input_layernorm.weight_scale",
        "model.layers.0.mlp.up_proj.weight_g",
        "parametrizations.norm.weight.original0",
        "optimizer.state.norm.exp_avg",
        "model.layers.0.input_layernorm.lora_A.weight",
        "normalizer.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ],
)
def test_look_alikes_are_not_norms(name: str) -> None:
    anatomy = names.describe(checkpoint({**LLAMA, name: (D,)}))
    assert len(anatomy.sites) == 5


@pytest.mark.parametrize(
    ("shapes", "others"),
    [
        ({**norm("conv.bn1"), "conv.bn1.running_mean": (D,), "conv.bn1.running_var": (D,)}, {"BatchNorm": 1}),
        ({**norm("conv.norm"), "conv.norm.running_mean": (D,)}, {"BatchNorm": 1}),
        (norm("wav2vec2.feature_extractor.conv_layers.0.layer_norm", 16), {"GroupNorm": 1}),
        (norm("unet.down_blocks.0.resnets.0.norm1", 16), {"GroupNorm": 1}),
        (norm("unet.group_norm", 16), {"GroupNorm": 1}),
    ],
)
def test_other_normalisers_are_counted_apart(shapes: Shapes, others: dict[str, int]) -> None:
    anatomy = names.describe(checkpoint({**LLAMA, **shapes}))
    assert anatomy.others == others
    assert len(anatomy.sites) == 5


def test_a_norm_in_every_convolution_is_a_layer_norm() -> None:
    layers = [f"feature_extractor.conv_layers.{n}.layer_norm" for n in range(2)]
    anatomy = names.describe(checkpoint(LLAMA | norm(layers[0], 16) | norm(layers[1], 16)))
    assert [site(anatomy, name).role for name in layers] == ["other", "other"]


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("model.layers.0.self_attn.q_norm.weight", (4,), "query-key"),
        ("model.layers.0.self_attn.k_layernorm.weight", (D,), "query-key"),
        ("model.layers.0.self_attn.q_norm.weight", (2, 4), "query-key"),
        ("model.layers.0.self_attn.indexer.k_norm.weight", (4,), "other"),
        ("model.layers.0.self_attn.kv_a_layernorm.weight", (4,), "other"),
        ("model.layers.0.linear_attn.norm.weight", (D,), "other"),
        ("model.layers.0.mlp.ffn_layernorm.weight", (F,), "other"),
        ("blocks.0.att.ln_x.weight", (D,), "other"),
        ("model.layers.0.input_layernorm.gamma", (1, 1, D), "stream"),
        ("multi_modal_projector.norm.weight", (D,), "other"),
        ("model.extra_norm.weight", (D + 1,), "other"),
    ],
)
def test_roles(name: str, shape: tuple[int, ...], role: str) -> None:
    base = {k: v for k, v in LLAMA.items() if k != "model.layers.0.input_layernorm.weight"}
    anatomy = names.describe(checkpoint({**base, name: shape}))
    assert site(anatomy, name.rpartition(".")[0]).role == role
    assert anatomy.widths["main"] == D


@pytest.mark.parametrize("letters", ["ab", "av", "va", "xy"])
def test_a_letter_is_no_tower_where_somebody_named_a_network_so(letters: str) -> None:
    shapes: Shapes = {}
    for letter, d in zip(letters, (D, 2 * D), strict=True):
        for n in range(3):
            p = f"{letter}.layers.{n}."
            shapes |= norm(p + "norm1", d) | norm(p + "norm2", d)
            shapes |= {p + "mlp.fc1.weight": (4 * d, d), p + "mlp.fc2.weight": (d, 4 * d)}
    assert {one.component for one in names.describe(checkpoint(shapes)).sites} & {"audio", "vision"} == set()


@pytest.mark.parametrize(("letter", "tower"), [("v", "vision"), ("a", "audio")])
def test_a_letter_is_a_tower_in_the_names_of_llama_cpp(letter: str, tower: str) -> None:
    shapes: Shapes = norm("output_norm")
    for n in range(2):
        shapes |= ggml_block(f"blk.{n}.", "attn_norm", "ffn_norm")
        shapes |= ggml_block(f"{letter}.blk.{n}.", "ln1", "ln2")
    shapes |= norm(f"{letter}.post_ln")
    components = {one.name: one.component for one in gguf("clip", shapes).sites}
    assert components[f"{letter}.post_ln"] == components[f"{letter}.blk.0.ln1"] == tower
    assert components["blk.0.attn_norm"] == "main"


def test_towers() -> None:
    vision = {f"vision_tower.{name}": tuple(2 * n if n == D else n for n in shape) for name, shape in LLAMA.items()}
    text = {f"language_model.{name}": shape for name, shape in LLAMA.items()}
    both = names.describe(checkpoint(vision | text))
    assert dict(both.widths) == {"vision": 2 * D, "text": D}
    assert {s.component for s in both.sites if s.name.startswith("vision")} == {"vision"}
    for one in (vision, text):
        assert set(names.describe(checkpoint(one)).widths) == {"main"}


def test_old_language_models_keep_their_head_outside() -> None:
    vision = {f"vision_tower.{name}": shape for name, shape in LLAMA.items() if "lm_head" not in name}
    text = {f"language_model.{name}": shape for name, shape in LLAMA.items() if "lm_head" not in name}
    anatomy = names.describe(checkpoint({**vision, **text, "lm_head.weight": (V, D)}))
    assert matrix(anatomy, "lm_head.weight").component == "text"
    assert reads(anatomy, "lm_head.weight") == "language_model.model.norm"


def test_a_model_that_stores_no_scale_still_has_its_matrices() -> None:
    shapes = {name: shape for name, shape in LLAMA.items() if "norm" not in name}
    anatomy = names.describe(checkpoint(shapes))
    assert anatomy.sites == ()
    assert anatomy.widths == {"main": D}
    assert {m.role for m in anatomy.matrices} == {"embedding", "reader", "writer", "unembedding"}


INVENTED: Shapes = {"chars.weight": (V, D), "last.weight": (D,), "out.weight": (V, D)} | {
    f"stack.{n}.{name}": shape
    for n in range(2)
    for name, shape in {
        "pre_mix.weight": (D,),
        "q.weight": (D, D),
        "q.bias": (D,),
        "k.weight": (D, D),
        "mix.weight": (D, D),
        "pre_ffn.weight": (D,),
        "up.weight": (F, D),
        "down.weight": (D, F),
    }.items()
}


def test_vectors_of_modules_without_a_matrix_are_norms_under_any_name() -> None:
    anatomy = names.describe(checkpoint(INVENTED))
    assert [s.name for s in anatomy.sites] == [
        "last", "stack.0.pre_mix", "stack.0.pre_ffn", "stack.1.pre_mix", "stack.1.pre_ffn",
    ]  # fmt: skip
    assert {(s.role, s.width) for s in anatomy.sites} == {("stream", D)}
    assert reads(anatomy, "stack.1.up.weight") == "stack.1.pre_ffn"
    assert reads(anatomy, "stack.1.q.weight") == "stack.1.pre_mix"


def test_the_matrix_that_is_left_over_writes_what_attention_found() -> None:
    found = matrix(names.describe(checkpoint(INVENTED)), "stack.0.mix.weight")
    assert (found.role, found.axis, found.layer) == ("writer", 0, 0)
    two = names.describe(checkpoint({**INVENTED, "stack.0.mix2.weight": (D, D)}))
    assert "stack.0.mix.weight" not in {m.tensor.name for m in two.matrices}


@pytest.mark.parametrize("leaf", ["ls1", "layer_scale", "prelu", "act", "gate"])
def test_other_vectors_are_not_norms_under_any_name(leaf: str) -> None:
    anatomy = names.describe(checkpoint({**INVENTED, f"stack.0.{leaf}.weight": (D,)}))
    assert len(anatomy.sites) == 5


@pytest.mark.parametrize("shape", [(1, D), (1, D, 1), (D, 1)])
def test_a_layer_with_one_output_is_not_a_norm_under_any_name(shape: tuple[int, ...]) -> None:
    matrices = {f"conv{i}.weight": (F, D, 3) for i in range(4)}
    assert names.describe(checkpoint({**matrices, "head.weight": shape, "head.bias": (1,)})).sites == ()


def test_vectors_without_a_stream_are_not_norms() -> None:
    shapes: Shapes = {"a.weight": (D,), "b.weight": (D,), "c.weight": (3, 4), "d.weight": (D, 4)}
    assert names.describe(checkpoint(shapes)).sites == ()


def test_a_norm_paired_with_a_convolution_normalises_channels() -> None:
    shapes: Shapes = {"conv1.weight": (16, 1, 5), "conv2.weight": (32, 16, 5), **norm("norm1", 16), **norm("norm2", 32)}
    anatomy = names.describe(checkpoint(shapes))
    assert anatomy.sites == ()
    assert anatomy.others == {"GroupNorm": 2}


def test_quantised_matrices_are_left_out_and_their_norms_kept() -> None:
    q = "model.layers.0.self_attn.q_proj.weight"
    packed = names.describe(checkpoint(LLAMA, dtypes={q: "U32"}))
    scaled = names.describe(checkpoint({**LLAMA, q + "_scale_inv": (1, 2)}))
    for anatomy in (packed, scaled):
        assert len(anatomy.sites) == 5
        assert q not in {m.tensor.name for m in anatomy.matrices}
    assert scaled.notes


def test_the_head_axis_is_never_taken_for_the_residual_axis() -> None:
    """Keys of a cross-attention over a wider encoder: (D, 24) has an axis of length D, the wrong one."""
    name = "model.layers.0.cross_attn.k_proj.weight"
    anatomy = names.describe(checkpoint({**LLAMA, name: (D, 24), "model.layers.0.self_attn.v_proj.weight": (D, 24)}))
    assert not {name, "model.layers.0.self_attn.v_proj.weight"} & {m.tensor.name for m in anatomy.matrices}


@pytest.mark.parametrize(
    ("kind", "config", "metadata", "offset"),
    [
        ("safetensors", {"model_type": "gemma2"}, {}, 1.0),
        ("safetensors", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, {}, 0.0),
        ("safetensors", {"architectures": ["Gemma2ForCausalLM"]}, {}, 1.0),
        ("safetensors", {"model_type": "qwen3_next"}, {}, 1.0),
        ("safetensors", {"model_type": "qwen3_next"}, {"format": "mlx"}, 0.0),
        ("safetensors", {"model_type": "gemma2"}, {"format": "mlx"}, 1.0),
        ("safetensors", None, {}, 0.0),
        ("GGUF", None, {"general.architecture": "gemma2"}, 0.0),
    ],
)
def test_offsets(kind: str, config: dict[str, Any] | None, metadata: dict[str, Any], offset: float) -> None:
    extra: Shapes = {"model.layers.0.linear_attn.norm.weight": (4,)}
    anatomy = names.describe(checkpoint({**LLAMA, **extra}, kind, config, metadata))
    assert site(anatomy, "model.layers.0.input_layernorm").offset == offset
    assert site(anatomy, "model.layers.0.linear_attn.norm").offset == 0.0
    baked = kind == "GGUF" or (config == {"model_type": "qwen3_next"} and bool(metadata))
    assert bool(site(anatomy, "model.norm").why) == (offset == 1.0 or baked)


def test_a_vision_tower_beside_gemma_stores_its_scale_as_it_is() -> None:
    shapes = {f"language_model.{name}": shape for name, shape in LLAMA.items()}
    shapes |= norm("vision_tower.vision_model.encoder.layers.0.layer_norm1", 16)
    anatomy = names.describe(checkpoint(shapes, config={"model_type": "gemma3"}))
    assert {(s.component, s.offset) for s in anatomy.sites} == {("text", 1.0), ("vision", 0.0)}


# --- laws ----------------------------------------------------------------------------------------------------------

PREFIXES = st.sampled_from(
    [
        "model",
        "layers",
        "blk",
        "h",
        "encoder",
        "decoder",
        "visual",
        "v",
        "0",
        "1",
        "17",
        "attn",
        "mlp",
        "experts",
        "attentions",
    ]
)
LEAVES = st.sampled_from(
    [
        "norm",
        "ln_1",
        "input_layernorm",
        "post_attention_layernorm",
        "q_norm",
        "norm2",
        "norm3",
        "layer_norm1",
        "wte",
        "q_proj",
    ]
)
ENDS = st.sampled_from(
    [
        "weight",
        "bias",
        "gamma",
        "kernel",
        "vars.0",
        "running_mean",
        "lora_A",
        "#",
        "",
        "é",
        "layer_norm_weight",
        "c_proj",
    ]
)
WORDS = (
    PREFIXES | LEAVES | ENDS | st.sampled_from(["general", "weight_scale_inv", "lm_head", "crossattention", "o_proj"])
)
NAMES = st.lists(WORDS, max_size=8).map(".".join) | st.text(max_size=30)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 24]), max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.dictionaries(NAMES, SHAPES, max_size=30),
    kind=st.sampled_from(["safetensors", "GGUF", "Keras", "arrays"]),
    config=st.none()
    | st.dictionaries(st.sampled_from(["model_type", "pre_norm", "architectures"]), st.none() | st.text()),
)
def test_any_names_and_shapes_give_a_consistent_anatomy(
    shapes: Shapes, kind: str, config: dict[str, Any] | None
) -> None:
    anatomy = names.describe(checkpoint(shapes, kind, config, {"general.architecture": "llama"}))
    for found in anatomy.matrices:
        assert found.tensor.shape[found.axis] == anatomy.widths[found.component]
        assert found.site is None or anatomy.sites[found.site].role in ("stream", "other")
    for place in anatomy.sites:
        assert place.scale is not None or place.shift is not None
        assert place.width is not None
        assert place.width > 0


def test_each_pattern_of_names_is_analysed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    analyse = paths._analyse

    def counted(pattern: str) -> paths.Path:
        calls.append(pattern)
        return analyse(pattern)

    monkeypatch.setattr(paths, "_analyse", counted)
    shapes: Shapes = {"model.layers.0.input_layernorm.weight": (D,)}
    shapes |= {f"model.layers.{n // 50}.mlp.experts.{n % 50}.up_proj.weight": (F, D) for n in range(1000)}
    anatomy = names.describe(checkpoint(shapes))
    assert len(calls) == 2
    assert len(anatomy.matrices) == 1000


def test_a_file_of_nobodys_convention_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_MOST_PATTERNS", 10)
    shapes = {f"a{'.b' * n}.norm.weight": (D,) for n in range(50)}
    assert len(names.describe(checkpoint(shapes)).sites) == 10
    assert names.describe(checkpoint({"x" * 10_000 + ".norm.weight": (D,)})).sites == ()


# --- real models ----------------------------------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize(("model", "norms", "readers", "writers"), [("minilm", 13, 24, 12), ("smollm2", 61, 150, 60)])
def test_real_models(
    real_model: Callable[[str], pathlib.Path], model: str, norms: int, readers: int, writers: int
) -> None:
    source = FileSource(real_model(model))
    anatomy = names.describe(read_checkpoint(source, Limits()))
    roles = [m.role for m in anatomy.matrices]
    assert (len(anatomy.sites), roles.count("reader"), roles.count("writer")) == (norms, readers, writers)
    assert all(m.site is not None for m in anatomy.matrices if m.role == "reader")
    source.close()


def test_layer_0_is_a_block_where_no_number_stands_before_it() -> None:
    found = names.describe(checkpoint({"transformer/layer_3/pre_norm/scale": (D,), "final_norm/scale": (D,)}))
    assert [one.layer for one in found.sites] == [3, None]
    inside = names.describe(checkpoint({"layers.2.ff.layer_1.norm.weight": (D,), "norm.weight": (D,)}))
    assert [one.layer for one in inside.sites] == [2, None]


def _bare(into: tuple[int, int], out: tuple[int, int], **more: tuple[int, ...]) -> Shapes:
    blocks = {
        f"layers.{i}.{name}": shape
        for i in range(3)
        for name, shape in {"norm.weight": (D,), "mlp.one.weight": into, "mlp.two.weight": out}.items()
    }
    return {**blocks, "norm.weight": (D,), **more}


@pytest.mark.parametrize(("into", "out"), [((2 * F, D), (D, F)), ((D, 2 * F), (F, D))])
def test_a_way_in_twice_as_long_as_the_way_out_holds_a_gate(into: tuple[int, int], out: tuple[int, int]) -> None:
    assert "gated-mlp" in names.describe(checkpoint(_bare(into, out))).hints["main"]


@pytest.mark.parametrize(("into", "out"), [((F, D), (D, F)), ((3 * D, D), (D, D)), ((2 * D, D), (F, D))])
def test_other_pairs_of_matrices_hold_none(into: tuple[int, int], out: tuple[int, int]) -> None:
    assert "gated-mlp" not in names.describe(checkpoint(_bare(into, out))).hints["main"]


@pytest.mark.parametrize(
    "name", ["wpe.weight", "pos_emb.emb.weight", "pos_embed", "embeddings.position_embeddings.weight"]
)
def test_learned_positions_are_noted_where_norms_have_no_shift(name: str) -> None:
    shapes = _bare((F, D), (D, F)) | {"wte.weight": (V, D)}
    assert "positions" in names.describe(checkpoint(shapes | {name: (9, D)})).hints["main"]
    assert "positions" not in names.describe(checkpoint(shapes)).hints["main"]


def test_stages_of_different_widths_are_noted_where_norms_have_no_shift() -> None:
    def stages(*widths: int) -> Shapes:
        return {
            name: shape
            for stage, width in enumerate(widths)
            for block in range(2)
            for name, shape in (
                (f"stages.{stage}.blocks.{block}.norm1.weight", (width,)),
                (f"stages.{stage}.blocks.{block}.mlp.fc1.weight", (4 * width, width)),
            )
        }

    assert "staged" in names.describe(checkpoint(stages(D, 2 * D))).hints["main"]
    assert "staged" not in names.describe(checkpoint(stages(D, D))).hints["main"]


def test_a_norm_for_every_head_is_one_of_queries_and_keys() -> None:
    heads = {f"layers.{i}.attn.k_layernorm.norms.{head}.weight": (3,) for i in range(2) for head in range(9)}
    shapes = heads | {f"layers.{i}.input_layernorm.weight": (D,) for i in range(2)} | {"norm.weight": (D,)}
    found = names.describe(checkpoint(shapes))
    assert found.widths == {"main": D}
    assert {one.role for one in found.sites if "norms" in one.name} == {"query-key"}


def test_numbered_vectors_at_the_doors_of_a_residual_convolution_are_group_norms() -> None:
    shapes = norm("input_blocks.1.0.in_layers.0") | {"input_blocks.1.0.in_layers.2.weight": (D, D, 3, 3)}
    shapes |= norm("input_blocks.1.1.transformer_blocks.0.norm1") | {"x.weight": (D, D)}
    found = names.describe(checkpoint(shapes))
    assert found.others == {"GroupNorm": 1}
    assert [one.name for one in found.sites] == ["input_blocks.1.1.transformer_blocks.0.norm1"]


def test_words_that_only_underscores_part_may_be_of_one_module_or_of_two() -> None:
    """TimesFM's ``mlp.layer_norm``, flat: no renaming may turn a norm inside of a part into one of the stream."""
    shapes: Shapes = {}
    for n in range(3):
        shapes |= {f"layers.{n}.input_layernorm.weight": (D,)} | norm(f"layers.{n}.mlp.layer_norm", D)
        shapes |= {f"layers.{n}.mlp.up_proj.weight": (F, D), f"layers.{n}.mlp.down_proj.weight": (D, F)}
        shapes |= {f"layers.{n}.self_attn.{word}_proj.weight": (D, D) for word in "qkvo"}
    for spelled in (shapes, {name.replace(".", "_"): shape for name, shape in shapes.items()}):
        roles = [(site.shift is not None, site.role) for site in names.describe(checkpoint(spelled)).sites]
        assert roles == [(False, "stream"), (True, "other")] * 3


def test_blocks_that_are_modulated_and_store_no_norm_leave_those_of_others_outside() -> None:
    refiner = norm("refiner.blocks.0.norm1", D) | {"refiner.blocks.0.qkv.weight": (3 * D, D)}
    blocks: Shapes = {}
    for n in range(2):
        blocks |= {
            f"double_blocks.{n}.img_mod.linear.weight": (6 * D, D),
            f"double_blocks.{n}.img_attn_qkv.weight": (3 * D, D),
        }
        blocks |= {f"double_blocks.{n}.img_attn_q_norm.weight": (4,), f"double_blocks.{n}.img_attn_k_norm.weight": (4,)}
    found = names.describe(checkpoint(refiner | blocks))
    assert found.hints == {"main": ("outside",)}
    assert [site.role for site in found.sites] == ["stream", *["query-key"] * 4]
    few = names.describe(checkpoint(refiner | {"double_blocks.0.img_mod.linear.weight": (6 * D, D)}))
    assert found.hints != few.hints


def test_alpha_is_a_scale_beside_a_bias_and_an_affine_map_beside_beta() -> None:
    for shift, n in (("bias", 1), ("beta", 0)):
        shapes = {"layers.0.norm.alpha": (D,), f"layers.0.norm.{shift}": (D,), "layers.0.mlp.up_proj.weight": (F, D)}
        assert len(names.describe(checkpoint(shapes)).sites) == n


@pytest.mark.parametrize("leaf", ["qkv_net", "conv_q", "w_k", "att_qkv_proj", "query_layer"])
def test_words_of_queries_keys_and_values_read_for_attention(leaf: str) -> None:
    shapes = norm("layers.0.attn_norm", D) | {f"layers.0.attn.{leaf}.weight": (3 * D, D)}
    assert [(m.role, m.site) for m in names.describe(checkpoint(shapes)).matrices] == [("reader", 0)]


def test_a_mixer_between_two_matrices_is_no_gated_mlp() -> None:
    """xLSTM's LayerNorm has no shift, and its ways in and out are those of a gated MLP."""
    mixer = {
        "blocks.0.norm.weight": (D,),
        "blocks.0.cell.proj_up.weight": (4 * D, D),
        "blocks.0.cell.out.weight": (D, 2 * D),
    }
    assert "gated-mlp" in names.describe(checkpoint(mixer)).hints["main"]
    for inside in ({"blocks.0.cell.q_proj.weight": (4, 4, 4)}, {"blocks.0.cell.conv1d.conv.weight": (2 * D, 1, 4)}):
        assert "gated-mlp" not in names.describe(checkpoint(mixer | inside)).hints["main"]


def test_pointwise_convolutions_beside_attention_are_its_mlp() -> None:
    """Informer's ``norm2`` stands beside a ``conv2`` of as many channels, and is a LayerNorm."""
    layer = {"layers.0.conv1.weight": (F, D, 1), "layers.0.conv2.weight": (D, F, 1)} | norm("layers.0.norm2", D)
    attention: Shapes = {f"layers.0.attention.{word}_projection.weight": (D, D) for word in ("query", "key", "value")}
    assert names.describe(checkpoint(layer)).others == {"GroupNorm": 1}
    assert len(names.describe(checkpoint(layer | attention)).sites) == 1


def test_a_group_norm_always_has_a_shift() -> None:
    """Autoencoders for video have RMSNorm where others have GroupNorm: `norm1.gamma` beside `conv1`."""
    shapes = {"block.norm1.gamma": (D, 1, 1), "block.conv1.weight": (D, D, 3, 3)}
    assert "GroupNorm" not in (names.describe(checkpoint(shapes)).others or {})
