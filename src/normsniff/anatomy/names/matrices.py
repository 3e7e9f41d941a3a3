"""Which matrix reads which norm, and along which axis the residual stream runs in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from ..parts import Matrix, MatrixRole, Site
from . import conventions as c
from .patterns import Name, Path, holds
from .readings import Readings

_SWAPPED = frozenset(["ffn_up", "ffn_down"])  # old LLaVA projectors in GGUF have these two the wrong way round

_SHORT = frozenset(["q", "k", "v", "key", "value"])  # words of attention only inside attention, or right in a block


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
    """Joins sites and matrices of one file.

    Args:
        readings: which of the sites is read by what.
        sites: the norms.
        widths: of the stream, by component.
        form: the format of the file.
    """

    def __init__(self, readings: Readings, sites: list[Site], widths: Mapping[str, int], form: str) -> None:
        self._readings, self._sites, self._widths = readings, sites, widths
        self._gguf, self._keras = form == "GGUF", form == "Keras"
        self._parts: dict[int, _Part | None] = {}
        self._wide: dict[tuple[str, int], bool] = {}

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
            block = self._readings.blocks.get(key)
            known = block is None or any(self._sites[at].width == d for sites in block.slots.values() for at in sites)
            self._wide[key, d] = known
        return known

    def _reader_site(self, role: MatrixRole, sublayer: c.Sublayer | None, name: Name, source: str) -> int | None:
        if role == "unembedding":
            return self._readings.head.get(source, self._readings.final.get(source))
        if role != "reader":
            return None
        block = self._readings.blocks.get(name.block)
        if sublayer == "cross":
            if holds(name.path.inside, c.CROSS_SOURCE):
                return self._readings.final.get(source)
            return block.read.cross if block else None
        if block is None:
            return None
        return block.read.attention if sublayer == "attention" else block.read.mlp


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
