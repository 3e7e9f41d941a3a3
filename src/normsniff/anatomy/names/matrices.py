"""Which matrix reads which norm, and along which axis the residual stream runs in it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ...checkpoint import Checkpoint
from ..parts import Matrix, MatrixRole, Site
from . import conventions as c
from .forms import FIRST_OF_PAIR, NOT_OF_SELF, SECOND_OF_PAIR, Read, form_of, read
from .patterns import Name, Path, holds

# Names that pre-norm and post-norm models share; the presence of a norm after the last block tells them apart.
_EITHER_WAY = frozenset(["self_attn_layer_norm", "final_layer_norm", "norm1", "norm2", "ln_1", "ln_2"])
_EITHER_WAY |= frozenset(["layer_norm", "layer_norm1", "layer_norm2"])

_SWAPPED = frozenset(["ffn_up", "ffn_down"])  # old LLaVA projectors in GGUF have these two the wrong way round

_SHORT = frozenset(["q", "k", "v", "key", "value"])  # words of attention only inside attention, or right in a block


_NUMBERED = {2: ("pre-attention", "pre-mlp"), 3: ("pre-attention", "cross", "pre-mlp")}
"""Slots of so many norms of a block whose names say nothing but a number."""


class _BlockNorms(msgspec.Struct):
    """The norms of one block by where they sit; indices into the sites."""

    component: str
    slots: dict[str, list[int]] = msgspec.field(default_factory=lambda: defaultdict(list))
    read: Read = Read()
    numbered: bool = False


class _Part(msgspec.Struct, frozen=True):
    """What a matrix is, by its name."""

    role: MatrixRole
    sublayer: c.Sublayer | None = None


class _Placed(msgspec.Struct, frozen=True):
    """Along which axis of a matrix whose stream runs, how wide that is, and what the matrix is to it."""

    source: str
    d: int
    role: MatrixRole
    axis: int


_Named = tuple[Name, str, _Part | None]


class Wiring:
    """Joins sites and matrices of one file."""

    def __init__(
        self, names: list[Name], sites: list[Site], widths: Mapping[str, int], checkpoint: Checkpoint, group_norm: bool
    ) -> None:
        self._names, self._sites, self._widths = names, sites, widths
        self._gguf, self._keras = checkpoint.format == "GGUF", checkpoint.format == "Keras"
        self._config = checkpoint.config or {}
        self._group_norm = group_norm
        self._parts: dict[int, _Part | None] = {}
        self._wide: dict[tuple[str, int], bool] = {}
        self._embedding: dict[str, int] = {}
        self._final: dict[str, int] = {}
        self._head: dict[str, int] = {}
        self._blocks: dict[str, _BlockNorms] = {}
        self._place_sites()
        for block in self._blocks.values():
            self._place_numbered(block)
        self._order_blocks()

    # --- norms: who is read by what -------------------------------------------------------------------------

    def _place_sites(self) -> None:
        for at, (name, site) in enumerate(zip(self._names, self._sites, strict=True)):
            path = name.path
            if path.block:
                if site.role == "stream":
                    block = self._blocks.setdefault(name.block, _BlockNorms(site.component))
                    slot = _slot(path)
                    if slot == "embedding":
                        self._embedding.setdefault(site.component, at)
                    else:
                        block.slots[slot].append(at)
            elif site.width != self._widths.get(site.component):
                continue
            elif site.role == "other":
                if holds(path.text, c.HEAD_NORM):
                    self._head[site.component] = at
            elif site.role == "stream":
                if holds(path.text, c.EMBEDDING_NORM):
                    self._embedding.setdefault(site.component, at)
                elif site.component not in self._final or holds(path.text, c.FINAL_NORM):
                    self._final[site.component] = at

    def _place_numbered(self, block: _BlockNorms) -> None:
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

    def _is_post_norm(self, block: _BlockNorms) -> bool:
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
        return block.component not in self._final

    def _order_blocks(self) -> None:
        stacks: dict[str, list[tuple[int, _BlockNorms]]] = defaultdict(list)
        for key, block in self._blocks.items():
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
                if last.component not in self._final:
                    self._final[last.component] = before

    def _read(self, block: _BlockNorms) -> Read:
        norms = self._by_slot(block.slots)
        form = form_of(norms, self._returned(block))
        if form is None:
            return Read(cross=norms.get("cross"))
        first, second = (None if slot is None else norms[slot] for slot in (form.first, form.second))
        cross, order = norms.get(form.cross), form.order
        if order == "by name":
            order = "post" if self._is_post_norm(block) else "pre"
            if order == "post" and "" in norms and block.component in self._final:
                # wav2vec2: its outer norm follows the embedding
                self._embedding.setdefault(block.component, self._final[block.component])
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

    def _returned(self, block: _BlockNorms) -> list[str]:
        """Slots of norms on the way back into the stream, which is read as it is and normalised once more at its end.

        OLMo 2.
        """
        if block.component not in self._final:
            return []
        return [
            slot
            for slot, sites in block.slots.items()
            if any(self._names[at].path.leaf.startswith("post_") for at in sites)
        ]

    # --- matrices ---------------------------------------------------------------------------------------------

    def places(self, names: Iterable[Name], component: Mapping[str, str]) -> dict[tuple[str, str], set[str]]:
        """Return what the matrices of every block read for, by component and path of the block."""
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for name in names:
            part = self._part(name.path) if name.block else None
            if part is not None and part.role == "reader" and part.sublayer is not None:
                found[component[name.path.tower], name.block].add(part.sublayer)
        return found

    def matrices(self, names: Iterable[Name], component: Mapping[str, str]) -> list[Matrix]:
        """Matrices with an axis along the residual stream, in the order of the file."""
        known = self._complete([(name, component[name.path.tower], self._part(name.path)) for name in names])
        transposed = self._layouts(known)
        return list(self._along_stream(known, transposed))

    def _part(self, path: Path) -> _Part | None:
        """Cached by pattern: the paths live as long as the names do."""
        key = id(path)
        if key not in self._parts:
            self._parts[key] = _part(path)
        return self._parts[key]

    def _complete(self, known: list[_Named]) -> list[_Named]:
        """By elimination: a block that reads for attention has a matrix that writes its result, under whatever name."""
        writers: Counter[str] = Counter()
        unknown: dict[str, list[int]] = defaultdict(list)
        places: dict[str, set[str]] = defaultdict(set)
        for at, (name, _, part) in enumerate(known):
            if name.block and part is not None and len(name.tensor.shape) == 2:
                if part.role == "reader" and part.sublayer is not None:
                    places[name.block].add(part.sublayer)
                elif part.role == "writer":
                    writers[name.block] += 1
                elif part.role == "unknown":
                    unknown[name.block].append(at)
        for block, rest in unknown.items():
            if len(rest) == 1 and places[block] == {"attention", "mlp"} and writers[block] == 1:
                name, tower, _ = known[rest[0]]
                known[rest[0]] = (name, tower, _Part("writer"))
        return known

    def _layouts(self, known: list[_Named]) -> dict[str, bool]:
        """Component -> whether matrices are stored (in, out): non-square ones vote."""
        votes: Counter[tuple[str, bool]] = Counter()
        for name, tower, part in known:
            shape, d = name.tensor.shape, self._widths.get(tower)
            if part is None or part.role not in ("reader", "writer") or len(shape) != 2 or part.sublayer == "cross":
                continue
            if (shape[0] == d) != (shape[1] == d) and name.path.parameter != "kernel":
                votes[tower, (shape[0] == d) == (part.role == "reader")] += 1
        fallback = sum(n if conv else -n for (_, conv), n in votes.items()) > 0
        return {
            tower: (votes[tower, True] > votes[tower, False])
            if (votes[tower, True] or votes[tower, False])
            else fallback
            for tower in self._widths
        }

    def _along_stream(self, known: list[_Named], transposed: Mapping[str, bool]) -> Iterator[Matrix]:
        placed: dict[tuple[int, int, tuple[int, ...]], _Placed | None] = {}  # layers repeat their names and shapes
        for name, tower, part in known:
            if part is None:
                continue
            key = id(name.path), id(part), name.tensor.shape  # all live as long as `known` does
            if key not in placed:
                placed[key] = self._placed(name, tower, part, transposed)
            found = placed[key]
            if found is not None and self._has_width(name.block, found.d):
                layer = name.layer if found.source == tower else None
                site = self._reader_site(found.role, part.sublayer, name, found.source)
                yield Matrix(name.tensor, found.axis, found.role, found.source, layer, site)

    def _placed(self, name: Name, tower: str, part: _Part, transposed: Mapping[str, bool]) -> _Placed | None:
        """Where the stream runs in all matrices of this pattern and shape; None if in none."""
        source = self._source(name, tower, part)
        d = None if source is None else self._widths.get(source)
        if source is None or d is None:
            return None
        conv = name.path.parameter == "kernel" or self._keras or (transposed.get(source, False) and not self._gguf)
        axes = ((role, _AXES[role](name, d, role, conv)) for role in self._roles(name, part))
        return next((_Placed(source, d, role, axis) for role, axis in axes if axis is not None), None)

    def _source(self, name: Name, tower: str, part: _Part) -> str | None:
        """The component whose stream the matrix touches; None where that is unknown, or a projector's."""
        if part.sublayer == "cross" and holds(name.path.inside, c.CROSS_SOURCE):
            # keys and values read what the encoder puts out
            return "encoder" if tower == "decoder" and "encoder" in self._widths else None
        return None if tower == "projector" else tower

    def _roles(self, name: Name, part: _Part) -> tuple[MatrixRole, ...]:
        """What the matrix may be, by its shape: the first role whose axis is where it should be."""
        if self._gguf and name.path.tower == "vision" and name.path.leaf in _SWAPPED:
            return (part.role, "writer" if part.role == "reader" else "reader")
        return (part.role,)

    def _has_width(self, key: str, d: int) -> bool:
        """False in the stages of a hierarchical model whose stream has another width."""
        known = self._wide.get((key, d))
        if known is None:
            block = self._blocks.get(key)
            known = block is None or any(self._sites[at].width == d for sites in block.slots.values() for at in sites)
            self._wide[key, d] = known
        return known

    def _reader_site(self, role: MatrixRole, sublayer: c.Sublayer | None, name: Name, source: str) -> int | None:
        if role == "unembedding":
            return self._head.get(source, self._final.get(source))
        if role != "reader":
            return None
        block = self._blocks.get(name.block)
        if sublayer == "cross":
            if holds(name.path.inside, c.CROSS_SOURCE):
                return self._final.get(source)
            return block.read.cross if block else None
        if block is None:
            return None
        return block.read.attention if sublayer == "attention" else block.read.mlp


