"""A tensor's name, taken apart: module path, parameter word, block, tower. One analysis a pattern of names.

A model has tens of thousands of names and a few dozen patterns (the numbers differ), so each pattern is
looked at once and the cost a tensor is that of splitting a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..formats.checkpoint import TensorInfo
from . import conventions as c

_LONGEST = 400  # characters of a name; the longest seen in a public checkpoint is below 150
_JOINED = re.compile(r"^(\w*(?:norm|ln))_(weight|bias|gamma|beta|scale)$")  # TransformerEngine: layer_norm_weight
_TRANSPOSED = frozenset("attentions ffns layer_norm1 layer_norm2".split())  # XLM: the number comes after the part
_SEQUENTIAL = frozenset("mlp net to_out ffn feed_forward ff".split())
_NO_BLOCK_INSIDE = frozenset("experts mlp ffn projector merger adapter feature_extractor".split())


@dataclass(frozen=True, slots=True)
class Path:
    """What all names of one pattern have in common.

    Attributes:
        text: module path in lower case with ``#`` for numbers.
        leaf: its last word.
        parameter: last segment of the name, if it is a parameter's word, else "".
        parameters: how many segments of the name belong to the parameter (0 or 1).
        suffix: part of the last segment that belongs to the module (``layer_norm`` of ``layer_norm_weight``).
        tower: component by the words of the path, before it is known which towers the file has.
        block: segments up to and including the number of the innermost block; 0 outside of blocks.
        layer: position of the outermost block's number; -1 outside of blocks.
        inside: path inside the block; the whole path outside of blocks.
        ignored: adapters, optimiser states, side tensors of quantisation.
        norm: the leaf is a norm's name.
        numbered: the module has a number for a name, as in an nn.Sequential.
    """

    text: str
    leaf: str
    parameter: str
    parameters: int
    suffix: str
    tower: str
    block: int
    layer: int
    inside: str
    ignored: bool
    norm: bool
    numbered: bool


class Name(NamedTuple):
    """One tensor and where it belongs."""

    tensor: TensorInfo
    path: Path
    module: str
    block: str
    layer: int | None


class Namer:
    """Parses names, remembering every pattern that it has seen."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}

    def parse(self, tensor: TensorInfo) -> Name | None:
        """Take the name of `tensor` apart; None if it is nobody's convention."""
        segments = _split(tensor.name)
        if not segments:
            return None
        pattern = _pattern(segments)
        path = self._paths.get(pattern)
        if path is None:
            path = self._paths[pattern] = _analyse(pattern)
        module = segments[: len(segments) - path.parameters]
        if path.suffix:
            module.append(path.suffix)
        if path.block == 0:
            return Name(tensor, path, ".".join(module), "", None)
        if path.block < 0:
            number = -path.block
            return Name(
                tensor,
                path,
                ".".join(module),
                f"{'.'.join(module[: number - 1])}#.{module[number]}",
                _int(module[number]),
            )
        return Name(tensor, path, ".".join(module), ".".join(module[: path.block]), _int(module[path.layer]))


def module_name(name: Name) -> str:
    """The module's path as the file spells it, wrappers and separators included."""
    full = name.tensor.name.removesuffix(":0")
    if name.path.suffix:
        return full[: len(full) - len(name.path.parameter) - 1]
    if not name.path.parameters:
        return full
    head = full[: len(full) - len(name.path.parameter)]
    if name.path.parameter.startswith("vars"):  # Keras: .../vars/0
        return full.rpartition("vars")[0].rstrip("/.")
    return head.rstrip("/.")


def _pattern(segments: list[str]) -> str:
    """The name with ``#`` for numbers, but for those that tell one layer of an nn.Sequential from the next."""
    words, before = [], ""
    for segment in segments:
        words.append("#" if segment.isdecimal() and (before not in _SEQUENTIAL or len(segment) > 1) else segment)
        before = segment
    return ".".join(words)


def _int(text: str) -> int | None:
    return int(text) if len(text) < 7 else None


@lru_cache(maxsize=4096)
def _segment(text: str) -> tuple[str, ...]:
    """`encoder_layer_3` -> `encoder_layer`, `3`; anything else stays."""
    match = c.NUMBERED.match(text)
    return match.groups() if match and match[1].lower() in c.NUMBERED_BLOCKS else (text,)


def _split(name: str) -> list[str]:
    if len(name) > _LONGEST:
        return []
    parts = name.removesuffix(":0").replace("/", ".").replace("_._", ".").split(".")
    segments: list[str] = []
    for part in parts:
        if not part or part in c.WRAPPERS:
            continue
        if part[-1].isdecimal() and not part[0].isdecimal():
            segments.extend(_segment(part))
        else:
            segments.append(part)
    if len(segments) > 2 and segments[-2] == "vars":  # Keras
        segments[-2:] = ["vars" + segments[-1]]
    return segments


def _analyse(pattern: str) -> Path:
    segments = pattern.lower().split(".")
    last = segments[-1]
    parameter, parameters, suffix = "", 0, ""
    if len(segments) > 1 and (last in c.PARAMETERS or last in c.SIDE_TENSORS or last in c.BATCH_STATISTICS):
        parameter, parameters = last, 1
    elif joined := _JOINED.match(last):
        parameter, parameters, suffix = joined[2], 1, joined[1]
    module = segments[: len(segments) - parameters]
    if suffix:
        module.append(suffix)
    block, layer = _block(module)
    text = ".".join(module)
    words = [segment for segment in module if not (segment == "#" or segment.isdecimal())]
    leaf = words[-1] if words else ""
    inside = ".".join(module[block:]) if block > 0 else ".".join(s for s in module if s != "#") if block else text
    ignored = last in c.SIDE_TENSORS or any(segment in c.IGNORED_SEGMENTS for segment in segments)
    return Path(
        text=text, leaf=leaf, parameter=parameter, parameters=parameters, suffix=suffix, tower=_tower(module),
        block=block, layer=layer, inside=inside, ignored=ignored, norm=_is_norm(module, leaf),
        numbered=module[-1] == "#" or module[-1].isdecimal(),
    )  # fmt: skip


def _is_norm(module: list[str], leaf: str) -> bool:
    if (
        module[-1] == "#"
        or module[-1].isdecimal()
        or (len(module) > 1 and c.PLURAL_NORM.search(module[-2]) and "norm" not in leaf)
    ):
        return len(module) > 1 and c.PLURAL_NORM.search(module[-2]) is not None
    return c.NORM.search(leaf) is not None and c.NOT_A_NORM.search(leaf) is None


def _tower(module: list[str]) -> str:
    side = ""
    for at, segment in enumerate(module):
        tower = c.TOWERS.get(segment)
        if tower is not None and (
            segment not in c.ONLY_FIRST or at == 0 or (at == 1 and module[0] == "model" and len(segment) > 1)
        ):
            return tower
        if not side and segment in c.SIDES:
            side = c.SIDES[segment]
    return side or "main"


def _block(module: list[str]) -> tuple[int, int]:
    """(segments of the innermost block's path, position of the outermost block's number)."""
    block, layer = 0, -1
    for at in range(1, len(module)):
        before = module[at - 1]
        if before in _NO_BLOCK_INSIDE:
            break
        if module[at] != "#":
            continue
        if before in c.BLOCKS or before.endswith(("layers", "blocks")):
            block, layer = at + 1, (at if layer < 0 else layer)
        elif before in _TRANSPOSED and layer < 0:
            return -at, at
    return block, layer
