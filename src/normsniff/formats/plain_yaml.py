"""The lines ``key: word`` of a YAML file, by their indentation. No parser: what is anything else is passed over.

A setting of a model stands on such a line, and a YAML parser has a history of building objects, aliases that multiply
and more besides. Lists, texts of several lines, anchors and flow mappings say nothing here.
"""

from __future__ import annotations

import re
from typing import Any

_LINE = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_][\w.-]*):(?: +(?P<value>.*?))?(?: +#.*)?\s*")
_WORDS = {"true": True, "yes": True, "false": False, "no": False, "null": None, "~": None, "none": None}
_NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{0,18})?([eE][-+]?\d{1,2})?")
_LINES, _LONGEST = 2000, 200  # a configuration of NeMo has some 300 lines; characters of a line that is looked at
_SPECIAL = "&*!|>{[%@`,"


def settings(text: str) -> dict[str, Any]:
    r"""Return what the lines say, nested as they are indented.

    >>> settings("model:\n  normalization: rmsnorm # of Zhang\n  layers: 12\nids:\n- a")
    {'model': {'normalization': 'rmsnorm', 'layers': 12}}
    """
    root: dict[str, Any] = {}
    open_ones: list[tuple[int, dict[str, Any]]] = [(-1, root)]  # indentation of the key above, what is below it
    deaf: int | None = None  # below this indentation lies what is passed over
    for line in text.splitlines()[:_LINES]:
        match = _LINE.fullmatch(line) if len(line) <= _LONGEST else None
        indent = len(line) - len(line.lstrip(" "))
        if deaf is not None and (indent > deaf or not line.strip()):
            continue
        deaf = None
        if match is None:
            if line.strip() and not line.lstrip().startswith("#"):
                deaf = indent  # an item of a list, and what belongs to it
            continue
        while open_ones[-1][0] >= indent:
            open_ones.pop()
        key, value = match["key"], (match["value"] or "").strip()
        if not value:
            below: dict[str, Any] = {}
            open_ones[-1][1][key] = below
            open_ones.append((indent, below))
        elif value[0] in _SPECIAL:
            deaf = indent
        else:
            open_ones[-1][1][key] = _scalar(value)
    return _without_empty(root)


def _scalar(value: str) -> Any:
    if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1:
        return value[1:-1]
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if _NUMBER.fullmatch(value):
        return float(value) if any(mark in value for mark in ".eE") else int(value)
    return value


def _without_empty(mapping: dict[str, Any]) -> dict[str, Any]:
    cleaned = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in mapping.items()}
    return {key: value for key, value in cleaned.items() if value != {}}
