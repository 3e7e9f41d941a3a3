"""Small causal language models of many families of transformers, trained so that their scales move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

WIDTH, LAYERS, VOCABULARY, LENGTH = 64, 4, 128, 48
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "full_attention_interval": 2,
}  # fmt: skip
_EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
}  # fmt: skip
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16}

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {}, "mistral": {"sliding_window": None}, "qwen2": {}, "qwen3": {"head_dim": 16}, "phi3": {}, "olmo2": {},
    "smollm3": {}, "granite": {}, "starcoder2": {}, "stablelm": {}, "cohere": {}, "glm4": {"head_dim": 16},
    "ernie4_5": {"head_dim": 16}, "gpt_neox": {}, "phi": {},
    "gemma": {"head_dim": 16}, "gemma2": _GEMMA, "gemma3_text": _GEMMA, "nemotron": {"head_dim": 16},
    "qwen3_next": {"head_dim": 16, **_EXPERTS, **_LINEAR}, "qwen3_5_text": {"head_dim": 16, **_LINEAR},
    "recurrent_gemma": {"head_dim": 16, "lru_width": WIDTH, "attention_window_size": 32},
    "gpt2": {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 128, "n_inner": 128},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": WIDTH}, "bloom": {"n_layer": LAYERS, "n_head": 4},
    "bert": {"is_decoder": True}, "roberta": {"is_decoder": True},
}  # fmt: skip
"""Model types, with what their configurations need beside the common sizes; seven of them store γ - 1."""

_BORN_AT_ZERO = {"nemotron"}
"""Families of γ - 1 whose class in transformers is built with ones, a γ of 2: they were trained elsewhere, from zeros
(NeMo's `layernorm1p`)."""

RECIPES: Mapping[str, tuple[float, float, int]] = {"far": (1e-2, 0.0, 250), "near": (2e-3, 0.1, 120)}
"""Learning rate and weight decay of the norms, and steps: scales end up far from where they began, or near."""

_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


def train(out: Path) -> Iterator[Path]:
    """Train every family by every recipe, and yield the folders; those that are there are left as they are."""
    for family in FAMILIES:
        for recipe in RECIPES:
            folder = out / f"{family}-{recipe}"
            if not folder.exists():
                _trained(family, recipe).save_pretrained(folder)
            yield folder


def _trained(family: str, recipe: str) -> Any:
    rate, decay, steps = RECIPES[recipe]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**_COMMON, **FAMILIES[family]})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    named = [(name.lower(), one) for name, one in model.named_parameters()]
    norms = [one for name, one in named if "norm" in name or "ln_" in name]
    if family in _BORN_AT_ZERO:
        for name, one in named:
            if "norm" in name and name.endswith("weight"):
                torch.nn.init.zeros_(one)
    rest = [one for name, one in named if not ("norm" in name or "ln_" in name)]
    optimiser = torch.optim.AdamW(
        [
            {"params": norms, "lr": rate, "weight_decay": decay},
            {"params": rest, "lr": 3e-3, "weight_decay": 0.1},
        ]
    )
    texts = list(_texts())
    for step in range(steps):
        tokens = texts[step % len(texts)]
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model


def _texts(batches: int = 40, rows: int = 16) -> Iterator[torch.Tensor]:
    """Yield batches of a Markov chain, (rows, LENGTH): enough to learn, so that gradients last."""
    random = torch.Generator().manual_seed(0)
    chances = torch.softmax(3 * torch.randn(VOCABULARY, VOCABULARY, generator=random), -1)
    for _ in range(batches):
        tokens = torch.empty(rows, LENGTH, dtype=torch.long)
        tokens[:, 0] = torch.randint(3, VOCABULARY, (rows,), generator=random)
        for at in range(1, LENGTH):
            tokens[:, at] = torch.multinomial(chances[tokens[:, at - 1]], 1, generator=random)[:, 0]
        yield tokens
