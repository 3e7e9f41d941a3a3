"""Untrained networks of real transformers classes: two blocks, and the real width where one forward pass is cheap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from .activations import Norm

VOCABULARY = 2000
LENGTH = 128
LAYERS = 2
HEAD = 64  # real width of a head in most of these families


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        name: as people call it.
        truth: the norm of its residual stream, also asked of the module by the benchmark.
        build: makes it at a given width.
        width: the width used.
        published: whether a published model has that width; otherwise it is reduced.
        norm: path of the final norm.
        modality: ``language``, ``vision`` or ``audio``.
    """

    name: str
    truth: Norm
    build: Callable[[int], Any]
    width: int
    published: bool
    norm: str
    modality: str = "language"


def _causal(model: str, config: str, **extra: Any) -> Callable[[int], Any]:
    """A decoder whose configuration has the usual names."""

    def build(width: int) -> Any:
        settings = {
            "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 2 * width,
            "num_hidden_layers": LAYERS, "num_attention_heads": width // HEAD, "max_position_embeddings": LENGTH,
            "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, **extra,
        }  # fmt: skip
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


def _shared(model: str, config: str) -> Callable[[int], Any]:
    """As above, with one head of keys and values."""
    return _causal(model, config, num_key_value_heads=1)


def _grouped(model: str, config: str) -> Callable[[int], Any]:
    """As above, and heads of fixed width."""
    return _causal(model, config, num_key_value_heads=1, head_dim=HEAD)


def _gpt2(width: int) -> Any:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=width, n_layer=LAYERS, n_head=width // HEAD, n_inner=2 * width
    )
    return transformers.GPT2Model(config)


def _opt(width: int) -> Any:
    config = transformers.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=width, ffn_dim=2 * width, num_hidden_layers=LAYERS,
        num_attention_heads=width // HEAD, max_position_embeddings=LENGTH, word_embed_proj_dim=width,
    )  # fmt: skip
    return transformers.OPTModel(config)


def _bloom(width: int) -> Any:
    return transformers.BloomModel(
        transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=width, n_layer=LAYERS, n_head=width // HEAD)
    )


def _falcon(width: int) -> Any:
    config = transformers.FalconConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=width // HEAD
    )
    return transformers.FalconModel(config)


def _mpt(width: int) -> Any:
    config = transformers.MptConfig(
        vocab_size=VOCABULARY, d_model=width, n_layers=LAYERS, n_heads=width // HEAD, expansion_ratio=2,
        max_seq_len=LENGTH,
    )  # fmt: skip
    return transformers.MptModel(config)


def _t5(width: int) -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=width, d_kv=HEAD, d_ff=2 * width, num_layers=LAYERS, num_heads=width // HEAD
    )
    return transformers.T5EncoderModel(config)


def _image(model: str, config: str, **extra: Any) -> Callable[[int], Any]:
    """A vision encoder: 128 x 128 images in patches of 16."""

    def build(width: int) -> Any:
        settings = {
            "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": LAYERS,
            "num_attention_heads": width // HEAD, "image_size": 128, "patch_size": 16, **extra,
        }  # fmt: skip
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


def _whisper(width: int) -> Any:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY, d_model=width, encoder_layers=LAYERS, encoder_attention_heads=width // HEAD,
        encoder_ffn_dim=2 * width, max_source_positions=LENGTH, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    return WhisperEncoder(config)


