"""Real transformers classes in small sizes. Each entry builds the model and says what its norms are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import transformers as t

from .networks import CONTEXT

Build = Callable[[int, int, int, int, float], Any]
"""d, layers, hidden width, vocabulary, standard deviation of the initialisation → the untrained model."""


@dataclass(frozen=True)
class Family:
    """A class, its truth, and what it is trained on."""

    build: Build
    truth: str
    objective: str = "causal"
    placement: str = "pre"


def _llama_like(config: str, model: str, **more: Any) -> Build:
    def build(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
        c = getattr(t, config)(
            vocab_size=vocabulary, hidden_size=d, intermediate_size=hidden, num_hidden_layers=layers,
            num_attention_heads=4, max_position_embeddings=CONTEXT, initializer_range=std, pad_token_id=None,
            bos_token_id=0, eos_token_id=0, **{"attn_implementation": "sdpa", **more},
        )  # fmt: skip
        return getattr(t, model)(c)

    return build


def _gpt2(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.GPT2LMHeadModel(
        t.GPT2Config(
            vocab_size=vocabulary, n_positions=CONTEXT, n_embd=d, n_layer=layers, n_head=4, n_inner=hidden,
            initializer_range=std, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def _opt(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.OPTForCausalLM(
        t.OPTConfig(
            vocab_size=vocabulary, hidden_size=d, word_embed_proj_dim=d, ffn_dim=hidden, num_hidden_layers=layers,
            num_attention_heads=4, max_position_embeddings=CONTEXT, init_std=std, pad_token_id=0,
        )
    )  # fmt: skip


def _bloom(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:  # noqa: ARG001
    return t.BloomForCausalLM(
        t.BloomConfig(vocab_size=vocabulary, hidden_size=d, n_layer=layers, n_head=4, initializer_range=std)
    )


def _falcon(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.FalconForCausalLM(
        t.FalconConfig(
            vocab_size=vocabulary, hidden_size=d, num_hidden_layers=layers, num_attention_heads=4,
            ffn_hidden_size=hidden, initializer_range=std, bias=False,
        )
    )  # fmt: skip


def _gptj(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.GPTJForCausalLM(
        t.GPTJConfig(
            vocab_size=vocabulary, n_positions=CONTEXT, n_embd=d, n_layer=layers, n_head=4, n_inner=hidden,
            rotary_dim=8, initializer_range=std,
        )
    )  # fmt: skip


def _bert(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.BertForMaskedLM(
        t.BertConfig(
            vocab_size=vocabulary, hidden_size=d, intermediate_size=hidden, num_hidden_layers=layers,
            num_attention_heads=4, max_position_embeddings=CONTEXT, initializer_range=std,
        )
    )  # fmt: skip


def _distilbert(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.DistilBertForMaskedLM(
        t.DistilBertConfig(
            vocab_size=vocabulary, dim=d, hidden_dim=hidden, n_layers=layers, n_heads=4, initializer_range=std,
            max_position_embeddings=CONTEXT,
        )
    )  # fmt: skip


def _vit(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:  # noqa: ARG001
    return t.ViTForImageClassification(
        t.ViTConfig(
            hidden_size=d, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=4, image_size=16,
            patch_size=4, num_channels=1, num_labels=10, initializer_range=std,
        )
    )  # fmt: skip


def _t5(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=vocabulary, d_model=d, d_ff=hidden, num_layers=layers, num_heads=4, d_kv=d // 4,
            initializer_factor=min(1.0, std / 0.02), decoder_start_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip


def _bart(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.BartForConditionalGeneration(
        t.BartConfig(
            vocab_size=vocabulary, d_model=d, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=hidden,
            decoder_ffn_dim=hidden, encoder_attention_heads=4, decoder_attention_heads=4, init_std=std,
            max_position_embeddings=CONTEXT, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
            forced_eos_token_id=None,
        )
    )  # fmt: skip


def _mamba(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:  # noqa: ARG001
    return t.MambaForCausalLM(
        t.MambaConfig(
            vocab_size=vocabulary, hidden_size=d, num_hidden_layers=layers, state_size=8, initializer_range=std,
            pad_token_id=0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


class _Head(torch.nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A vision tower and a linear classifier on the mean of its patches."""

    def __init__(self, tower: Any, d: int) -> None:
        super().__init__()
        self.vision_model, self.classifier = tower, torch.nn.Linear(d, 10)
        self.config = tower.config

    def forward(self, pixel_values: torch.Tensor) -> Any:
        hidden = self.vision_model(pixel_values).last_hidden_state
        return SimpleNamespace(logits=self.classifier(hidden.reshape(len(pixel_values), -1, hidden.shape[-1]).mean(1)))


