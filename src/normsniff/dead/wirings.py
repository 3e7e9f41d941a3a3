"""Families whose residual stream is known from their code, so that weights may be rewritten: `data/wirings.toml`."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from ..errors import Refused


class FamilyWiring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the table.

    Attributes:
        model_types: as ``config.json`` has them.
        stack: path of the list of blocks.
        layers: configuration key that counts them.
        block: modules of a block, all of them.
        outside: modules beside the blocks.
        source: module of transformers that was read.
        final: the norm through which the last stream is read; "" where every block ends in a norm.
        never: settings under which the wiring is another one.
        buffers: stored constants, in a block or beside them.
        transposed: whether matrices of blocks are stored (in, out).
    """

    model_types: tuple[str, ...]
    stack: str
    layers: str
    block: tuple[str, ...]
    outside: tuple[str, ...]
    source: str
    final: str = ""
    never: dict[str, bool] = {}
    buffers: tuple[str, ...] = ()
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """The parameters of one model, sorted by its wiring.

    Attributes:
        inside: names of the tensors of the blocks.
        beside: names of the embeddings and norms beside them.
        final: path of the norm through which the last stream is read; "" where every block ends in a norm.
    """

    inside: frozenset[str]
    beside: frozenset[str]
    final: str


class _FamilyWirings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    heads: tuple[str, ...]
    wiring: tuple[FamilyWiring, ...]


@cache
def table() -> _FamilyWirings:
    """Return the table."""
    text = (Path(__file__).parents[1] / "data" / "wirings.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), _FamilyWirings)


def wiring_of(config: Mapping[str, Any] | None, where: str) -> FamilyWiring:
    """Return the wiring that a configuration declares.

    Raises:
        Refused: it declares none of the table, or settings or code that change it.
    """
    if config is None:
        raise Refused(where, "no config.json says which architecture this is")
    name = config.get("model_type")
    found = next((row for row in table().wiring if name in row.model_types), None)
    if found is None:
        known = ", ".join(model_type for row in table().wiring for model_type in row.model_types)
        raise Refused(where, f"the wiring of {str(name)[:100]!r} is not known; those known: {known}")
    if "auto_map" in config:
        raise Refused(where, "the configuration asks for code of its own (auto_map)")
    if "quantization_config" in config:
        raise Refused(where, "quantised weights would have to be quantised again, which changes the function")
    for key, value in found.never.items():
        if config.get(key) == value:
            raise Refused(where, f"{key} = {value} changes the wiring of {name}")
    return found


def check(wiring: FamilyWiring, names: Iterable[str], config: Mapping[str, Any], where: str) -> Stack:
    """Check that a model has the tensors of its family: every block whole, and nothing that is not known.

    Raises:
        Refused: something is missing, or more is there than the table knows.
    """
    blocks: dict[str, dict[str, str]] = defaultdict(dict)  # number -> tensor -> its name in the block
    prefixes: set[str] = set()
    others: list[str] = []
    for name in names:
        before, found, inside = f".{name}".partition(f".{wiring.stack}.")
        number, _, rest = inside.partition(".")
        if not found or not number.isdecimal():
            others.append(name)
            continue
        prefixes.add(before.removeprefix("."))
        if rest not in wiring.buffers:
            blocks[number][name] = _module(rest)
    if len(prefixes) != 1:
        raise Refused(where, f"{len(prefixes)} stacks of blocks named {wiring.stack!r}, where one is expected")
    count = config.get(wiring.layers)
    if set(blocks) != {str(i) for i in range(len(blocks))} or count != len(blocks):
        raise Refused(where, f"{len(blocks)} blocks, where {wiring.layers} = {count} are expected")
    for number, tensors in blocks.items():
        if odd := set(tensors.values()) ^ set(wiring.block):
            raise Refused(where, f"block {number}: {_listed(odd)} is missing or not known")
    prefix = prefixes.pop()
    beside = {
        name: _module(plain) for name in others if (plain := name.removeprefix(f"{prefix}.")) not in wiring.buffers
    }
    heads = {module for module in beside.values() if module.partition(".")[0] in table().heads}
    if odd := set(beside.values()) - heads - set(wiring.outside):
        raise Refused(where, f"{_listed(odd)} is not known in this family")
    if wiring.final and wiring.final not in beside.values():
        raise Refused(where, f"the last norm, {wiring.final}, is not there: the stream would be read as it is")
    return Stack(
        inside=frozenset(name for tensors in blocks.values() for name in tensors),
        beside=frozenset(name for name, module in beside.items() if module in wiring.outside),
        final=f"{prefix}.{wiring.final}".strip(".") if wiring.final else "",
    )


def _module(name: str) -> str:
    path, _, parameter = name.rpartition(".")
    return path if parameter in ("weight", "bias") else name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:5])[:300]
