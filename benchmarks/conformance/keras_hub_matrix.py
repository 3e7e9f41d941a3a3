"""The KerasHub matrix: tiny backbones alone, and inside a model of the user's; the truth counts their layers.

A backbone's configuration lists hyper-parameters and no layer: classes come from the groups of the weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .keras_networks import keras, quiet, trained

import keras_hub  # isort: skip  # after the choice of a backend

from .truth import Made, Truth

_COMMON = {"vocabulary_size": 80, "num_layers": 2, "hidden_dim": 32, "intermediate_dim": 64}
_HEADS = {"num_heads": 4}
_GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 8}
# class, truth (keras_hub/src/models), arguments beside the common ones
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "BertBackbone": ("LayerNorm", _HEADS),
    "AlbertBackbone": ("LayerNorm", {**_HEADS, "embedding_dim": 16}),
    "DistilBertBackbone": ("LayerNorm", _HEADS),
    "RobertaBackbone": ("LayerNorm", _HEADS),
    "DebertaV3Backbone": ("LayerNorm", _HEADS),
    "ElectraBackbone": ("LayerNorm", {**_HEADS, "vocab_size": 80, "embedding_dim": 32}),
    "FNetBackbone": ("LayerNorm", {}),
    "GPT2Backbone": ("LayerNorm", _HEADS),
    "GPTNeoXBackbone": ("LayerNorm", _HEADS),
    "OPTBackbone": ("LayerNorm", _HEADS),
    "BloomBackbone": ("LayerNorm", _HEADS),
    "FalconBackbone": ("LayerNorm", {"num_attention_heads": 4}),
    "BartBackbone": ("LayerNorm", _HEADS),
    "WhisperBackbone": ("LayerNorm", {**_HEADS, "max_encoder_sequence_length": 16, "max_decoder_sequence_length": 8}),
    "XLNetBackbone": ("LayerNorm", _HEADS),
    "ESMBackbone": ("LayerNorm", _HEADS),
    "LlamaBackbone": ("RMSNorm", _GROUPED),
    "Llama3Backbone": ("RMSNorm", _GROUPED),
    "MistralBackbone": ("RMSNorm", _GROUPED),
    "MixtralBackbone": ("RMSNorm", {**_GROUPED, "num_experts": 2, "top_k": 1}),
    "Phi3Backbone": ("RMSNorm", _GROUPED),
    "QwenBackbone": ("RMSNorm", _GROUPED),
    "Qwen3Backbone": ("RMSNorm", {**_GROUPED, "head_dim": 8}),
    "QwenMoeBackbone": ("RMSNorm", {**_GROUPED, "num_experts": 2, "top_k": 1, "moe_intermediate_dim": 16,
                                    "shared_expert_intermediate_dim": 16}),
    "SmolLM3Backbone": (
        "RMSNorm",
        {"num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": False, "attention_dropout": 0.0,
         "rope_layer_enabled_list": [True, True], "layer_types": ["full_attention"] * 2, "mlp_bias": False,
         "layer_norm_epsilon": 1e-6, "max_position_embeddings": 16, "rope_theta": 1e4, "partial_rotary_factor": 1.0},
    ),
    "GptOssBackbone": ("RMSNorm", {**_GROUPED, "num_experts": 2, "top_k": 1}),
    "GemmaBackbone": ("RMSNorm", _GEMMA),
    "Gemma3Backbone": ("RMSNorm", {**_GEMMA, "image_size": 16, "vision_encoder": None, "use_query_key_norm": True}),
    "T5Backbone": ("RMSNorm", _HEADS),
    "RoformerV2Backbone": ("RMSNorm", {**_HEADS, "head_size": 8}),
    "ViTBackbone": ("LayerNorm", {**_HEADS, "image_shape": (16, 16, 3), "patch_size": 4, "mlp_dim": 64}),
    "DINOV2Backbone": ("LayerNorm", {**_HEADS, "image_shape": (16, 16, 3), "patch_size": 4}),
}  # fmt: skip


def cases(only: str | None = None) -> Iterator[Made]:
    """Every backbone in every container, or one backbone."""
    for name, (label, own) in MODELS.items():
        if only not in (None, name):
            continue
        keras.backend.clear_session()
        backbone = trained(_build(name, own))
        truth = _truth(label, backbone)
        yield Made(name, "KerasHub .keras", truth, partial(quiet(_saved), backbone, "model.keras"))
        yield Made(name, "KerasHub .weights.h5", truth, partial(quiet(_saved), backbone, "model.weights.h5"))
        outer = _classifier(backbone)
        yield Made(name, "KerasHub in a model, .keras", truth, partial(quiet(_saved), outer, "model.keras"))
        yield Made(name, "KerasHub in a model, .weights.h5", truth, partial(quiet(_saved), outer, "model.weights.h5"))


def _build(name: str, own: Mapping[str, Any]) -> Any:
    backbone = getattr(keras_hub.models, name)
    wanted = inspect.signature(backbone).parameters
    return backbone(**{key: value for key, value in {**_COMMON, **own}.items() if key in wanted or key in own})


def _classifier(backbone: Any) -> Any:
    """A model of the user's around a backbone."""
    outputs = backbone(backbone.input)
    outputs = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    return keras.Model(backbone.input, keras.layers.Dense(3, name="answer")(outputs))


def _truth(label: str, backbone: Any) -> Truth:
    """Count the norm layers and their variables."""
    norms = [layer for layer in backbone._flatten_layers() if "norm" in type(layer).__name__.lower()]
    scales, shifts = (sum(len(layer.weights) > n for layer in norms) for n in (0, 1))
    return Truth(label, len(norms), scales, shifts)


def _saved(model: Any, name: str, directory: Path) -> Path:
    path = directory / name
    (model.save if name.endswith(".keras") else model.save_weights)(path)
    return path
