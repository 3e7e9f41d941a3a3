"""Where the chunks of a dataset are, whichever of the six indexes it has (section III.A.1 and appendix C).

Chunks are numbered in C order over the grid of the dataset; what is found is kept as arrays, 20 bytes a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...meter import hold
from .file import Structure, defined
from .layouts import EXTENSIBLE_ARRAY, FIXED_ARRAY, IMPLICIT, SINGLE, TREE, TREE_2, Layout
from .trees import leaves, records

_CHUNK_NODE, _CHUNK_RECORD, _FILTERED_RECORD = 1, 10, 11  # types of nodes and records of B-trees
_NOWHERE = -1
_CHUNK_BYTES = 20  # that a chunk takes in a table


class Grid(NamedTuple):
    """The chunks of a dataset.

    Attributes:
        counts: chunks along each axis.
        edges: elements along each axis of a chunk.
        most: chunks along each axis when the dataset has grown as far as it may; None without end.
        nbytes: bytes of a chunk before filters.
        filtered: whether there are filters.
    """

    counts: tuple[int, ...]
    edges: tuple[int, ...]
    most: tuple[int | None, ...]
    nbytes: int
    filtered: bool

    @property
    def total(self) -> int:
        """Number of chunks."""
        return math.prod(self.counts)


class ChunkTable:
    """Place, stored bytes and filters left out of every chunk, by its number in the grid."""

    def __init__(self, total: int) -> None:
        hold(_CHUNK_BYTES * total, "where the chunks of an HDF5 file are")
        self.address = np.full(total, _NOWHERE, np.int64)
        self.size = np.zeros(total, np.int64)
        self.mask = np.zeros(total, np.uint32)

    def sound(self, end: int, largest: int) -> int:
        """Return how many chunks lie before `end` and are at most `largest` bytes long."""
        found = (self.address > _NOWHERE) & (self.size > 0) & (self.size <= largest) & (self.address <= end - self.size)
        return int(found.sum())


class _Run(NamedTuple):
    """Entries of an array that lie together: `length` from number `first` on, at `address`."""

    first: int
    length: int
    address: int


def locate(file: Structure, layout: Layout, grid: Grid) -> ChunkTable:
    """Find all chunks; of those that are not stored the table says so.

    Args:
        file: the file.
        layout: a chunked layout with an address.
        grid: its chunks; the caller has checked that the file may hold so many.

    Raises:
        FormatError: the index is damaged, or of a kind that is not known.
    """
    assert layout.address is not None
    table = ChunkTable(grid.total)
    if layout.indexed_by == TREE:
        _from_tree(file, layout.address, grid, table)
    elif layout.indexed_by == SINGLE:
        table.address[:1] = layout.address
        table.size[:1] = grid.nbytes if layout.size is None else min(layout.size, file.source.size)
        table.mask[:1] = layout.mask
    elif layout.indexed_by == IMPLICIT:
        numbers = _numbers(grid)
        if layout.address + (int(numbers.max()) + 1) * grid.nbytes > file.source.size:
            file.fail("bad-offset", layout.address, "chunks that do not lie in the file")
        table.address[:], table.size[:] = layout.address + numbers * grid.nbytes, grid.nbytes
    elif layout.indexed_by == FIXED_ARRAY:
        size, runs = _fixed_array(file, layout.address)
        _from_array(file, grid, table, _numbers(grid), size, runs)
    elif layout.indexed_by == EXTENSIBLE_ARRAY:
        numbers = _numbers(grid)
        size, runs = _extensible_array(file, layout.address, int(numbers.max()) + 1)
        _from_array(file, grid, table, numbers, size, runs)
    elif layout.indexed_by == TREE_2:
        _from_records(file, layout.address, grid, table)
    else:
        file.fail("unsupported", layout.address, f"an index of chunks of the unknown kind {layout.indexed_by}")
    return table


def _numbers(grid: Grid) -> NDArray[np.int64]:
    """Return the position in an array of every chunk of the grid.

    Arrays count over the dataset as it may become. An axis without end comes first, whatever its place.
    """
    most = grid.most
    order = sorted(range(len(most)), key=lambda axis: most[axis] is not None)  # stable
    strides, stride = [0] * len(most), 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= most[axis] or 1
    last = sum((n - 1) * step for n, step in zip(grid.counts, strides, strict=True))
    if last >= 1 << 48:
        raise FormatError("bad-shape", "chunks", f"a dataset whose chunk number {last:,} is stored")
    numbers = np.zeros((1,) * len(most), np.int64)
    for axis, (n, step) in enumerate(zip(grid.counts, strides, strict=True)):
        along = np.arange(n, dtype=np.int64) * (step if n > 1 else 0)
        numbers = numbers + along.reshape([-1 if other == axis else 1 for other in range(len(most))])
    return numbers.reshape(-1)


def _set(table: ChunkTable, grid: Grid, corner: list[int], scale: bool, place: tuple[int, int, int]) -> None:
    """Note a chunk by its corner, in elements or (`scale`) in chunks; one that is not of the grid is left out."""
    number = 0
    for at, n, edge in zip(corner, grid.counts, grid.edges, strict=True):
        index, rest = (at, 0) if scale else divmod(at, edge)
        if rest or index >= n:
            return
        number = number * n + index
    address, size, mask = place
    if address < 1 << 62 and size < 1 << 62:
        table.address[number], table.size[number], table.mask[number] = address, size, mask


def _from_tree(file: Structure, address: int, grid: Grid, table: ChunkTable) -> None:
    rank = len(grid.counts)
    for key, child in leaves(file, address, _CHUNK_NODE, 8 * (rank + 2)):
        size, mask = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")
        corner = [int.from_bytes(key[at : at + 8], "little") for at in range(8, 8 + 8 * rank, 8)]
        _set(table, grid, corner, False, (child, size, mask))


def _from_records(file: Structure, address: int, grid: Grid, table: ChunkTable) -> None:
    wide, rank = file.address_size, len(grid.counts)
    kind = _FILTERED_RECORD if grid.filtered else _CHUNK_RECORD
    for record in records(file, address, kind):
        place, size, mask = defined(record[:wide]), grid.nbytes, 0
        at = len(record) - 8 * rank
        if grid.filtered:
            size, mask = int.from_bytes(record[wide : at - 4], "little"), int.from_bytes(record[at - 4 : at], "little")
        if at < wide or place is None:
            file.fail("bad-tree", address, "a chunk that is nowhere")
        corner = [int.from_bytes(record[i : i + 8], "little") for i in range(at, len(record), 8)]
        _set(table, grid, corner, True, (place, size, mask))


def _from_array(
    file: Structure, grid: Grid, table: ChunkTable, numbers: NDArray[np.int64], size: int, runs: Iterator[_Run]
) -> None:
    """Look up the entries with these numbers: an address, and with filters stored bytes and a mask behind it."""
    wide = file.address_size
    if size < wide + (5 if grid.filtered else 0):
        raise FormatError("bad-chunk-index", file.source.name, f"entries of {size} bytes in an index of chunks")
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    for run in runs:
        low, high = np.searchsorted(ordered, (run.first, run.first + run.length))
        if low == high:
            continue
        start, stop = int(ordered[low]) - run.first, int(ordered[high - 1]) - run.first + 1
        held = np.frombuffer(file.read(run.address + start * size, (stop - start) * size), np.uint8).reshape(-1, size)
        held = held[ordered[low:high] - ordered[low]]
        where = order[low:high]
        table.address[where] = _little(held[:, :wide])  # all bits set, which is nowhere, becomes -1 or a place too far
        table.size[where] = _little(held[:, wide:-4]) if grid.filtered else grid.nbytes
        table.mask[where] = _little(held[:, -4:]).astype(np.uint32) if grid.filtered else 0


def _little(columns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return little-endian numbers of the rows, which are at most 8 bytes wide."""
    whole = np.zeros((len(columns), 8), np.uint8)
    whole[:, : columns.shape[1]] = columns[:, :8]
    return whole.view("<i8").reshape(-1)


