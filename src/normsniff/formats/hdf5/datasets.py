"""Datasets: the type, the shape and the place of their values, taken only if the values are all there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...checkpoint import ArraySlab, Slab
from ...dtypes import UNITS, numpy_type
from ...errors import FormatError
from ...limits import Limits
from ...source.views import Extent
from .chunks import ChunkTable, Grid, locate
from .datatypes import NOT_NUMBERS, Datatype, read_datatype, read_shape
from .file import Structure
from .headers import DATASPACE, DATATYPE, LAYOUT, Header
from .layouts import (
    CHUNKED,
    COMPACT,
    DEFLATE,
    FLETCHER32,
    IMPLICIT,
    SHUFFLE,
    SINGLE,
    Filter,
    Layout,
    read_filters,
    read_layout,
)
from .slabs import ChunkedSlab


class Dataset(NamedTuple):
    """What the header of a dataset says of it; `most` is how far each axis may grow."""

    file: Structure
    datatype: Datatype
    shape: tuple[int, ...]
    most: tuple[int | None, ...]
    layout: Layout
    filters: tuple[Filter, ...]


def is_dataset(header: Header) -> bool:
    """Whether an object is a dataset."""
    return header.has(LAYOUT) and header.has(DATATYPE) and header.has(DATASPACE)


def read_dataset(header: Header) -> Dataset:
    """Read what a dataset is.

    Raises:
        FormatError: it is damaged, its values are in other files, are no numbers, or it has none.
    """
    layout = read_layout(header)
    kind, space = header.find(DATATYPE), header.find(DATASPACE)
    assert kind is not None  # `is_dataset`
    assert space is not None
    datatype = read_datatype(kind)
    if datatype.kind in NOT_NUMBERS:
        kind.fail("not-numbers", "holds no numbers")
    shape = read_shape(space)
    if shape is None:
        space.fail("empty", "has no data")
    return Dataset(header.file, datatype, *shape, layout, read_filters(header))


def place(dataset: Dataset, dtype: str, name: str, limits: Limits, chunks_left: int) -> tuple[Extent | Slab, int]:
    """Return where the values of a dataset are, and how many chunks it has.

    Args:
        dataset: a dataset.
        dtype: what its elements are, a key of `UNITS`.
        name: of the dataset, for messages.
        limits: caps on chunks.
        chunks_left: chunks that the file may still have.

    Raises:
        FormatError: values are missing or not in the file, filters are not known, or chunks are over the caps.
    """
    file, layout, shape = dataset.file, dataset.layout, dataset.shape
    source, order = file.source, dataset.datatype.order
    nbytes = math.prod(shape) * UNITS[dtype][1]
    if not nbytes:
        return Extent(source, 0, 0), 0
    if layout.kind == CHUNKED:
        grid = _grid(dataset, limits, chunks_left)
        table = _find_chunks(dataset, grid)
        slab = ChunkedSlab(
            name, source, file.base, shape, dtype, order, grid, table, dataset.filters, layout.plain_edges
        )
        return slab, grid.total
    held = nbytes if layout.size is None else layout.size
    if layout.kind != COMPACT and layout.address is None:
        held = 0
    if held != nbytes:
        raise FormatError("no-data", source.name, f"{held:,} bytes are stored for a shape that needs {nbytes:,}")
    if layout.kind == COMPACT:  # inside the object header, so below 64 kB
        return ArraySlab(np.frombuffer(bytes(layout.data), numpy_type(dtype, order)).reshape(shape)), 0
    assert layout.address is not None
    start = file.base + layout.address
    if start + nbytes > source.size:
        raise FormatError("bad-offset", file.where(layout.address), f"its {nbytes:,} bytes do not lie in the file")
    return Extent(source, start, start + nbytes), 0


def _grid(dataset: Dataset, limits: Limits, chunks_left: int) -> Grid:
    """Return the chunks that a dataset must have, if it may have so many and so large ones."""
    name, edges, shape = dataset.file.source.name, dataset.layout.chunk, dataset.shape
    for step in dataset.filters:
        if step.number not in (DEFLATE, SHUFFLE, FLETCHER32):
            raise FormatError("filter", name, f"compressed with HDF5 filter {step.words}, which is not read here")
    if len(edges) != len(shape) or not all(edges):
        raise FormatError("bad-chunk", name, f"chunks of {edges} elements in a dataset of {shape}")
    nbytes = math.prod(edges) * dataset.datatype.size
    if nbytes > limits.tensor_bytes:
        raise FormatError("large-chunk", name, f"a chunk of {nbytes:,} bytes is over the limit on tensors read whole")
    counts = tuple(-(-n // c) for n, c in zip(shape, edges, strict=True))
    most = tuple(None if n is None else max(-(-n // c), 1) for n, c in zip(dataset.most, edges, strict=True))
    grid = Grid(counts, edges, most, nbytes, bool(dataset.filters))
    if grid.total > chunks_left:
        raise FormatError("many-chunks", name, f"{grid.total:,} chunks, and {chunks_left:,} more are allowed")
    return grid


def _find_chunks(dataset: Dataset, grid: Grid) -> ChunkTable:
    """Return where the chunks are, once it is sure that they all are somewhere."""
    file, layout = dataset.file, dataset.layout
    entry = grid.nbytes if layout.indexed_by in (SINGLE, IMPLICIT) else file.address_size  # in the index, at least
    possible = layout.address is not None and (grid.total - 1) * entry <= file.source.size
    table = locate(file, layout, grid) if possible else ChunkTable(0)
    stored = grid.nbytes + grid.nbytes // 8 + 4096  # deflate grows incompressible data by far less
    if (sound := table.sound(file.source.size - file.base, stored)) != grid.total:
        detail = f"{sound:,} sound chunks are stored for a shape that needs {grid.total:,}"
        raise FormatError("no-data", file.source.name, detail)
    return table
