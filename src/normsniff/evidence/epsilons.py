"""The epsilon of norms where the file or a configuration beside it declares one under a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from ..checkpoint import Checkpoint

EPSILON_KEY = re.compile(
    r"(?:^|\.)(rms_norm_eps|layer_norm_eps|(?:attention\.)?layer_norm_(?:rms_)?epsilon|(?:post_)?norm_eps|norm_epsilon)$"
)
LARGEST_EPSILON = 1e30
"""A larger value under its key is none, as infinity and NaN are none."""
_PARTS = (
    "text_config", "llm_config", "language_config", "thinker_config", "text_encoder", "decoder", "encoder",
    "vision_config", "audio_config", "audio_encoder", "speech_config", "encoder_config", "talker_config",
    "qformer_config",
)  # fmt: skip
_NESTED = 1  # backbones in a model
_LONGEST = 100  # characters of a key
_MOST = 10_000  # keys looked at
_BESIDE = re.compile(r"(vision|audio|qformer|speech|talker)")


def epsilon_keys(checkpoint: Checkpoint) -> Mapping[str, float]:
    """Return the keys that declare an epsilon, with their values, those of sub-configurations under a dotted name."""
    config = checkpoint.config or {}
    found = _keys(checkpoint.metadata, "") | _keys(config, "")
    for part in _PARTS:
        if isinstance(inner := config.get(part), Mapping):
            found |= _keys(inner, f"{part}.")
    return found | _arguments(config, "", _NESTED)


def _arguments(config: Mapping[str, Any], prefix: str, depth: int) -> dict[str, float]:
    """Return the keys among the arguments of a Keras class, and of the backbone that a model of KerasHub is given."""
    arguments = config.get("config")
    if "class_name" not in config or not isinstance(arguments, Mapping):
        return {}
    found, backbone = _keys(arguments, f"{prefix}config."), arguments.get("backbone")
    if depth and isinstance(backbone, Mapping):
        found |= _arguments(backbone, f"{prefix}config.backbone.", depth - 1)
    return found


def epsilon_at(keys: Mapping[str, float], component: str) -> tuple[str, float] | None:
    """Return the key and the value that hold for a component; None if none does, or several that differ.

    Args:
        keys: from `epsilon_keys`.
        component: the tower. Keys that name another tower do not speak of it.
    """
    named = {key: value for key, value in keys.items() if component in key}
    if component in ("main", "text", "encoder", "decoder") and not named:
        named = {key: value for key, value in keys.items() if not _BESIDE.search(key)}
    if len(set(named.values())) != 1:
        return None
    return next(iter(named.items()))


def _keys(source: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        prefix + key: float(value)
        for key, value in islice(source.items(), _MOST)
        if isinstance(value, float | int)
        and not isinstance(value, bool)
        and abs(value) < LARGEST_EPSILON  # a NaN is not
        and isinstance(key, str)
        and len(key) < _LONGEST
        and EPSILON_KEY.search(key)
    }
