"""The settings that a training run saves with its weights: hyper-parameters under a handful of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .pickle_notes import Call

_NAMES = ("model_args", "config", "hyper_parameters", "hparams", "args", "cfg", "model_config", "dims", "opt")
_MOST, _DEEPEST, _LONGEST = 300, 3, 200  # entries, levels and characters that are kept; a run has some hundred settings


def settings_of(value: object) -> dict[str, Any]:
    """Return the settings beside the weights as nested dicts of numbers, words and flags; empty if there are none.

    Objects (``argparse.Namespace``, dataclasses) count by what their pickle would set on them; nothing is called.
    """
    if not isinstance(value, Mapping):
        return {}
    left = [_MOST]
    for name in _NAMES:
        found = _plain(value.get(name), _DEEPEST, left)
        if isinstance(found, dict) and found:
            return found
    return {}


def _plain(value: object, levels: int, left: list[int]) -> Any:
    if isinstance(value, Call):
        value = value.state
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST):
        return value
    if not isinstance(value, Mapping) or not levels:
        return None
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        left[0] -= 1
        if left[0] < 0:
            break
        plain = _plain(inner, levels - 1, left)
        if plain is not None and isinstance(key, str):
            kept[key[:_LONGEST]] = plain
    return kept
