"""A tensor's name, taken apart: module path, parameter word, block, tower. One analysis a pattern of names.

A model has tens of thousands of names and a few dozen patterns (the numbers differ), so each pattern is
looked at once and the cost a tensor is that of splitting a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from ... import meter
from ...checkpoint import TensorInfo
from . import conventions as c
from .spelling import Speller

_LONGEST = 200  # characters of a name; the longest seen in a public checkpoint is below 150
_MOST_PATTERNS = 5_000  # the most seen is about 600; beyond, a file follows nobody's convention
_ANALYSIS, _SEARCHED = 100, 16
"""Steps for a pattern, and characters squared a step: some thirty expressions are searched for in it, here and where
sites and matrices are told apart, and the worst go back and forth between any two places in a text made for it."""
_ENDS = re.compile(r"[\W_]+$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_TRANSPOSED = frozenset(["attentions", "ffns", "layer_norm1", "layer_norm2"])  # XLM: the number follows the part
_SEQUENTIAL = frozenset(["mlp", "net", "to_out", "ffn", "feed_forward", "ff"])  # numbers there are roles, not layers
_NO_BLOCK_INSIDE = frozenset(["experts", "mlp", "ffn", "projector", "merger", "adapter", "feature_extractor"])


class Path(msgspec.Struct, frozen=True):
    """What all names of one pattern have in common.

    Attributes:
        text: module path in lower case with ``#`` for numbers.
        leaf: its last word.
        parameter: last segment of the name, if it is a parameter's word or names something of a norm, else "".
        tower: component by the words of the path, before it is known which towers the file has.
        block: segments up to and including the number of the innermost block; 0 outside of blocks;
            negative where the number follows the part of the block (XLM).
        layer: position of the outermost block's number; -1 outside of blocks.
        inside: path inside the block; the whole path outside of blocks.
        ignored: adapters, optimiser states, side tensors of quantisation.
        norm: the leaf is a norm's name.
        numbered: the module has a number for a name, as in an nn.Sequential.
    """

    text: str
    leaf: str
    parameter: str
    tower: str
    block: int
    layer: int
    inside: str
    ignored: bool
    norm: bool
    numbered: bool


class Name(msgspec.Struct, frozen=True, gc=False):
    """One tensor and where it belongs."""

    # A Struct that the collector need not walk over, as TensorInfo is: files have 100,000, and no cycle is possible.

    tensor: TensorInfo
    path: Path
    module: str
    block: str
    layer: int | None


class Namer:
    """Parses names, remembering every pattern that it has seen."""

    def __init__(self) -> None:
        self._spell = Speller(_MOST_PATTERNS)
        self._paths: dict[str, Path] = {}
        self._known: dict[str, tuple[Path, str]] = {}

    def parse(self, tensor: TensorInfo) -> Name | None:
        """Take the name of `tensor` apart; None if it is nobody's convention."""
        if len(tensor.name) > _LONGEST:
            return None
        raw = _NUMBER.sub("#", tensor.name)
        known = self._known.get(raw)
        if known is not None:
            return _place(tensor, known[0], _filled(tensor.name, raw, known[1]))
        name = self._spell(tensor.name)
        segments = _split(name)
        if not segments:
            return None
        pattern = _pattern(segments)
        path = self._paths.get(pattern)
        if path is None:
            if len(self._paths) >= _MOST_PATTERNS:
                return None
            meter.charge(_ANALYSIS + len(pattern) ** 2 // _SEARCHED, "analysing patterns of names")
            path = self._paths[pattern] = _analyse(pattern)
        spelled = _NUMBER.sub("#", name)
        if pattern == spelled and spelled.count("#") == raw.count("#"):
            self._known[raw] = path, spelled  # nothing was dropped or split: the next such name needs no second look
        return _place(tensor, path, segments)


@lru_cache(maxsize=1 << 14)
def holds(text: str, expression: re.Pattern[str]) -> bool:
    """Whether an expression is found in a path; looked for once a pattern of names, not once a norm."""
    return expression.search(text) is not None


def attends(text: str) -> bool:
    """Whether the words of a path are those of an attention, or of what it reads."""
    return c.reader(text.rpartition(".")[2]) in ("attention", "cross") or holds(text, c.ATTENTION)


def above(module: str) -> Iterator[str]:
    """Yield the paths of the modules that a module lies in, outermost first."""
    return (module[:at] for at, character in enumerate(module) if character == ".")


def module_name(name: Name) -> str:
    """The module's path as the file spells it, separators included; without the parameter's word."""
    full, parameter = name.tensor.name.removesuffix(":0"), name.path.parameter
    if parameter.startswith("vars"):  # Keras: .../vars/0
        return full.rpartition("vars")[0].rstrip("/.")
    at = full.lower().rfind(parameter) if parameter else len(full)
    return _ENDS.sub("", full[:at]) if at > 0 else full


def _filled(name: str, raw: str, spelled: str) -> list[str]:
    """Split a name, spelled as the first one of its kind; `raw` and `spelled` have ``#`` for numbers."""
    if raw == spelled:
        return name.split(".")
    numbers = iter(_NUMBER.findall(name))
    return [next(numbers, part) if part == "#" else part for part in spelled.split(".")]


def _place(tensor: TensorInfo, path: Path, segments: list[str]) -> Name:
    module = segments[:-1] if path.parameter else segments
    text = ".".join(module)
    if path.block == 0:
        return Name(tensor, path, text, "", None)
    layer = _int(module[path.layer])
    if path.block < 0:
        return Name(tensor, path, text, f"{'.'.join(module[: path.layer - 1])}.{module[path.layer]}", layer)
    return Name(tensor, path, text, ".".join(module[: path.block]), layer)


def _int(text: str) -> int | None:
    return int(text) if len(text) < 7 and text.isdecimal() else None  # the file may hold a `#` itself


def _pattern(segments: list[str]) -> str:
    """The name with ``#`` for numbers, but for those that tell one layer of an nn.Sequential from the next."""
    words, before = [], ""
    for segment in segments:
        words.append("#" if segment.isdecimal() and (before not in _SEQUENTIAL or len(segment) > 1) else segment)
        before = segment
    return ".".join(words)


@lru_cache(maxsize=4096)
def _segment(text: str, *, outermost: bool) -> tuple[str, ...]:
    """`encoder_layer_3` -> `encoder_layer`, `3`, as `layer_3` where no number stands before it; anything else stays."""
    match = c.NUMBERED.match(text)
    if match is None:
        return (text,)
    word = match[1].lower()
    numbers = word in c.NUMBERED_BLOCKS or (outermost and word in c.AMBIGUOUS_BLOCKS)
    return (match[1], match[2]) if numbers else (text,)


def _split(name: str) -> list[str]:
    segments: list[str] = []
    for part in name.split("."):
        if not part or part in c.WRAPPERS:
            continue
        if part[-1].isdecimal() and not part[0].isdecimal():
            segments.extend(_segment(part, outermost=not any(map(str.isdecimal, segments))))
        else:
            segments.append(part)
    if len(segments) > 2 and segments[-2] == "vars":  # Keras
        segments[-2:] = ["vars" + segments[-1]]
    return segments


@lru_cache(maxsize=4096)
def _analyse(pattern: str) -> Path:
    segments = pattern.lower().split(".")
    last = segments[-1]
    parameter, module = "", segments
    if len(segments) > 1 and (last in c.PARAMETERS or last in c.SIDE_TENSORS or last in c.BATCH_STATISTICS):
        parameter, module = last, segments[:-1]
    elif _is_of_norm(segments):
        parameter, module = last, segments[:-1]  # a word that nobody knows, of a norm
    block, layer = _block(module)
    text = ".".join(module)
    words = [segment for segment in module if not _is_number(segment)]
    leaf = words[-1] if words else ""
    inside = ".".join(module[block:]) if block > 0 else ".".join(words) if block else text
    ignored = last in c.SIDE_TENSORS or any(segment in c.IGNORED_SEGMENTS for segment in segments)
    return Path(
        text=text, leaf=leaf, parameter=parameter, tower=_tower(module), block=block, layer=layer,
        inside=inside, ignored=ignored, norm=_is_norm(module, leaf), numbered=_is_number(module[-1]),
    )  # fmt: skip


def _is_number(segment: str) -> bool:
    return segment == "#" or segment.isdecimal()


def _is_of_norm(segments: list[str]) -> bool:
    """Whether the last segment is a word for something in a norm, as in `layers.0.norm.foo` or `norms.1.foo`."""
    if len(segments) < 2 or _is_number(segments[-1]) or c.NORM.search(segments[-1]):
        return False
    container = segments[-2]
    if _is_number(container):
        return len(segments) > 2 and c.PLURAL_NORM.search(segments[-3]) is not None
    return not c.SEVERAL_NORMS.search(container) and _is_norm(segments[:-1], container)


def _is_norm(module: list[str], leaf: str) -> bool:
    if _is_number(module[-1]) or (len(module) > 1 and "norm" not in leaf and c.PLURAL_NORM.search(module[-2])):
        return len(module) > 1 and c.PLURAL_NORM.search(module[-2]) is not None
    return c.NORM.search(leaf) is not None and c.NOT_A_NORM.search(leaf) is None


def _tower(module: list[str]) -> str:
    side = ""
    for at, segment in enumerate(module):
        tower = c.TOWERS.get(segment)
        if tower is not None and (segment not in c.ONLY_FIRST or _leads(module, at)):
            return tower
        if not side and segment in c.SIDES:
            side = c.SIDES[segment]
    return side or "main"


def _leads(module: list[str], at: int) -> bool:
    """Whether a short word stands where it means a tower: in front, a letter only before words of llama.cpp."""
    if len(module[at]) > 1:
        return module[:at] in ([], ["model"])
    return at == 0 and len(module) > 1 and c.LETTERS.match(module[1]) is not None


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
    if not block:  # a container of another name: the first number with something inside
        for at in range(1, len(module) - 1):
            if module[at - 1] in _NO_BLOCK_INSIDE or module[at - 1] in c.TOWERS:
                break
            if module[at] == "#":
                return at + 1, at
    return block, layer
