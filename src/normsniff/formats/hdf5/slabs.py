"""Values of chunked datasets: chunks are read and decoded one by one, within bounds.

Deflate stops at the size of the chunk, whatever the stream holds; a filter that we do not know is refused.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dtypes import UNITS, numpy_type
from ...errors import FormatError, parsing
from ...meter import charge
from ...source.local import ByteSource
from .chunks import ChunkTable, Grid
from .layouts import DEFLATE, FLETCHER32, Filter

_STEPS = 8  # of the meter: a chunk takes so many microseconds, however small it is
_BYTES_A_STEP = 512  # and one for so many bytes, once to copy it and once a filter: inflating runs at 260 MB/s


class ChunkedSlab:
    """A chunked dataset that can be sliced.

    Args:
        name: of the dataset, for messages.
        source: the file.
        base: where the addresses of the file count from.
        shape: of the dataset.
        dtype: of the stored elements, a key of `UNITS`.
        order: of their bytes.
        grid: its chunks.
        table: where they are.
        filters: what they went through.
        plain_edges: whether chunks that stick out over the end were not filtered.
    """

    def __init__(
        self,
        name: str,
        source: ByteSource,
        base: int,
        shape: tuple[int, ...],
        dtype: str,
        order: str,
        grid: Grid,
        table: ChunkTable,
        filters: tuple[Filter, ...],
        plain_edges: bool,
    ) -> None:
        self._name, self._source, self._base = name, source, base
        self._shape, self._grid, self._table = shape, grid, table
        self._type, self._itemsize = numpy_type(dtype, order), UNITS[dtype][1]
        self._filters, self._plain_edges = filters, plain_edges

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index` (one slice an axis)."""
        edges = self._grid.edges
        spans = [range(*span.indices(n)) for span, n in zip(index, self._shape, strict=True)]
        values = np.empty([len(span) for span in spans], self._type)
        if not values.size:
            return values
        grid = (range(span.start // c, -(-span.stop // c)) for span, c in zip(spans, edges, strict=True))
        for place in itertools.product(*grid):
            take, put = [], []
            for number, span, c in zip(place, spans, edges, strict=True):
                first, last = max(number * c, span.start), min(number * c + c, span.stop)
                take.append(slice(first - number * c, last - number * c))
                put.append(slice(first - span.start, last - span.start))
            values[tuple(put)] = self._decode(place)[tuple(take)]
        return values

    def _decode(self, place: tuple[int, ...]) -> NDArray[Any]:
        number, nbytes = 0, self._grid.nbytes
        for at, n in zip(place, self._grid.counts, strict=True):
            number = number * n + at
        offset, size = self._base + int(self._table.address[number]), int(self._table.size[number])
        mask = int(self._table.mask[number])
        edges = zip(place, self._grid.edges, self._shape, strict=True)
        if self._plain_edges and any((at + 1) * c > n for at, c, n in edges):
            mask = -1  # all filters were left out
        charge(_STEPS + nbytes // _BYTES_A_STEP * (1 + len(self._filters)), "chunks of an HDF5 dataset")
        data: bytes | memoryview = self._source.read_at(offset, size)
        where = f"{self._source.name} # {self._name} @ {offset}"
        with parsing(where):
            for position in reversed(range(len(self._filters))):
                if not mask >> position & 1:
                    data = _undo(self._filters[position], data, nbytes, self._itemsize)
        if len(data) != nbytes:
            raise FormatError("bad-chunk", where, f"a chunk of {nbytes:,} bytes holds {len(data):,}")
        return np.frombuffer(data, self._type).reshape(self._grid.edges)


def _undo(step: Filter, data: bytes | memoryview, nbytes: int, itemsize: int) -> bytes | memoryview:
    """Undo one filter; the result is at most `nbytes` and a checksum long."""
    if step.number == FLETCHER32:
        return data[:-4]
    if step.number == DEFLATE:
        return zlib.decompressobj().decompress(data, nbytes + 8)
    width = step.parameters[0] if step.parameters else itemsize  # shuffle: byte 0 of all elements, then byte 1 ...
    whole = len(data) - len(data) % width if 0 < width <= len(data) else 0
    if width < 2 or not whole:
        return data
    return np.frombuffer(data[:whole], np.uint8).reshape(width, -1).T.tobytes() + bytes(data[whole:])
