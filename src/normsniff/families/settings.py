"""What a configuration says of its norm in so many words: ``norm_type: "rmsnorm"``, ``rms_norm: true``.

It is what the author of this very model set, and so beats the default of the family whose name the file bears.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..record import Label
from .tables import rules

_DEEPEST = 3  # `config.model.attn_config.norm_type` is the deepest that was seen
_MOST = 500  # mappings and entries looked at; a real configuration has some hundred
_ELSEWHERE = re.compile(
    r"vision|audio|image|speech|visual|encoder|decoder|text|llm|language|qformer|talker|thinker|qk|q_k|proj"
)
"""Sub-configurations of towers, which are asked for themselves, and settings of inner norms."""


def norm_setting(config: Mapping[str, Any]) -> tuple[str, Label] | None:
    """Return a value that names the norm outright, as ``(key, label)``; the least nested one.

    Args:
        config: decoded configuration; nothing in it is trusted.
    """
    for part in _parts(config):
        found = _direct(part)
        if found is not None:
            return found
    return None


def minus_one_setting(config: Mapping[str, Any]) -> str | None:
    """Return the key that says that γ - 1 is stored, as Megatron, NeMo and TransformerEngine call it."""
    setting = rules().setting
    for part in _parts(config):
        for key in setting.minus_one_flags:
            if part.get(key) is True:
                return key
        for key in setting.keys:
            value = part.get(key)
            if isinstance(value, str) and len(value) < 100 and value.lower() in setting.minus_one_words:
                return key
    return None


def signature(config: Mapping[str, Any]) -> tuple[str, Label] | None:
    """Return the program that a configuration without a model type was written by, and its norm, by its keys."""
    for part in _parts(config):
        for row in rules().signature:
            if part.keys() >= set(row.keys):
                return row.name, row.norm
    return None


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the configuration and what is nested in it, level by level."""
    layer: list[Mapping[str, Any]] = [config]
    left = _MOST
    for _ in range(_DEEPEST):
        yield from layer
        below: list[Mapping[str, Any]] = []
        for part in layer:
            for key, value in part.items():
                left -= 1
                if left < 0:
                    return
                if isinstance(value, Mapping) and isinstance(key, str) and not _ELSEWHERE.search(key.lower()):
                    below.append(value)
        layer = below


def _direct(config: Mapping[str, Any]) -> tuple[str, Label] | None:
    setting = rules().setting
    for key in setting.keys:
        value = config.get(key)
        if isinstance(value, str) and len(value) < 100:
            word = re.sub(r"[^a-z0-9]", "", value.lower().rpartition(".")[2])
            if word in setting.words:
                return key, setting.words[word]
            if word.endswith(("rmsnorm", "layernorm")):  # TritonRMSNorm, FP32LayerNorm
                return key, "RMSNorm" if word.endswith("rmsnorm") else "LayerNorm"
    for key in setting.flags:
        if isinstance(config.get(key), bool):
            return key, "RMSNorm" if config[key] else "LayerNorm"
    return None