def _pages(file: Structure, run: _Run, page: int, size: int, bits: memoryview, bit: int) -> Iterator[_Run]:
    """Cut entries into the pages that were written, each with a checksum; bit `bit` of `bits` is of the first."""
    first, count, address = run
    pages = -(-count // page)
    # room for all is made at once, whether they are written or not
    end = file.base + address + count * size + 4 * pages
    if end > file.source.size:
        file.fail("bad-chunk-index", address, f"{pages:,} pages of an index of chunks, which end behind the file")
    for number in range(pages):
        if bits[(bit + number) // 8] & 0x80 >> (bit + number) % 8:
            start = number * page
            yield _Run(first + start, min(page, count - start), address + number * (page * size + 4))


def _fixed_array(file: Structure, address: int) -> tuple[int, Iterator[_Run]]:
    """Return the size of an entry of a fixed array and where its entries are."""
    head = file.fields(address, 8 + file.length_size + file.address_size, b"FAHD")
    head.skip(2)
    size, page_bits = head.number(1), head.number(1)
    count, block = head.length(), head.address()
    return size, _fixed_block(file, block, count, size, page_bits)


def _fixed_block(file: Structure, block: int | None, count: int, size: int, page_bits: int) -> Iterator[_Run]:
    if block is None:
        return
    prefix = 6 + file.address_size
    file.fields(block, prefix, b"FADB")
    if page_bits > 32 or count <= 1 << page_bits:
        yield _Run(0, count, block + prefix)
        return
    page = 1 << page_bits
    pages = -(-count // page)
    bits = file.read(block + prefix, -(-pages // 8))
    file.charge(pages, pages)
    yield from _pages(file, _Run(0, count, block + prefix + len(bits) + 4), page, size, bits, 0)


class _Extensible(NamedTuple):
    """Parameters of an extensible array, whose blocks grow with the square root of their number."""

    size: int
    offset_size: int
    page: int
    inline: int  # entries in the index block
    smallest: int  # entries of the first data block
    supers: int  # super blocks, of which the first ones exist only as their entries in the index block
    inline_supers: int

    def blocks(self, level: int) -> tuple[int, int]:
        """Return how many data blocks a super block has, and how many entries each of them."""
        return 1 << level // 2, self.smallest << (level + 1) // 2


def _extensible_array(file: Structure, address: int, needed: int) -> tuple[int, Iterator[_Run]]:
    """Return the size of an entry of an extensible array and where its first `needed` entries are."""
    head = file.fields(address, 12 + 6 * file.length_size + file.address_size, b"EAHD")
    head.skip(2)
    size, bits, inline, smallest, pointers, page_bits = (head.number(1) for _ in range(6))
    head.skip(6 * file.length_size)
    index = head.address()
    if not 0 < bits <= 64 or page_bits > 32 or any(n <= 0 or n & n - 1 for n in (smallest, pointers)):
        file.fail("bad-chunk-index", address, "an extensible array with impossible sizes")
    supers = 1 + bits - (smallest.bit_length() - 1)
    array = _Extensible(
        size, (bits + 7) // 8, 1 << page_bits, inline, smallest, supers, 2 * (pointers.bit_length() - 1)
    )
    return size, _extensible_runs(file, index, array, needed)


def _extensible_runs(file: Structure, index: int | None, array: _Extensible, needed: int) -> Iterator[_Run]:
    if index is None:
        return
    wide = file.address_size
    file.fields(index, 6 + wide, b"EAIB")
    at = index + 6 + wide
    yield _Run(0, array.inline, at)
    at += array.inline * array.size
    first = array.inline
    for level in range(array.supers):
        if first >= needed:
            return
        count, entries = array.blocks(level)
        if level < array.inline_supers:
            addresses, bits = file.read(at, count * wide), memoryview(b"")
            at += count * wide
        else:
            super_block = defined(file.read(at, wide))
            at += wide
            if super_block is None:
                first += count * entries
                continue
            addresses, bits = _super_block(file, super_block, array, count, entries)
        file.charge(count, 0)
        for number in range(count):
            block = defined(addresses[number * wide : (number + 1) * wide])
            if block is not None and first < needed:
                yield from _data_block(file, block, array, first, entries, bits, number)
            first += entries


def _super_block(
    file: Structure, address: int, array: _Extensible, count: int, entries: int
) -> tuple[memoryview, memoryview]:
    """Return the addresses of the data blocks of a super block, and which of their pages were written."""
    wide = file.address_size
    pages = entries // array.page if entries > array.page else 0
    prefix, bitmap = 6 + wide + array.offset_size, count * -(-pages // 8)
    block = file.fields(address, prefix + bitmap + count * wide, b"EASB")
    block.skip(prefix - 4)
    bits = block.take(bitmap)
    return block.take(count * wide), bits


def _data_block(
    file: Structure, address: int, array: _Extensible, first: int, entries: int, bits: memoryview, number: int
) -> Iterator[_Run]:
    prefix = 6 + file.address_size + array.offset_size
    file.fields(address, prefix, b"EADB")
    if entries <= array.page:
        yield _Run(first, entries, address + prefix)
    else:
        pages = entries // array.page
        if len(bits) * 8 < (number + 1) * pages:
            file.fail("bad-chunk-index", address, "pages without a note of whether they were written")
        file.charge(pages, pages)
        yield from _pages(
            file, _Run(first, entries, address + prefix + 4), array.page, array.size, bits, number * pages
        )
