"""Parts of sources, and sources made of parts: a byte range, a window, pieces joined, a file object."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from ..errors import SourceError
from .local import ByteSource, Counted
from .place import Place


class Extent(msgspec.Struct, frozen=True, gc=False):
    """A contiguous byte range of a source."""

    # A Struct, as TensorInfo is: headers of 100,000 tensors exist, and a frozen dataclass costs nine times as much.
    # No cycle can run through either, so that the collector need not walk over all of them again and again.

    source: ByteSource
    start: int
    stop: int


class WindowSource(Counted):
    """A range of another source, for a member of an archive that is stored uncompressed; `start` is where it begins."""

    def __init__(self, parent: ByteSource, start: int, size: int, name: str) -> None:
        super().__init__()
        if start < 0 or size < 0 or start + size > parent.size:
            raise SourceError(f"{parent.name} @ {start}", f"{name}: {size:,} bytes do not fit in the file")
        self.name = f"{parent.name}!{name}"
        self.path: Place | None = None
        self.size = size
        self.gap = parent.gap
        self.start = start
        self._parent = parent

    def read_at(self, offset: int, n: int) -> memoryview:  # documented once, in the protocol
        self._count(offset, n)
        return self._parent.read_at(self.start + offset, n)

    def read_strips(self, start: int, length: int, stride: int, n: int) -> tuple[memoryview, int]:
        if not isinstance(self._parent, Counted):
            return super().read_strips(start, length, stride, n)
        self._count_strips(start, length, stride, n)
        return self._parent.read_strips(self.start + start, length, stride, n)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._parent.prefetch([(self.start + offset, n) for offset, n in ranges])

    def close(self) -> None:
        """The parent holds the file."""


class JoinedSource:
    """Extents one after the other, as one source."""

    def __init__(self, pieces: Sequence[Extent], name: str) -> None:
        self.name = name
        self.path: Place | None = None
        self.bytes_read = 0
        self.gap = max((piece.source.gap for piece in pieces), default=0)
        self._pieces = pieces
        self._ends = list(accumulate(piece.stop - piece.start for piece in pieces))
        self.size = self._ends[-1] if pieces else 0

    def read_at(self, offset: int, n: int) -> memoryview:
        """Return exactly `n` bytes from `offset`."""
        if offset < 0 or n < 0 or offset + n > self.size:
            raise ValueError("a read beyond the last piece")
        found = [self._pieces[at].source.read_at(begin, length) for at, begin, length in self._touched(offset, n)]
        return found[0] if len(found) == 1 else memoryview(b"".join(found))

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Pass the ranges on, each to the pieces that it touches."""
        inside: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for offset, n in ranges:
            for at, begin, length in self._touched(offset, n):
                inside[at].append((begin, length))
        for at in sorted(inside):
            self._pieces[at].source.prefetch(inside[at])

    def _touched(self, offset: int, n: int) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces that `n` bytes from `offset` lie in, each with where in its source, and how many of them."""
        at = bisect_right(self._ends, offset)
        while n > 0 and at < len(self._pieces):
            piece, end = self._pieces[at], self._ends[at]
            length = min(n, end - offset)
            if length:
                yield at, piece.stop - (end - offset), length
            offset, n, at = offset + length, n - length, at + 1

    def close(self) -> None:
        """The pieces belong to a source of their own."""


class SourceFile(io.RawIOBase):
    """A `ByteSource` as a file object, with a cap on single reads and on their sum.

    Attributes:
        largest: the longest read that is allowed, or None.
        size: of the source, in bytes.
    """

    def __init__(self, source: ByteSource, largest: int | None = None) -> None:
        super().__init__()
        self.largest = largest
        self.size = source.size
        self._source = source
        self._at = 0
        # Structure is read about once; a library that loops over a malformed file is stopped here.
        self._budget = 8 * source.size + (1 << 20)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also beyond the end; nothing can be read there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the source goes, or fail if that is over a cap."""
        view = memoryview(buffer).cast("B")
        n = max(0, min(len(view), self._source.size - self._at))
        self._budget -= n
        if self._budget < 0 or (self.largest is not None and n > self.largest):
            raise OSError(f"a read of {n:,} bytes is over the cap")
        view[:n] = self._source.read_at(self._at, n)
        self._at += n
        return n