NETWORKS: tuple[Network, ...] = (
    Network("GPT-2", "LayerNorm", _gpt2, 768, True, "ln_f"),
    Network("GPT-NeoX (Pythia)", "LayerNorm", _causal("GPTNeoXModel", "GPTNeoXConfig"), 768, True, "final_layer_norm"),
    Network("OPT", "LayerNorm", _opt, 768, True, "decoder.final_layer_norm"),
    Network("BLOOM", "LayerNorm", _bloom, 512, False, "ln_f"),
    Network("Phi", "LayerNorm", _causal("PhiModel", "PhiConfig"), 512, False, "final_layernorm"),
    Network("Falcon", "LayerNorm", _falcon, 512, False, "ln_f"),
    Network("StableLM", "LayerNorm", _shared("StableLmModel", "StableLmConfig"), 512, False, "norm"),
    Network("MPT", "LayerNorm", _mpt, 512, False, "norm_f"),
    Network("Cohere", "LayerNorm", _causal("CohereModel", "CohereConfig"), 512, False, "norm"),
    Network("Nemotron (1 + w)", "LayerNorm", _shared("NemotronModel", "NemotronConfig"), 512, False, "norm"),
    Network("StarCoder2", "LayerNorm", _shared("Starcoder2Model", "Starcoder2Config"), 512, False, "norm"),
    Network(
        "BERT (post-norm)", "LayerNorm", _causal("BertModel", "BertConfig"), 768, True,
        f"encoder.layer.{LAYERS - 1}.output.LayerNorm",
    ),
    Network("ViT", "LayerNorm", _image("ViTModel", "ViTConfig"), 768, True, "layernorm", "vision"),
    Network(
        "DINOv2", "LayerNorm", _image("Dinov2Model", "Dinov2Config", mlp_ratio=2), 384, True, "layernorm", "vision"
    ),
    Network(
        "SigLIP vision", "LayerNorm", _image("SiglipVisionModel", "SiglipVisionConfig"), 768, True,
        "post_layernorm", "vision",
    ),
    Network("Whisper encoder", "LayerNorm", _whisper, 384, True, "layer_norm", "audio"),
    Network("Llama (SmolLM2)", "RMSNorm", _grouped("LlamaModel", "LlamaConfig"), 576, True, "norm"),
    Network("Mistral", "RMSNorm", _grouped("MistralModel", "MistralConfig"), 512, False, "norm"),
    Network("Qwen2", "RMSNorm", _grouped("Qwen2Model", "Qwen2Config"), 896, True, "norm"),
    Network("Qwen3 (q/k norm)", "RMSNorm", _grouped("Qwen3Model", "Qwen3Config"), 512, False, "norm"),
    Network("Gemma (1 + w)", "RMSNorm", _grouped("GemmaModel", "GemmaConfig"), 512, False, "norm"),
    Network("Gemma 3 (1 + w)", "RMSNorm", _grouped("Gemma3TextModel", "Gemma3TextConfig"), 640, True, "norm"),
    Network("OLMo 2", "RMSNorm", _causal("Olmo2Model", "Olmo2Config"), 512, False, "norm"),
    Network("Phi-3", "RMSNorm", _causal("Phi3Model", "Phi3Config"), 512, False, "norm"),
    Network("T5 encoder", "RMSNorm", _t5, 512, True, "encoder.final_layer_norm"),
    Network(
        "AIMv2 vision", "RMSNorm", _image("Aimv2VisionModel", "Aimv2VisionConfig"), 512, False, "rms_norm", "vision"
    ),
)  # fmt: skip


def random_inputs(network: Network, rows: int, generator: torch.Generator) -> dict[str, Any]:
    """Return at least `rows` tokens of uniform ids, Gaussian images or a Gaussian spectrogram, in float64."""
    if network.modality == "language":
        ids = torch.randint(1, VOCABULARY, (-(-rows // LENGTH), LENGTH), generator=generator)
        return {"input_ids": ids}
    if network.modality == "audio":  # the encoder halves the frames
        frames = (-(-rows // LENGTH), 80, 2 * LENGTH)
        return {"input_features": torch.randn(frames, generator=generator, dtype=torch.float64)}
    pixels = (-(-rows // 64), 3, 128, 128)  # 64 patches each, and a class token in some
    return {"pixel_values": torch.randn(pixels, generator=generator, dtype=torch.float64)}
