"""Which norm the attention and the MLP of every block read, by the names of the norms: pre-norm, post-norm, neither."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from ...checkpoint import Checkpoint
from ..parts import Site
from . import conventions as c
from .forms import FIRST_OF_PAIR, NOT_OF_SELF, SECOND_OF_PAIR, Read, form_of, read
from .patterns import Name, Path, holds

# Names that pre-norm and post-norm models share; the presence of a norm after the last block tells them apart.
_EITHER_WAY = frozenset(["self_attn_layer_norm", "final_layer_norm", "norm1", "norm2", "ln_1", "ln_2"])
_EITHER_WAY |= frozenset(["layer_norm", "layer_norm1", "layer_norm2"])

_NUMBERED = {2: ("pre-attention", "pre-mlp"), 3: ("pre-attention", "cross", "pre-mlp")}
"""Slots of so many norms of a block whose names say nothing but a number."""


class BlockNorms(msgspec.Struct):
    """The norms of one block by where they sit; indices into the sites."""

    component: str
    slots: dict[str, list[int]] = msgspec.field(default_factory=lambda: defaultdict(list))
    read: Read = Read()
    numbered: bool = False


class Readings:
    """The norms of one file, placed.

    Attributes:
        blocks: by path of the block.
        final: the norm behind the last block, by component; a number of the sites, as in the next.
        head: the norm in front of the unembedding alone, by component.
    """

    def __init__(
        self, names: list[Name], sites: list[Site], widths: Mapping[str, int], checkpoint: Checkpoint, group_norm: bool
    ) -> None:
        self._names, self._sites, self._widths = names, sites, widths
        self._config = checkpoint.config or {}
        self._group_norm = group_norm
        self._embedding: dict[str, int] = {}
        self.final: dict[str, int] = {}
        self.head: dict[str, int] = {}
        self.blocks: dict[str, BlockNorms] = {}
        self._place_sites()
        for block in self.blocks.values():
            self._place_numbered(block)
        self._order_blocks()

    def _place_sites(self) -> None:
        for at, (name, site) in enumerate(zip(self._names, self._sites, strict=True)):
            path = name.path
            if path.block:
                if site.role == "stream":
                    block = self.blocks.setdefault(name.block, BlockNorms(site.component))
                    slot = _slot(path)
                    if slot == "embedding":
                        self._embedding.setdefault(site.component, at)
                    else:
                        block.slots[slot].append(at)
            elif site.width != self._widths.get(site.component):
                continue
            elif site.role == "other":
                if holds(path.text, c.HEAD_NORM):
                    self.head[site.component] = at
            elif site.role == "stream":
                if holds(path.text, c.EMBEDDING_NORM):
                    self._embedding.setdefault(site.component, at)
                elif site.component not in self.final or holds(path.text, c.FINAL_NORM):
                    self.final[site.component] = at

    def _place_numbered(self, block: BlockNorms) -> None:
        """Give ``n1`` and ``n2`` their slots, if a block has such norms and no other: they are numbered as they run."""
        loose = {self._names[at].path.inside: at for at in block.slots.get("", ())}
        found = [re.fullmatch(r"(.*?)([0-9])", inside) for inside in sorted(loose)]
        numbers = [match for match in found if match is not None]
        first = int(numbers[0][2]) if numbers else 0
        runs = [(match[1], int(match[2])) for match in numbers] == [
            (numbers[0][1], first + i) for i in range(len(numbers))
        ]
        slots = _NUMBERED.get(len(loose))
        if slots is None or len(numbers) != len(loose) or not runs or len(block.slots) > 1:
            return
        block.slots = defaultdict(list, {slot: [loose[m[0]]] for slot, m in zip(slots, numbers, strict=True)})
        block.numbered = True

    def _is_post_norm(self, block: BlockNorms) -> bool:
        """Whether names that mean either are those of a post-norm block."""
        norms = [self._names[at].path for slot in ("pre-attention", "pre-mlp") for at in block.slots.get(slot, ())]
        used = [path.leaf if path.block < 0 else path.inside for path in norms]
        either_way = block.numbered or all(leaf in _EITHER_WAY for leaf in used)
        if not used or not either_way or block.component == "vision":
            return False
        for key in c.PLACED_BEFORE:
            if isinstance(self._config.get(key), bool):
                return not self._config[key]
        if self._group_norm and "" in block.slots:  # wav2vec2: a GroupNorm in front goes with post-norm blocks
            return True
        return block.component not in self.final

    def _order_blocks(self) -> None:
        stacks: dict[str, list[tuple[int, BlockNorms]]] = defaultdict(list)
        for key, block in self.blocks.items():
            block.read = self._read(block)
            path, _, index = key.rpartition(".")
            if index.isdecimal():
                stacks[path].append((int(index), block))
        for path, stack in stacks.items():
            stack.sort(key=lambda item: item[0])
            before: int | None = None
            for position, (number, block) in enumerate(stack):
                opening = self._embedding.get(block.component) if number == 0 else None  # a shard may start later
                read = block.read
                if read.out is not None:  # post-norm: attention reads what the block before has normalised
                    shared = read.out if "albert" in path else None  # one block that is run over and over
                    attention = before if position else opening if opening is not None else shared
                    block.read = msgspec.structs.replace(read, attention=attention)
                    before = read.out
                elif position == 0 and read.attention is None and read.mlp is not None:
                    block.read = msgspec.structs.replace(read, attention=opening)  # ModernBERT: the embedding's norm
            if stack and before is not None:
                last = stack[-1][1]
                if last.component not in self.final:
                    self.final[last.component] = before

    def _read(self, block: BlockNorms) -> Read:
        norms = self._by_slot(block.slots)
        form = form_of(norms, self._returned(block))
        if form is None:
            return Read(cross=norms.get("cross"))
        first, second = (None if slot is None else norms[slot] for slot in (form.first, form.second))
        cross, order = norms.get(form.cross), form.order
        if order == "by name":
            order = "post" if self._is_post_norm(block) else "pre"
            if order == "post" and "" in norms and block.component in self.final:
                # wav2vec2: its outer norm follows the embedding
                self._embedding.setdefault(block.component, self.final[block.component])
        return read(order, first, second, cross)

    def _by_slot(self, slots: Mapping[str, list[int]]) -> dict[str, int]:
        """One norm a slot; where there are several, their numbers may tell them apart."""
        norms = {slot: self._outermost(sites) for slot, sites in slots.items()}
        first, behind, second = (slots.get(slot, []) for slot in ("pre-attention", "post-attention", "pre-mlp"))
        numbered = [at for at in first if self._names[at].path.leaf.endswith("norm_2")]
        if numbered and len(first) == 2:
            norms[SECOND_OF_PAIR] = numbered[0]
            norms[FIRST_OF_PAIR] = first[1 - first.index(numbered[0])]
        others = [at for at in behind if "self" not in self._names[at].path.leaf]
        if others:
            norms[NOT_OF_SELF] = self._outermost(others)
        third = any(self._names[at].path.leaf.endswith("3") for at in second)
        if third and len(second) > 1 and "cross" not in norms:  # norm2 and norm3 of a decoder block
            norms["cross"], norms["pre-mlp"] = second[0], second[-1]
        return norms

    def _outermost(self, sites: list[int]) -> int:
        return min(sites, key=lambda at: len(self._names[at].path.inside))

    def _returned(self, block: BlockNorms) -> list[str]:
        """Slots of norms on the way back into the stream, which is read as it is and normalised once more at its end.

        OLMo 2.
        """
        if block.component not in self.final:
            return []
        return [
            slot
            for slot, sites in block.slots.items()
            if any(self._names[at].path.leaf.startswith("post_") for at in sites)
        ]


def _slot(path: Path) -> str:
    return next((slot for slot, pattern in c.SLOTS if holds(path.inside, pattern)), "")
