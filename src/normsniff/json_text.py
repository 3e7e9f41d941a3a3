"""JSON out of files: charged before it is decoded, and with no text in it that could not be written again."""

from __future__ import annotations

import json
from typing import Any

from . import meter


def decode(text: str | bytes, where: str) -> Any:
    r"""Decode a JSON text; what is no text in it (half a surrogate pair, ``"\ud800"``) is spelled as its escape.

    The standard library's parser, as configurations do hold Infinity.

    Args:
        text: UTF-8, or text.
        where: what it is, for the message of a spent budget.

    Raises:
        ValueError: it is no JSON.
        BudgetSpent: it costs more than the budget allows.
    """
    meter.charge_json(text, where)
    value = json.loads(text)
    escape: str | bytes = "\\ud" if isinstance(text, str) else b"\\ud"
    upper: str | bytes = "\\uD" if isinstance(text, str) else b"\\uD"
    return writable(value) if escape in text or upper in text else value  # type: ignore[operator]  # of one kind


def writable(value: Any) -> Any:
    """Return a JSON value whose texts and keys can all be written as UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {writable(key): writable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [writable(inner) for inner in value]
    return value
