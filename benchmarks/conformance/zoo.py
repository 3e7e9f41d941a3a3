"""Networks that are no transformers, or hardly: names and shapes as their libraries write them, random weights.

Truth ``undetermined`` marks what has no label of its own, as a U-Net whose stream is GroupNorm's and whose attention
has LayerNorm: there every answer counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normsniff import sniff
from normsniff.record import EvidenceKind

from .report import Answer

Shapes = dict[str, tuple[int, ...]]
_VARIANTS: Mapping[str, tuple[EvidenceKind, ...]] = {
    "all evidence": ("declared", "layout", "kernel"),
    "kernel alone": ("kernel",),
}


@dataclass(frozen=True)
class Network:
    """A network, and the norm of its stream."""

    name: str
    truth: str
    shapes: Shapes
    group: str = "no transformer"
    variant: str = ""

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Draw weights; scales around 1, statistics positive, the rest around 0."""
        generator = np.random.default_rng(0)
        return {name: _draw(generator, name, shape) for name, shape in self.shapes.items()}


def _draw(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values = generator.normal(0.0, 0.05, shape)
    positive = len(shape) == 1 and name.endswith(("weight", "gamma", "running_var", "scale", "weight_g"))
    return (values + 1.0 if positive else values).astype(np.float32)


def answers(only: str | None = None) -> list[Answer]:
    """Judge every network with all evidence, and from its parameters alone."""
    found = []
    for network in networks():
        if only not in (None, network.name):
            continue
        weights = network.weights()
        for variant, kinds in _VARIANTS.items():
            record = sniff(weights, evidence=kinds)
            reasons = tuple(f"{e.component}/{e.kind}: {e.reason}" for e in record.evidence)
            case = Network(network.name, network.truth, {}, variant=variant)
            found.append(Answer(case, "", network.truth, record.label, record.confidence, reasons))
    return found


def _norm(name: str, width: int, *leaves: str) -> Shapes:
    return {f"{name}.{leaf}": (width,) for leaf in leaves or ("weight", "bias")}


def _batch_norm(name: str, width: int) -> Shapes:
    return _norm(name, width, "weight", "bias", "running_mean", "running_var")


def _conv(name: str, inner: int, outer: int, kernel: int = 3, *, bias: bool = False, axes: int = 2) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outer, inner, *[kernel] * axes)}
    return shapes | ({f"{name}.bias": (outer,)} if bias else {})


def _linear(name: str, inner: int, outer: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outer, inner)} | ({f"{name}.bias": (outer,)} if bias else {})


def _blocks(depth: int, block: str, shapes: Shapes) -> Shapes:
    return {f"{block.format(n)}.{name}": shape for n in range(depth) for name, shape in shapes.items()}


def _attention(width: int, *names: str) -> Shapes:
    return {key: shape for name in names for key, shape in _linear(name, width, width).items()}


