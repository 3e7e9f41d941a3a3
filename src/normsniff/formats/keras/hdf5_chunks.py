"""Chunked HDF5 datasets: where the chunks lie, and the standard filters undone within bounds.

The library is not asked to inflate, since its deflate filter grows its buffer until the stream ends, whatever the
dataset's shape; and filters that it does not know make it look for plug-ins.
"""

from __future__ import annotations

import itertools
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, parsing
from ...limits import Limits
from ...source.local import ByteSource

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # H5Z_FILTER_*


class _Chunked:
    """A chunked dataset: we know where its chunks lie and undo the standard filters ourselves, within bounds."""

    def __init__(
        self,
        name: str,
        source: ByteSource,
        shape: tuple[int, ...],
        chunk: tuple[int, ...],
        dtype: Any,
        filters: list[int],
    ) -> None:
        self._name, self._source, self._shape, self._chunk = name, source, shape, chunk
        self._dtype: np.dtype[Any] = dtype
        self._filters = filters
        self._nbytes = math.prod(chunk) * self._dtype.itemsize
        self.table: dict[tuple[int, ...], tuple[int, int, int]] = {}

    def add(self, info: Any) -> bool | None:
        """Note one chunk; True (which ends the enumeration) if the chunk cannot be one."""
        stored = self._nbytes + self._nbytes // 8 + 4096  # deflate grows incompressible data by far less
        corner = tuple(info.chunk_offset)
        on_grid = all(at % c == 0 and at < n for at, c, n in zip(corner, self._chunk, self._shape, strict=True))
        end = (info.byte_offset or self._source.size) + info.size
        if not on_grid or info.size > stored or end > self._source.size:
            return True
        self.table[corner] = (info.byte_offset, info.size, info.filter_mask)
        return None

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        spans = [range(*span.indices(n)) for span, n in zip(index, self._shape, strict=True)]
        values = np.empty([len(span) for span in spans], self._dtype)
        grid = (range(span.start // c * c, span.stop, c) for span, c in zip(spans, self._chunk, strict=True))
        for corner in itertools.product(*grid):
            take, put = [], []
            for at, span, c in zip(corner, spans, self._chunk, strict=True):
                first, last = max(at, span.start), min(at + c, span.stop)
                take.append(slice(first - at, last - at))
                put.append(slice(first - span.start, last - span.start))
            values[tuple(put)] = self._decode(corner)[tuple(take)]
        return values

    def _decode(self, corner: tuple[int, ...]) -> NDArray[Any]:
        offset, size, mask = self.table[corner]
        data: bytes | memoryview = self._source.read_at(offset, size)
        for position in reversed(range(len(self._filters))):
            if mask >> position & 1:  # this filter was left out for this chunk
                continue
            if self._filters[position] == _FLETCHER32:
                data = data[:-4]
            elif self._filters[position] == _DEFLATE:
                with parsing(f"{self._source.name} # {self._name} @ {offset}"):
                    data = zlib.decompressobj().decompress(data, self._nbytes + 8)
            elif len(data) == self._nbytes:  # shuffle: byte 0 of every element, then byte 1 ...
                data = np.frombuffer(data, np.uint8).reshape(self._dtype.itemsize, -1).T.tobytes()
        if len(data) != self._nbytes:
            where = f"{self._source.name} # {self._name} @ {offset}"
            raise FormatError("bad-chunk", where, f"a chunk of {self._nbytes:,} bytes holds {len(data):,}")
        return np.frombuffer(data, self._dtype).reshape(self._chunk)


def locate_chunks(
    dataset: Any,
    plan: Any,
    path: str,
    shape: tuple[int, ...],
    dtype: Any,
    source: ByteSource,
    limits: Limits,
    left: int,
) -> tuple[_Chunked, int]:
    """Return a slab over a chunked dataset, and how many chunks it has.

    Raises:
        FormatError: unknown filters, chunks over the caps, or chunks that are missing or not in the file.
    """
    where = f"{source.name} # {path}"
    chunk, filters = plan.get_chunk(), [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if unknown := set(filters) - {_DEFLATE, _SHUFFLE, _FLETCHER32}:
        raise FormatError("filter", where, f"compressed with HDF5 filter {min(unknown)}, which is not read here")
    nbytes = math.prod(chunk) * dtype.itemsize
    if nbytes > limits.tensor_bytes:
        raise FormatError("large-chunk", where, f"a chunk of {nbytes:,} bytes is over the limit on tensors read whole")
    wanted = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if wanted > left:
        raise FormatError("many-chunks", where, f"{wanted:,} chunks, and {left:,} more are allowed in this file")
    slab = _Chunked(path, source, shape, tuple(chunk), dtype, filters)
    dataset.chunk_iter(slab.add)
    if (sound := len(slab.table)) != wanted:
        raise FormatError("no-data", where, f"{sound:,} sound chunks are stored for a shape that needs {wanted:,}")
    return slab, wanted
