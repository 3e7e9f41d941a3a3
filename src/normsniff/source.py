"""Where bytes come from. Everything that normsniff reads passes through here and is counted.

A source is random access and knows its size, so that a reader can check a length before it believes
it, and so that local files, bytes in memory and remote ranges look alike.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .errors import SourceError

if TYPE_CHECKING:
    from .places import Place


class ByteSource(Protocol):
    """Random access to `size` bytes.

    Attributes:
        name: what to call the source in messages; for a local file its path.
        size: total length in bytes.
        path: where the file is, or None; siblings (shards, config.json) are looked up beside it.
        bytes_read: how many bytes were handed out so far.
        gap: bytes that cost as much to read as one more separate read: a plan counts every separate range as its length
            and this. Zero in memory, a page for a file, a round trip's worth of bytes behind a URL.
    """

    name: str
    size: int
    path: Place | None
    bytes_read: int
    gap: int

    def read_at(self, offset: int, n: int) -> memoryview:
        """Return exactly `n` bytes from `offset`.

        Raises:
            SourceError: the range is not inside the source.
        """
        ...

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Say that these (offset, n) will be read soon, so that a remote source can fetch them together."""
        ...

    def close(self) -> None:
        """Release the file; views that were handed out stay valid as long as they are referenced."""
        ...


def _checked(source: ByteSource, offset: int, n: int) -> None:
    if offset < 0 or n < 0 or offset + n > source.size:
        raise SourceError(f"{source.name} @ {offset}", f"{n:,} bytes asked for, the file ends at {source.size:,}")
    source.bytes_read += n


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "<bytes>") -> None:
        self.name = name
        self.path: Place | None = None
        view = memoryview(data)
        self._view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        self.size = len(self._view)
        self.bytes_read = 0
        self.gap = 0

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._view[offset : offset + n]

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """Nothing to release."""


def _map(path: Path, name: str) -> tuple[int, mmap.mmap | None]:
    """Return the size of a regular file and its mapping, None for an empty one."""
    _require_regular(path.stat().st_mode, name)  # before it is opened: a FIFO would block, a device may react
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        _require_regular(status.st_mode, name)  # again: another file may have taken its place
        size = status.st_size
        return size, mmap.mmap(file, size, access=mmap.ACCESS_READ) if size else None
    finally:
        os.close(file)


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise SourceError(name, "a directory, not a file")
    if not stat.S_ISREG(mode):
        raise SourceError(name, "not a regular file")


class FileSource:
    """A local file, mapped: only the pages that are touched are read."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path: Place | None = path
        self.bytes_read = 0
        self.gap = mmap.PAGESIZE
        self._map: mmap.mmap | None = None
        try:
            self.size, self._map = _map(path, self.name)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or the file shrank meanwhile
            raise SourceError(self.name, getattr(error, "strerror", None) or str(error)) from error
        self._view = memoryview(self._map) if self._map is not None else memoryview(b"")

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._view[offset : offset + n]

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """Unmap now if no view is alive, else when the last one is dropped."""
        try:
            self._view.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            pass


class StreamSource:
    """A seekable binary file object, which stays the caller's: it is not closed here."""

    def __init__(self, file: BinaryIO, name: str | None = None) -> None:
        self.name = name or str(getattr(file, "name", "<stream>"))
        self.path: Place | None = None
        self.bytes_read = 0
        self.gap = mmap.PAGESIZE
        self._file = file
        try:
            file.seek(0, os.SEEK_END)
            self.size = file.tell()
        except (OSError, ValueError, AttributeError) as error:
            raise SourceError(self.name, "the file object is not seekable") from error

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        data = bytearray()
        try:
            self._file.seek(offset)
            while len(data) < n:  # an unbuffered file may return less than asked for
                piece = self._file.read(n - len(data))
                if not piece:
                    break
                data += piece
        except (OSError, ValueError, TypeError) as error:  # TypeError: a text file
            raise SourceError(self.name, str(error)) from error
        if len(data) != n:
            raise SourceError(f"{self.name} @ {offset}", f"{n:,} bytes asked for, {len(data):,} came")
        return memoryview(data)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """The caller owns the file."""


class WindowSource:
    """A range of another source, for a member of an archive that is stored uncompressed; `start` is where it begins."""

    def __init__(self, parent: ByteSource, start: int, size: int, name: str) -> None:
        if start < 0 or size < 0 or start + size > parent.size:
            raise SourceError(f"{parent.name} @ {start}", f"{name}: {size:,} bytes do not fit in the file")
        self.name = f"{parent.name}!{name}"
        self.path: Place | None = None
        self.size = size
        self.bytes_read = 0
        self.start = start
        self.gap = parent.gap
        self._parent = parent

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._parent.read_at(self.start + offset, n)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._parent.prefetch([(self.start + offset, n) for offset, n in ranges])

    def close(self) -> None:
        """The parent holds the file."""