def _tower(config: str, model: str, **more: Any) -> Build:
    def build(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:  # noqa: ARG001
        c = getattr(t, config)(
            hidden_size=d, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=4, num_channels=1,
            image_size=16, patch_size=4, initializer_range=std, **more,
        )  # fmt: skip
        return _Head(getattr(t, model)(c), d)

    return build


def _t5gemma(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    side = {
        "vocab_size": vocabulary, "hidden_size": d, "intermediate_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": CONTEXT,
        "initializer_range": std, "sliding_window": CONTEXT, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
        "query_pre_attn_scalar": 16,
    }  # fmt: skip
    return t.T5GemmaForConditionalGeneration(t.T5GemmaConfig(encoder=side, decoder=dict(side), vocab_size=vocabulary))


def _umt5(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.UMT5ForConditionalGeneration(
        t.UMT5Config(
            vocab_size=vocabulary, d_model=d, d_ff=hidden, num_layers=layers, num_heads=4, d_kv=d // 4,
            initializer_factor=min(1.0, std / 0.02), decoder_start_token_id=0, pad_token_id=0,
        )
    )  # fmt: skip


def _sized(config: str, model: str, names: str, **more: Any) -> Build:
    """Build a class whose sizes go by other words: d, layers, hidden width and vocabulary, four heads."""
    d_name, layers_name, hidden_name, vocabulary_name = names.split()

    def build(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
        sizes: dict[str, Any] = {d_name: d, layers_name: layers, "initializer_range": std}
        sizes[hidden_name] = hidden // d if hidden_name.endswith("ratio") else hidden
        if vocabulary_name != "-":
            sizes[vocabulary_name] = vocabulary
        if hidden_name == "hidden_sizes":
            sizes |= {"hidden_sizes": [d], "depths": [layers]}
        c = getattr(t, config)(**sizes, **{k: v(d, layers) if callable(v) else v for k, v in more.items()})
        return getattr(t, model)(c)

    return build


def _gpt_neo(d: int, layers: int, hidden: int, vocabulary: int, std: float) -> Any:
    return t.GPTNeoForCausalLM(
        t.GPTNeoConfig(
            vocab_size=vocabulary, max_position_embeddings=CONTEXT, hidden_size=d, num_layers=layers, num_heads=4,
            attention_types=[[["global"], layers]], intermediate_size=hidden, initializer_range=std, window_size=32,
        )
    )  # fmt: skip


_KV = {"num_key_value_heads": 2}
_FOUR = {"num_key_value_heads": 4}
_SIZES = "hidden_size num_hidden_layers intermediate_size vocab_size"
_MASKED = {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
_GPT = {"n_head": 4, "n_positions": CONTEXT, "rotary_dim": 8, "bos_token_id": 0, "eos_token_id": 0}
_IMAGES = {"image_size": 16, "patch_size": 4, "num_channels": 1, "num_labels": 10}
_STATES = {"mamba_n_heads": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_HALF_ROTARY = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}  # an even number always

FAMILIES: dict[str, Family] = {
    "gpt2": Family(_gpt2, "LayerNorm"),
    "llama": Family(_llama_like("LlamaConfig", "LlamaForCausalLM", **_KV), "RMSNorm"),
    "opt": Family(_opt, "LayerNorm"),
    "qwen2": Family(_llama_like("Qwen2Config", "Qwen2ForCausalLM", **_KV), "RMSNorm"),
    "bert": Family(_bert, "LayerNorm", "masked", "post"),
    "t5": Family(_t5, "RMSNorm", "seq2seq"),
    "gpt_neox": Family(_llama_like("GPTNeoXConfig", "GPTNeoXForCausalLM"), "LayerNorm", placement="parallel"),
    "gemma": Family(_llama_like("GemmaConfig", "GemmaForCausalLM", num_key_value_heads=1, head_dim=16), "RMSNorm"),
    "vit": Family(_vit, "LayerNorm", "vision"),
    "qwen3": Family(_llama_like("Qwen3Config", "Qwen3ForCausalLM", head_dim=16, **_KV), "RMSNorm"),
    "olmo": Family(_llama_like("OlmoConfig", "OlmoForCausalLM", **_FOUR), "LayerNorm"),
    "olmo2": Family(_llama_like("Olmo2Config", "Olmo2ForCausalLM", **_FOUR), "RMSNorm", placement="olmo2"),
    "bart": Family(_bart, "LayerNorm", "seq2seq", "post"),
    "mistral": Family(_llama_like("MistralConfig", "MistralForCausalLM", **_KV), "RMSNorm"),
    "cohere": Family(
        _llama_like("CohereConfig", "CohereForCausalLM", logit_scale=1.0, **_FOUR), "LayerNorm", placement="parallel"
    ),
    "gemma2": Family(
        _llama_like("Gemma2Config", "Gemma2ForCausalLM", head_dim=16, attn_implementation="eager", **_KV),
        "RMSNorm",
        placement="sandwich",
    ),
    "bloom": Family(_bloom, "LayerNorm"),
    "phi3": Family(_llama_like("Phi3Config", "Phi3ForCausalLM", **_KV), "RMSNorm"),
    "phi": Family(_llama_like("PhiConfig", "PhiForCausalLM"), "LayerNorm", placement="parallel"),
    "mixtral": Family(_llama_like("MixtralConfig", "MixtralForCausalLM", num_local_experts=4, **_KV), "RMSNorm"),
    "distilbert": Family(_distilbert, "LayerNorm", "masked", "post"),
    "granite": Family(_llama_like("GraniteConfig", "GraniteForCausalLM", **_KV), "RMSNorm"),
    "stablelm": Family(
        _llama_like("StableLmConfig", "StableLmForCausalLM", rope_parameters=_HALF_ROTARY, **_FOUR), "LayerNorm"
    ),
    "mamba": Family(_mamba, "RMSNorm"),
    "falcon": Family(_falcon, "LayerNorm", placement="parallel"),
    "starcoder2": Family(_llama_like("Starcoder2Config", "Starcoder2ForCausalLM", **_KV), "LayerNorm"),
    "gptj": Family(_gptj, "LayerNorm", placement="parallel"),
    "smollm3": Family(_llama_like("SmolLM3Config", "SmolLM3ForCausalLM", **_KV), "RMSNorm"),
    # From here on: the second part of the plan.
    "aimv2": Family(_tower("Aimv2VisionConfig", "Aimv2VisionModel", use_head=False), "RMSNorm", "vision"),
    "pixtral": Family(_tower("PixtralVisionConfig", "PixtralVisionModel"), "RMSNorm", "vision"),
    "t5gemma": Family(_t5gemma, "RMSNorm", "seq2seq", "sandwich"),
    "umt5": Family(_umt5, "RMSNorm", "seq2seq"),
    "eurobert": Family(
        _llama_like("EuroBertConfig", "EuroBertForMaskedLM", mask_token_id=0, **_FOUR), "RMSNorm", "masked"
    ),
    "gemma3": Family(
        _llama_like("Gemma3TextConfig", "Gemma3ForCausalLM", head_dim=16, **_KV), "RMSNorm", placement="sandwich"
    ),
    "modernbert": Family(
        _llama_like("ModernBertConfig", "ModernBertForMaskedLM", cls_token_id=0, sep_token_id=0), "LayerNorm", "masked"
    ),
    # From here on: the third part of the plan.
    "nemotron": Family(_llama_like("NemotronConfig", "NemotronForCausalLM", head_dim=16, **_KV), "LayerNorm"),
    "persimmon": Family(_llama_like("PersimmonConfig", "PersimmonForCausalLM"), "LayerNorm"),
    "qwen3_moe": Family(
        _llama_like("Qwen3MoeConfig", "Qwen3MoeForCausalLM", head_dim=16, **_EXPERTS, **_KV), "RMSNorm"
    ),
    "glm": Family(_llama_like("GlmConfig", "GlmForCausalLM", head_dim=16, **_KV), "RMSNorm"),
    "helium": Family(_llama_like("HeliumConfig", "HeliumForCausalLM", head_dim=16, **_KV), "RMSNorm"),
    "cohere2": Family(
        _llama_like("Cohere2Config", "Cohere2ForCausalLM", logit_scale=1.0, **_FOUR), "LayerNorm", placement="parallel"
    ),
    "arcee": Family(_llama_like("ArceeConfig", "ArceeForCausalLM", **_KV), "RMSNorm"),
    "ernie4_5": Family(_llama_like("Ernie4_5Config", "Ernie4_5ForCausalLM", head_dim=16, **_KV), "RMSNorm"),
    "seed_oss": Family(_llama_like("SeedOssConfig", "SeedOssForCausalLM", head_dim=16, **_KV), "RMSNorm"),
    "bitnet": Family(_llama_like("BitNetConfig", "BitNetForCausalLM", **_KV), "RMSNorm"),
    "diffllama": Family(
        _llama_like("DiffLlamaConfig", "DiffLlamaForCausalLM", attn_implementation="eager", **_FOUR), "RMSNorm"
    ),
    "codegen": Family(
        _sized("CodeGenConfig", "CodeGenForCausalLM", "n_embd n_layer n_inner vocab_size", **_GPT),
        "LayerNorm",
        placement="parallel",
    ),
    "gpt_neo": Family(_gpt_neo, "LayerNorm"),
    "mpt": Family(
        _sized("MptConfig", "MptForCausalLM", "d_model n_layers expansion_ratio vocab_size", n_heads=4,
               max_seq_len=CONTEXT),
        "LayerNorm",
    ),
    "roberta": Family(
        _sized("RobertaConfig", "RobertaForMaskedLM", _SIZES, **{**_MASKED, "max_position_embeddings": CONTEXT + 2}),
        "LayerNorm", "masked", "post",
    ),
    "electra": Family(
        _sized("ElectraConfig", "ElectraForMaskedLM", _SIZES, embedding_size=lambda d, _: d, **_MASKED),
        "LayerNorm", "masked", "post",
    ),
    "deberta": Family(
        _sized("DebertaV2Config", "DebertaV2ForMaskedLM", _SIZES, relative_attention=True,
               pos_att_type=["p2c", "c2p"], **_MASKED),
        "LayerNorm", "masked", "post",
    ),
    "albert": Family(
        _sized("AlbertConfig", "AlbertForMaskedLM", _SIZES, embedding_size=lambda d, _: d, **_MASKED),
        "LayerNorm", "masked", "post",
    ),
    "dinov2": Family(
        _sized("Dinov2Config", "Dinov2ForImageClassification", "hidden_size num_hidden_layers mlp_ratio -",
               num_attention_heads=4, **_IMAGES),
        "LayerNorm", "vision",
    ),
    "deit": Family(
        _sized("DeiTConfig", "DeiTForImageClassification", "hidden_size num_hidden_layers intermediate_size -",
               num_attention_heads=4, **_IMAGES),
        "LayerNorm", "vision",
    ),
    "convnext": Family(
        _sized("ConvNextConfig", "ConvNextForImageClassification", "_ _ hidden_sizes -", num_stages=1, **_IMAGES),
        "LayerNorm", "vision",
    ),
    "poolformer": Family(
        _sized("PoolFormerConfig", "PoolFormerForImageClassification", "_ _ _ -", mlp_ratio=2.0, num_encoder_blocks=1,
               hidden_sizes=lambda d, _: [d], depths=lambda _, layers: [layers], patch_sizes=[4], strides=[4],
               padding=[0], num_channels=1, num_labels=10),
        "neither", "vision",
    ),
    "bamba": Family(
        _llama_like("BambaConfig", "BambaForCausalLM", attn_layer_indices=[1], mamba_d_head="auto",
                    mamba_expand=2, **_STATES, **_KV),
        "RMSNorm",
    ),
    "falcon_h1": Family(
        _llama_like("FalconH1Config", "FalconH1ForCausalLM", mamba_d_head=16, mamba_d_ssm=128, **_STATES, **_KV),
        "RMSNorm",
    ),
}  # fmt: skip
"""In the order in which the first part of the plan takes them: any prefix holds both norms and several kinds."""


def logits(model: Any, objective: str, ids: torch.Tensor) -> Any:
    """Run a model of transformers."""
    if objective == "vision":
        return model(pixel_values=ids).logits
    if objective == "seq2seq":
        half = ids.shape[1] // 2
        return model(input_ids=ids[:, :half], decoder_input_ids=ids[:, half:]).logits
    return model(ids).logits