def _slot(path: Path) -> str:
    return next((slot for slot, pattern in c.SLOTS if holds(path.inside, pattern)), "")


def _part(path: Path) -> _Part | None:
    """Role of a matrix by its path; None for matrices that do not touch the stream."""
    text, leaf = path.text, path.leaf
    if path.parameter.endswith("in_proj_weight"):
        leaf = path.parameter
    if path.norm or c.NOT_A_MATRIX.search(text) or c.ADAPTIVE_NORM.search(text) or leaf.endswith(c.NOT_A_MATRIX_LEAF):
        return None
    if not path.block:
        if c.UNEMBEDDING_PATHS.search(text) or leaf in c.UNEMBEDDINGS:
            return _Part("unembedding")
        if c.POSITIONS.search(leaf):
            return _Part("position")
        return _Part("embedding") if leaf in c.EMBEDDINGS else _Part("unknown")
    inside = path.inside
    cross = c.CROSS.search(inside) is not None
    if inside == "ffn" or c.READER_PATHS.search(inside):  # `ffn` is ALBERT's
        return _Part("reader", "mlp")
    if c.WRITER_PATHS.search(inside):
        return _Part("writer")
    sublayer = None if path.numbered else c.reader(leaf)
    if sublayer is not None:
        if sublayer == "attention" and inside != leaf and leaf in _SHORT and not holds(inside, c.ATTENTION):
            return _Part("unknown")
        return _Part("reader", "cross" if cross and sublayer == "attention" else sublayer)
    if leaf in c.WRITERS and not path.numbered:
        return _Part("writer")
    return _Part("unknown")


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Two long axes; kernels of 1 or 3 may follow, larger ones are patches."""
    return len(shape) == 2 or (len(shape) in (3, 4) and all(n in (1, 3) for n in shape[2:]))


def _only_axis(name: Name, d: int, _role: MatrixRole, _conv: bool) -> int | None:
    """The one axis of length d."""
    shape = name.tensor.shape
    return shape.index(d) if shape.count(d) == 1 and _is_matrix(shape) else None


def _vector_axis(name: Name, d: int, role: MatrixRole, _conv: bool) -> int | None:
    """Axis of a table of vectors: (words, d), and an unembedding may be (d, words)."""
    shape = name.tensor.shape
    axis = 0 if role == "unembedding" and shape[-1] != d and shape[0] == d else len(shape) - 1
    return axis if shape[axis] == d and name.tensor.size > d else None


def _inner_axis(name: Name, d: int, role: MatrixRole, conv: bool) -> int | None:
    """Axis of the residual stream in a matrix that reads or writes it, or None if it is not where it should be."""
    shape = name.tensor.shape
    stacked = len(shape) == 3 and not _is_matrix(shape)
    if name.path.parameter == "kernel":  # Flax: (in, heads, size) and (heads, size, out)
        axis = 0 if role == "reader" else len(shape) - 1
        return axis if shape[axis] == d and len(shape) <= 3 else None
    if stacked or "experts" in name.path.text:
        axes = [axis for axis in range(max(0, len(shape) - 2), len(shape)) if shape[axis] == d]
        if len(axes) == 1:
            return axes[0]  # experts are stored either way, whatever the layout of the rest
    elif not _is_matrix(shape):
        return None
    first = len(shape) - 2 if stacked else 0
    axis = first + (1 if (role == "reader") != conv else 0)
    return axis if shape[axis] == d else None


_AXES: dict[MatrixRole, Callable[[Name, int, MatrixRole, bool], int | None]] = {
    # (name, d, role, whether matrices are stored (in, out)) -> the axis along the residual stream
    "unknown": _only_axis,
    "embedding": _vector_axis,
    "position": _vector_axis,
    "unembedding": _vector_axis,
    "reader": _inner_axis,
    "writer": _inner_axis,
}
