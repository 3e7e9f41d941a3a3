"""Where the values of a dataset are, and the filters they went through (sections IV.A.2.h, i and l)."""

from __future__ import annotations

from typing import NamedTuple

from .file import Fields
from .headers import EXTERNAL, FILTERS, LAYOUT, Header

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = 0, 1, 2, 3
TREE, SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, TREE_2 = range(6)  # indexes of chunks; 0 is ours for old files
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
_FILTER_NAMES = {
    4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle",
    32013: "zfp", 32015: "zstd", 32026: "blosc2",
}  # fmt: skip
_SKIP_EDGES, _FILTERED = 1, 2  # flags of a chunked layout


class Filter(NamedTuple):
    """A step of the pipeline and its parameters."""

    number: int
    parameters: tuple[int, ...]

    @property
    def words(self) -> str:
        """What to call it in messages."""
        name = _FILTER_NAMES.get(self.number)
        return f"{self.number} ({name})" if name else str(self.number)


class Layout(NamedTuple):
    """Where the values of a dataset are.

    Attributes:
        kind: compact, contiguous, chunked or virtual.
        address: of the values, or of the index of the chunks; None if nothing is stored.
        size: stored bytes; None where an old file leaves it to the shape.
        data: the values of a compact dataset.
        chunk: edges of a chunk.
        indexed_by: kind of the index.
        plain_edges: whether chunks that stick out over the end of the dataset are not filtered.
        mask: filters that were left out for a single chunk.
    """

    kind: int
    address: int | None = None
    size: int | None = None
    data: memoryview = memoryview(b"")
    chunk: tuple[int, ...] = ()
    indexed_by: int = TREE
    plain_edges: bool = False
    mask: int = 0


def read_layout(header: Header) -> Layout:
    """Read where the values of a dataset are.

    Raises:
        FormatError: the values are in other files, or the layout is of a version that is not read here.
    """
    fields = header.find(LAYOUT)
    assert fields is not None  # the caller has seen that it is a dataset
    version = fields.number(1)
    if version in (1, 2):
        layout = _version_1(fields)
    elif version in (3, 4, 5):
        layout = _version_3(fields, version)
    else:
        fields.fail("unsupported", f"a layout of version {version}")
    if layout.kind > VIRTUAL:
        fields.fail("unsupported", f"a layout of the unknown class {layout.kind}")
    if layout.kind == VIRTUAL:
        fields.fail("virtual", "a virtual dataset, whose data is in other files")
    if header.has(EXTERNAL):
        fields.fail("external", "its data is in another file")
    return layout


def read_filters(header: Header) -> tuple[Filter, ...]:
    """Read the filters of a dataset, in the order in which they were applied."""
    fields = header.find(FILTERS)
    if fields is None:
        return ()
    version, count = fields.number(1), fields.number(1)
    fields.skip(6 if version == 1 else 0)
    return tuple(_read_filter(fields, version) for _ in range(count))


def _read_filter(fields: Fields, version: int) -> Filter:
    number = fields.number(2)
    name_size = fields.number(2) if version == 1 or number >= 256 else 0  # names of the standard filters are left out
    fields.skip(2)
    count = fields.number(2)
    fields.skip(name_size + (-name_size % 8 if version == 1 else 0))
    parameters = tuple(fields.number(4) for _ in range(count))
    fields.skip(4 * (count % 2) if version == 1 else 0)
    return Filter(number, parameters)


def _version_1(fields: Fields) -> Layout:
    rank, kind = fields.number(1), fields.number(1)
    fields.skip(5)
    address = None if kind == COMPACT else fields.address()
    edges = tuple(fields.number(4) for _ in range(rank))
    if kind == COMPACT:
        size = fields.number(4)
        return Layout(kind, None, size, fields.take(size))
    return Layout(kind, address, chunk=edges[:-1] if kind == CHUNKED else ())  # the last edge is bytes of an element


def _version_3(fields: Fields, version: int) -> Layout:
    kind = fields.number(1)
    if kind == COMPACT:
        size = fields.number(2)
        return Layout(kind, None, size, fields.take(size))
    if kind == CONTIGUOUS:
        return Layout(kind, fields.address(), fields.length())
    if kind != CHUNKED:
        return Layout(kind)
    if version == 3:
        rank, address = fields.number(1), fields.address()
        return Layout(kind, address, chunk=tuple(fields.number(4) for _ in range(rank))[:-1])
    flags, rank, width = fields.number(1), fields.number(1), fields.number(1)
    edges = tuple(fields.number(width) for _ in range(rank))
    index = fields.number(1)
    single = index == SINGLE and bool(flags & _FILTERED)
    stored = fields.length() if single else None
    mask = fields.number(4) if single else 0
    # parameters of the other indexes stand again where the index is
    fields.skip({SINGLE: 0, IMPLICIT: 0, FIXED_ARRAY: 1, EXTENSIBLE_ARRAY: 5, TREE_2: 6}.get(index, 0))
    return Layout(kind, fields.address(), stored, memoryview(b""), edges[:-1], index, bool(flags & _SKIP_EDGES), mask)
