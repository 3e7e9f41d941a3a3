"""Anatomy of a CTranslate2 model: its own names are told apart by place, so they are put into everybody's first.

A norm with a shift is computed as LayerNorm there and one without as RMSNorm, whatever the model was
(src/layers/common.cc, ``LayerNorm::operator()``), so the file itself says which of the two runs.
"""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec

from ... import meter
from ...checkpoint import Checkpoint, TensorInfo
from ..parts import Anatomy, Matrix, Site
from .describe import describe as describe_names

# python/ctranslate2/specs: in self-attention linear_0 is query, key and value at once, in cross-attention it is the
# query and linear_1 key and value; in the feed-forward layer linear_0_noact is the ungated half.
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"(^|/)layer_(\d+)/", r"\1layers/\2/"),
        (r"/self_attention/linear_0/", "/self_attn/qkv_proj/"),
        (r"/self_attention/linear_1/", "/self_attn/out_proj/"),
        (r"/self_attention/layer_norm/", "/self_attn_layer_norm/"),
        (r"/self_attention/", "/self_attn/"),
        (r"/attention/linear_0/", "/encoder_attn/q_proj/"),
        (r"/attention/linear_1/", "/encoder_attn/kv_proj/"),
        (r"/attention/linear_2/", "/encoder_attn/out_proj/"),
        (r"/attention/layer_norm/", "/encoder_attn_layer_norm/"),
        (r"/ffn/linear_0_noact/", "/mlp/up_proj/"),
        (r"/ffn/linear_0/", "/mlp/fc1/"),
        (r"/ffn/linear_1/", "/mlp/fc2/"),
        (r"/ffn/layer_norm/", "/final_layer_norm/"),
        (r"(^|/)embeddings(_\d+)?/weight$", r"\1embed_tokens/weight"),
        (r"(^|/)position_encodings/encodings$", r"\1embed_positions/weight"),
        (r"(^|/)projection/weight$", r"\1lm_head/weight"),
        (r"/gamma$", "/weight"),
        (r"/beta$", "/bias"),
    )
)
_QUANTISATION = ("/weight_scale", "/weight_zero")
_OFFSET = "layer_norm_use_residual"  # the scale is stored minus one (Gemma)


def describe(checkpoint: Checkpoint) -> Anatomy:
    """Find norm sites, what each computes, and the matrices around them."""
    stored: dict[str, TensorInfo] = {}
    renamed: dict[str, TensorInfo] = {}
    for name, tensor in checkpoint.tensors.items():
        word = _translated(name)
        if word not in renamed and not name.endswith(_QUANTISATION):
            stored[word] = tensor
            renamed[word] = msgspec.structs.replace(tensor, name=word)
    found = describe_names(replace(checkpoint, tensors=renamed, config=_config(checkpoint)))
    sites = tuple(_site(site, stored, checkpoint) for site in found.sites)
    matrices = tuple(_matrix(matrix, stored) for matrix in found.matrices)
    return replace(found, sites=sites, matrices=matrices)


def _translated(name: str) -> str:
    meter.charge(20 + len(name) // 10, "translating names")
    for pattern, word in _WORDS:
        name = pattern.sub(word, name)
    return name


def _config(checkpoint: Checkpoint) -> dict[str, object]:
    """Say where the norms are, in the words of a Hugging Face configuration."""
    config = dict(checkpoint.config or {})
    placed = [checkpoint.metadata.get(f"{side}/pre_norm") for side in ("decoder", "encoder")]
    before = next((value for value in placed if value is not None), None)
    return config if before is None else config | {"do_layer_norm_before": bool(before)}


def _site(site: Site, stored: dict[str, TensorInfo], checkpoint: Checkpoint) -> Site:
    scale = None if site.scale is None else stored[site.scale.name]
    shift = None if site.shift is None else stored[site.shift.name]
    parameter = scale or shift
    assert parameter is not None
    module = parameter.name.rpartition("/")[0]
    if scale is None or not parameter.name.endswith(("/gamma", "/beta")):  # not a norm of CTranslate2's own
        return replace(site, name=module or site.name, scale=scale, shift=shift)
    offset = 1.0 if checkpoint.metadata.get(f"{module}/{_OFFSET}") else site.offset
    kind, how = (
        ("RMSNorm", "without a shift is computed as RMSNorm")
        if shift is None
        else ("LayerNorm", "with one as LayerNorm")
    )
    why = f"CTranslate2: a norm {how}" + (f"; {_OFFSET}: the scale is stored minus one" if offset else "")
    return replace(
        site,
        name=module,
        scale=scale,
        shift=shift,
        kind="LayerNorm" if kind == "LayerNorm" else "RMSNorm",
        offset=offset,
        why=why,
    )


def _matrix(matrix: Matrix, stored: dict[str, TensorInfo]) -> Matrix:
    return msgspec.structs.replace(matrix, tensor=stored[matrix.tensor.name])
