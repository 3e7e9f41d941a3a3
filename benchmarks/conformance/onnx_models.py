"""Tiny models of transformers for the ONNX matrix; how many norms run is counted while they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .onnx_networks import LENGTH, Network, trained
from .truth import Truth

_COMMON = {
    "vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "attn_implementation": "eager",
}  # fmt: skip
_IMAGE = {"image_size": 16, "patch_size": 4, "num_channels": 3}
# class, truth, what its configuration has beside the common keys. Truth: transformers' sources, checked by running
# every norm on shifted input (transformers_norms.json).
MODELS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "bert": ("BertModel", "LayerNorm", {}),
    "distilbert": (
        "DistilBertModel", "LayerNorm", {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 2},
    ),
    "deberta-v2": ("DebertaV2Model", "LayerNorm", {}),
    "modernbert": ("ModernBertModel", "LayerNorm", {"reference_compile": False}),
    "gpt2": ("GPT2LMHeadModel", "LayerNorm", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}),
    "gpt_neox": ("GPTNeoXForCausalLM", "LayerNorm", {}),
    "opt": ("OPTForCausalLM", "LayerNorm", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi": ("PhiForCausalLM", "LayerNorm", {}),
    "cohere": ("CohereForCausalLM", "LayerNorm", {}),
    "falcon": ("FalconForCausalLM", "LayerNorm", {}),
    "bloom": ("BloomForCausalLM", "LayerNorm", {"n_head": 4, "n_layer": 2}),
    "stablelm": ("StableLmForCausalLM", "LayerNorm", {"num_key_value_heads": 4}),
    "starcoder2": ("Starcoder2ForCausalLM", "LayerNorm", {"num_key_value_heads": 2}),
    "olmo": ("OlmoForCausalLM", "LayerNorm", {}),
    "nemotron": ("NemotronForCausalLM", "LayerNorm", {"num_key_value_heads": 2, "head_dim": 8}),
    "llama": ("LlamaForCausalLM", "RMSNorm", {"num_key_value_heads": 2}),
    "mistral": ("MistralForCausalLM", "RMSNorm", {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2ForCausalLM", "RMSNorm", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3ForCausalLM", "RMSNorm", {"num_key_value_heads": 2, "head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "RMSNorm", {"num_key_value_heads": 2, "head_dim": 8}),
    "gemma3_text": ("Gemma3ForCausalLM", "RMSNorm", {"num_key_value_heads": 2, "head_dim": 8}),
    "olmo2": ("Olmo2ForCausalLM", "RMSNorm", {}),
    "t5": (
        "T5EncoderModel", "RMSNorm", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    ),
    "mamba": ("MambaForCausalLM", "RMSNorm", {"state_size": 4}),
    "vit": ("ViTModel", "LayerNorm", {**_IMAGE, "add_pooling_layer": False}),
    "clip_vision_model": ("CLIPVisionModel", "LayerNorm", _IMAGE),
    "dinov2": ("Dinov2Model", "LayerNorm", {**_IMAGE, "mlp_ratio": 2}),
    "convnext": ("ConvNextModel", "LayerNorm", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}),
    "swin": ("SwinModel", "LayerNorm", {**_IMAGE, "image_size": 32, "embed_dim": 16, "depths": [1, 1],
                                        "num_heads": [2, 4], "window_size": 4}),
    "resnet": ("ResNetModel", "none", {"depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 16}),
    "mobilebert": ("MobileBertModel", "none", {"embedding_size": 32, "intra_bottleneck_size": 32}),
    "mobilebert, layer_norm": (
        "MobileBertModel", "LayerNorm",
        {"embedding_size": 32, "intra_bottleneck_size": 32, "normalization_type": "layer_norm"},
    ),
    "wav2vec2": (
        "Wav2Vec2Model", "LayerNorm",
        {"conv_dim": [16, 16], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_conv_pos_embeddings": 8,
         "num_conv_pos_embedding_groups": 4},
    ),
}  # fmt: skip
_OWN_MASK = (
    "FalconForCausalLM",
    "BloomForCausalLM",
    "OPTForCausalLM",
    "MambaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
)
LEGACY = ("bert", "gpt2", "llama", "t5", "vit", "qwen3", "opt", "olmo", "mobilebert")  # through TorchScript, too


class _Single(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A model of transformers with one output only, and a mask of four dimensions, which is taken as it is."""

    def __init__(self, model: Any, arguments: Mapping[str, Any], index: int) -> None:
        super().__init__()
        self.model, self.arguments, self.index = model, arguments, index

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, **self.arguments)[self.index]


def models() -> dict[str, Network]:
    """Build every model that this version of transformers has."""
    return {name: _network(name) for name in MODELS}


def _network(name: str) -> Network:
    class_name, label, own = MODELS[name]
    example, arguments = _example(class_name)

    def build() -> nn.Module:
        common = {} if "depths" in own else _COMMON  # a pyramid has widths of its own
        settings = {k: v for k, v in {**common, **own}.items() if k != "add_pooling_layer"}
        config = transformers.CONFIG_MAPPING[name.partition(",")[0]](**settings)
        extra = {k: v for k, v in own.items() if k == "add_pooling_layer"}
        model = getattr(transformers, class_name)(config, **extra)
        pooled = class_name in ("CLIPVisionModel", "ConvNextModel")  # their last norm makes this output
        return _Single(model, arguments, int(pooled))

    return Network(build, (example,), Truth(label, None, 0, 0))


def _example(class_name: str) -> tuple[Tensor, dict[str, Any]]:
    if class_name.startswith(("ViT", "CLIPVision", "Dinov2", "ConvNext", "ResNet", "Swin")):
        size = 16 if class_name.startswith(("ViT", "CLIP", "Dino")) else 32
        return torch.randn(1, 3, size, size), {}
    if class_name.startswith("Wav2Vec2"):
        return torch.randn(1, 400), {}
    ids = torch.arange(LENGTH)[None] + 3
    if "CausalLM" in class_name or "LMHead" in class_name:
        future = torch.full((LENGTH, LENGTH), -1e4).triu(1)  # the TorchScript exporter cannot trace how one is made
        return ids, {"use_cache": False} | ({} if class_name in _OWN_MASK else {"attention_mask": future[None, None]})
    return ids, {}


def _counted(network: Network, model: nn.Module) -> Network:
    """Run a model and count the norms that run, and their scales and shifts, as the truth about its file."""
    calls: Counter[str] = Counter()

    def count(module: nn.Module, *_: Any) -> None:
        parameters = dict(module.named_parameters(recurse=False))
        calls["sites"] += 1
        calls["scales"] += parameters.get("weight") is not None
        calls["shifts"] += parameters.get("bias") is not None

    hooks = [module.register_forward_hook(count) for module in model.modules() if _is_norm(module)]
    with torch.no_grad():
        model(*network.example)
    for hook in hooks:
        hook.remove()
    return replace(network, truth=Truth(network.truth.label, calls["sites"], calls["scales"], calls["shifts"]))


def _is_norm(module: nn.Module) -> bool:
    name = type(module).__name__
    if list(module.children()) or name in ("NoNorm", "GroupNorm") or "Batch" in name:
        return False
    return "RMSNorm" in name or "LayerNorm" in name or "Norm1P" in name


def built(network: Network) -> tuple[nn.Module, Network]:
    """Return a model with random weights, all different, and the network with its truth."""
    torch.manual_seed(0)
    model = trained(network.build())
    return model, (network if network.truth.sites is not None else _counted(network, model))