def networks(d: int = 64) -> Iterator[Network]:
    """Yield every network."""
    head = _linear("fc", d, 10)
    residual = _conv("conv1", d, d) | _conv("conv2", d, d)
    yield Network(
        "ResNet",
        "none",
        _conv("conv1", 3, d, 7)
        | _batch_norm("bn1", d)
        | head
        | _blocks(4, "layer1.{}", residual | _batch_norm("bn1", d) | _batch_norm("bn2", d)),
    )
    yield Network(
        "ResNet with GroupNorm",
        "none",
        _conv("conv1", 3, d, 7) | head | _blocks(4, "layer1.{}", residual | _norm("norm1", d) | _norm("norm2", d)),
    )
    yield Network(
        "ResNet with norms called gn",
        "none",
        head | _blocks(4, "layer1.{}", residual | _norm("gn1", d) | _norm("gn2", d)),
    )
    yield Network(
        "IResNet with PReLU", "none", _blocks(4, "layer1.{}", residual | _batch_norm("bn1", d) | {"prelu.weight": (d,)})
    )
    double = _conv("double_conv.0", d, d) | _conv("double_conv.3", d, d)
    yield Network(
        "U-Net with BatchNorm",
        "none",
        _blocks(4, "down{}.maxpool_conv.1", double | _batch_norm("double_conv.1", d) | _batch_norm("double_conv.4", d)),
    )
    yield Network(
        "U-Net with GroupNorm",
        "none",
        _blocks(4, "down{}.maxpool_conv.1", double | _norm("double_conv.1", d) | _norm("double_conv.4", d)),
    )
    resnet = residual | _norm("norm1", d) | _norm("norm2", d) | _linear("time_emb_proj", d, d)
    spatial = _norm("group_norm", d) | _attention(d, "to_q", "to_k", "to_v", "to_out.0")
    yield Network(
        "diffusers UNet2DModel",
        "none",
        _blocks(3, "down_blocks.0.resnets.{}", resnet)
        | _blocks(3, "down_blocks.0.attentions.{}", spatial)
        | _norm("conv_norm_out", d)
        | _conv("conv_out", d, 3),
    )
    cross = _attention(d, "attn1.to_q", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0") | _norm("norm1", d)
    cross |= _norm("norm2", d) | _norm("norm3", d) | _linear("ff.net.0.proj", d, 8 * d) | _linear("ff.net.2", 4 * d, d)
    yield Network(
        "diffusers UNet2DConditionModel",
        "undetermined",
        _blocks(3, "down_blocks.0.resnets.{}", resnet)
        | _blocks(3, "down_blocks.0.attentions.{}.transformer_blocks.0", cross)
        | _blocks(3, "down_blocks.0.attentions.{}", _norm("norm", d)),
    )
    yield Network(
        "CompVis autoencoder",
        "none",
        _blocks(
            3,
            "decoder.up.0.block.{}",
            _conv("conv1", d, d) | _conv("conv2", d, d) | _norm("norm1", d) | _norm("norm2", d),
        )
        | _norm("decoder.norm_out", d),
    )
    yield Network(
        "style transfer with InstanceNorm",
        "none",
        _blocks(
            5, "res{}", _conv("conv1.conv2d", d, d) | _norm("in1", d) | _conv("conv2.conv2d", d, d) | _norm("in2", d)
        ),
    )
    yield Network(
        "spectral norm",
        "none",
        _blocks(4, "main.{}", {"weight_orig": (d, d, 3, 3), "weight_u": (d,), "weight_v": (9 * d,), "bias": (d,)}),
    )
    yield Network(
        "EfficientNet",
        "none",
        _blocks(
            4,
            "blocks.0.{}",
            _conv("conv_pw", d, 4 * d, 1)
            | _batch_norm("bn1", 4 * d)
            | _conv("se.conv_reduce", 4 * d, 8, 1, bias=True)
            | _conv("conv_pwl", 4 * d, d, 1),
        ),
    )
    gates = {"weight_ih_l0": (4 * d, d), "weight_hh_l0": (4 * d, d), "bias_ih_l0": (4 * d,), "bias_hh_l0": (4 * d,)}
    lstm = _blocks(2, "lstm{}", gates)
    embedding: Shapes = {"embedding.weight": (500, d)}
    yield Network("LSTM", "none", embedding | lstm | _linear("decoder", d, 500))
    yield Network(
        "LSTM with LayerNorm",
        "LayerNorm",
        embedding | lstm | _norm("layer_norms.0", d) | _norm("layer_norms.1", d) | _linear("decoder", d, 500),
    )
    yield Network(
        "layer-normalised LSTM cells",
        "LayerNorm",
        embedding
        | _blocks(
            2,
            "cells.{}",
            {"weight_ih": (4 * d, d), "weight_hh": (4 * d, d)}
            | _norm("ln_ih", 4 * d)
            | _norm("ln_hh", 4 * d)
            | _norm("ln_ho", d),
        ),
    )
    yield Network(
        "GCN with BatchNorm",
        "none",
        _blocks(3, "convs.{}", {"lin.weight": (d, d), "bias": (d,)}) | _blocks(3, "bns.{}", _batch_norm("module", d)),
    )
    gat: Shapes = {"att_src": (1, 4, 16), "att_dst": (1, 4, 16), "lin.weight": (d, d), "bias": (d,)}
    yield Network(
        "GAT with LayerNorm",
        "LayerNorm",
        _blocks(3, "convs.{}", gat) | _blocks(3, "norms.{}", {"weight": (d,), "bias": (d,)}),
    )
    yield Network(
        "GIN with GraphNorm",
        "none",
        _blocks(3, "convs.{}.nn", _linear("lins.0", d, d))
        | _blocks(3, "norms.{}", {"weight": (d,), "bias": (d,), "mean_scale": (d,)}),
    )
    vocoder = _blocks(4, "dec.ups.{}", {"weight_g": (d, 1, 1), "weight_v": (d, d // 2, 16), "bias": (d // 2,)})
    text = {
        f"attn_layers.{{}}.conv_{leaf}.{end}": shape
        for leaf in "qkvo"
        for end, shape in (("weight", (d, d, 1)), ("bias", (d,)))
    }
    text |= {"ffn_layers.{}.conv_1.weight": (4 * d, d, 3), "ffn_layers.{}.conv_2.weight": (d, 4 * d, 3)}
    text |= {f"norm_layers_{side}.{{}}.{leaf}": (d,) for side in (1, 2) for leaf in ("gamma", "beta")}
    yield Network(
        "VITS",
        "LayerNorm",
        vocoder
        | {"enc_p.emb.weight": (100, d)}
        | {f"enc_p.encoder.{name.format(n)}": shape for n in range(3) for name, shape in text.items()},
    )
    yield Network(
        "HiFi-GAN",
        "none",
        vocoder | _blocks(6, "dec.resblocks.{}.convs1.0", {"weight_g": (d, 1, 1), "weight_v": (d, d, 3), "bias": (d,)}),
    )
    extractor = _norm("feature_extractor.conv_layers.0.layer_norm", d) | _blocks(
        5, "feature_extractor.conv_layers.{}", _conv("conv", d, d, 3, axes=1)
    )
    yield Network("wav2vec2, its convolutions only", "none", extractor)
    block = _attention(d, "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj")
    block |= _norm("layer_norm", d) | _norm("final_layer_norm", d)
    block |= _linear("feed_forward.intermediate_dense", d, 4 * d) | _linear("feed_forward.output_dense", 4 * d, d)
    yield Network(
        "wav2vec2", "LayerNorm", extractor | _blocks(3, "encoder.layers.{}", block) | _norm("encoder.layer_norm", d)
    )
    bottleneck = _attention(d, "attention.self.query", "attention.self.key", "attention.output.dense")
    bottleneck |= _norm("bottleneck.input.LayerNorm", d) | _norm("attention.output.LayerNorm", d)
    bottleneck |= _norm("output.bottleneck.LayerNorm", d) | _linear("intermediate.dense", d, 4 * d)
    yield Network("MobileBERT", "none", _blocks(3, "encoder.layer.{}", bottleneck))
    yield Network("word vectors", "none", {"wv.vectors": (2000, d)})
    yield Network("sentence vectors, static", "none", {"embedding.weight": (2000, d)})
    yield Network("linear classifier", "none", {"coef_": (10, d), "intercept_": (10,)})
    yield Network(
        "radiance field",
        "none",
        _blocks(8, "pts_linears.{}", {"weight": (d, d), "bias": (d,)}) | _linear("rgb_linear", d, 3),
    )
    yield Network(
        "autoencoder with BatchNorm",
        "none",
        _linear("encoder.0", 200, d) | _batch_norm("encoder.1", d) | _linear("decoder.0", d, 200),
    )
    yield Network(
        "ConvNeXt",
        "LayerNorm",
        _norm("stem.1", d)
        | _blocks(
            4,
            "stages.0.blocks.{}",
            {"gamma": (d,)}
            | _conv("conv_dw", 1, d, 7, bias=True)
            | _norm("norm", d)
            | _linear("mlp.fc1", d, 4 * d)
            | _linear("mlp.fc2", 4 * d, d),
        )
        | _norm("head.norm", d),
    )
    window = _linear("attn.qkv", d, 3 * d) | _linear("attn.proj", d, d) | _norm("norm1", d) | _norm("norm2", d)
    window |= _linear("mlp.fc1", d, 4 * d) | _linear("mlp.fc2", 4 * d, d)
    yield Network(
        "Swin",
        "LayerNorm",
        _blocks(2, "layers.0.blocks.{}", window | {"attn.relative_position_bias_table": (169, 2)})
        | _norm("patch_embed.norm", d)
        | _norm("norm", d),
    )
    yield Network(
        "timm ViT",
        "LayerNorm",
        _blocks(3, "blocks.{}", window)
        | _norm("norm", d)
        | _conv("patch_embed.proj", 3, d, 16, bias=True)
        | _linear("head", d, 10),
    )
    yield Network(
        "MLP-Mixer",
        "LayerNorm",
        _blocks(
            3,
            "blocks.{}",
            _norm("norm1", d)
            | _norm("norm2", d)
            | _linear("mlp_tokens.fc1", 49, 96)
            | _linear("mlp_tokens.fc2", 96, 49)
            | _linear("mlp_channels.fc1", d, 4 * d)
            | _linear("mlp_channels.fc2", 4 * d, d),
        )
        | _norm("norm", d),
    )
    affine = _norm("norm1", d, "alpha", "beta") | _norm("norm2", d, "alpha", "beta") | _linear("linear_tokens", 49, 49)
    affine |= _linear("mlp_channels.fc1", d, 4 * d) | _linear("mlp_channels.fc2", 4 * d, d) | {"ls1": (d,), "ls2": (d,)}
    yield Network("ResMLP, affine maps called norms", "none", _blocks(4, "blocks.{}", affine))
    mamba: Shapes = {"mixer.A_log": (2 * d, 16), "mixer.D": (2 * d,), "mixer.in_proj.weight": (4 * d, d)}
    mamba |= {"mixer.out_proj.weight": (d, 2 * d), "mixer.conv1d.weight": (2 * d, 1, 4), "norm.weight": (d,)}
    yield Network(
        "Mamba",
        "RMSNorm",
        {"backbone.embedding.weight": (500, d), "backbone.norm_f.weight": (d,)}
        | _blocks(4, "backbone.layers.{}", mamba),
    )
    rwkv = (
        _norm("ln1", d) | _norm("ln2", d) | _norm("att.ln_x", d) | _attention(d, "att.key", "att.value", "att.output")
    )
    rwkv |= _linear("ffn.key", d, 4 * d, bias=False) | _linear("ffn.value", 4 * d, d, bias=False)
    yield Network("RWKV", "LayerNorm", {"emb.weight": (500, d)} | _blocks(4, "blocks.{}", rwkv) | _norm("ln_out", d))
    flux = _attention(d, "attn.to_q", "attn.to_k", "attn.to_v", "proj_out") | _linear("norm.linear", d, 3 * d)
    yield Network(
        "Flux",
        "undetermined",
        _blocks(4, "single_transformer_blocks.{}", flux | {"attn.norm_q.weight": (16,), "attn.norm_k.weight": (16,)}),
    )
    tanh = {name: shape for name, shape in window.items() if "norm" not in name}
    tanh |= {f"norm{n}.{leaf}": (d,) for n in (1, 2) for leaf in ("weight", "bias")} | {
        "norm1.alpha": (1,),
        "norm2.alpha": (1,),
    }
    yield Network("ViT with dynamic tanh", "undetermined", _blocks(3, "blocks.{}", tanh))
