"""Where bytes come from. Everything that normsniff reads passes through here and is counted.

A source is random access and knows its size, so that a reader can check a length before it believes
it, and so that local files, bytes in memory and remote ranges look alike.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from .. import meter
from ..errors import SourceError

if TYPE_CHECKING:
    from .place import Place


class ByteSource(Protocol):
    """Random access to `size` bytes.

    Attributes:
        name: what to call the source in messages; for a local file its path.
        size: total length in bytes.
        path: where the file is, or None; siblings (shards, config.json) are looked up beside it.
        gap: bytes that cost as much to read as one more separate read: a plan counts every separate range as its length
            and this. Zero in memory, a page for a file, a round trip's worth of bytes behind a URL.
    """

    name: str
    size: int
    path: Place | None
    gap: int

    @property
    def bytes_read(self) -> int:
        """How many bytes were handed out so far; those that were read twice count once."""
        ...

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


PAGE = 4096
"""Bytes that a disk and its cache move at least; a call to read them costs about as much as copying two of them."""


class Counted:
    """What was handed out, as ranges: bytes that are read twice count once."""

    name: str
    size: int
    gap = PAGE

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []  # in order, apart
        self._recent: list[tuple[int, int]] = []
        self._strips: dict[tuple[int, int], list[tuple[int, int]]] = {}  # of the first range, by stride and number
        self._merge_at = 1024

    @property
    def bytes_read(self) -> int:
        self._merge()
        return sum(stop - start for start, stop in self._ranges)

    def read_at(self, offset: int, n: int) -> memoryview:
        """See `ByteSource`."""
        raise NotImplementedError

    def read_strips(self, start: int, length: int, stride: int, n: int) -> tuple[memoryview, int]:
        """Return `n` ranges of one length, `stride` bytes from start to start, and their stride in what is returned.

        Raises:
            SourceError: a range is not inside the source.
        """
        return memoryview(b"".join([self.read_at(start + i * stride, length) for i in range(n)])), length

    def _count_strips(self, start: int, length: int, stride: int, n: int) -> None:
        """Check and count `n` reads at once."""
        stop = start + (n - 1) * stride + length
        if min(start, length, stride, n - 1) < 0 or stop > self.size:
            raise SourceError(
                f"{self.name} @ {start}", f"bytes up to {stop:,} asked for, the file ends at {self.size:,}"
            )
        meter.charge(n + (n * length >> 13), "reading")
        self._strips.setdefault((stride, n), []).append((start, start + length))

    def _count(self, offset: int, n: int) -> None:
        """Check and count a read."""
        stop = offset + n
        if offset < 0 or n < 0 or stop > self.size:
            raise SourceError(f"{self.name} @ {offset}", f"{n:,} bytes asked for, the file ends at {self.size:,}")
        meter.charge(1 + (n >> 13), "reading")  # a call costs a microsecond, copying 8 KB another
        self._recent.append((offset, stop))
        if len(self._ranges) + len(self._recent) >= self._merge_at:
            self._merge()
            self._merge_at = max(1024, 2 * len(self._ranges))  # so that the sorting stays a small part of the reading

    def _merge(self) -> None:
        for (stride, n), firsts in self._strips.items():  # columns side by side are one range a row
            for start, stop in _merged(firsts):
                self._recent += [(start + i * stride, stop + i * stride) for i in range(n)]
        self._strips.clear()
        if self._recent:
            self._ranges = _merged(self._ranges + self._recent)
            self._recent.clear()


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one."""
    ranges.sort()
    merged = ranges[:1]
    for start, stop in ranges:
        if start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


class BytesSource(Counted):
    """Bytes in memory."""

    gap = 0

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "<bytes>") -> None:
        super().__init__()
        self.name = name
        self.path: Place | None = None
        view = memoryview(data)
        self._view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        self.size = len(self._view)

    def read_at(self, offset: int, n: int) -> memoryview:
        self._count(offset, n)
        return self._view[offset : offset + n]

    def read_strips(self, start: int, length: int, stride: int, n: int) -> tuple[memoryview, int]:
        """Return a view of all that lies between, where nothing is copied."""
        self._count_strips(start, length, stride, n)
        return self._view[start : start + (n - 1) * stride + length], stride

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        """Nothing to release."""


def _open(path: Path, name: str) -> tuple[int, int]:
    """Return the descriptor and the size of a regular file."""
    _require_regular(path.stat().st_mode, name)  # before it is opened: a FIFO would block, a device may react
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(file)
        _require_regular(status.st_mode, name)  # again: another file may have taken its place
    except BaseException:
        os.close(file)
        raise
    return file, status.st_size


def _require_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise SourceError(name, "a directory, not a file")
    if not stat.S_ISREG(mode):
        raise SourceError(name, "not a regular file")


class FileSource(Counted):
    """A local file. It is read, not mapped: a file that shrinks meanwhile is then an error and not a dead process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name = str(path)
        self.path: Place | None = path
        self._file = -1
        try:
            self._file, self.size = _open(path, self.name)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise SourceError(self.name, getattr(error, "strerror", None) or str(error)) from error

    def read_at(self, offset: int, n: int) -> memoryview:
        self._count(offset, n)
        return self._read(offset, n)

    def read_strips(self, start: int, length: int, stride: int, n: int) -> tuple[memoryview, int]:
        """Read every range for itself."""
        self._count_strips(start, length, stride, n)
        return memoryview(b"".join([self._read(start + i * stride, length) for i in range(n)])), length

    def _read(self, offset: int, n: int) -> memoryview:
        try:
            data = _pread(self._file, n, offset)
            while len(data) < n:  # Linux hands out 2 GB a call at most
                piece = _pread(self._file, n - len(data), offset + len(data))
                if not piece:
                    raise SourceError(f"{self.name} @ {offset + len(data)}", "the file was cut while it was read")
                data += piece
        except OSError as error:
            raise SourceError(f"{self.name} @ {offset}", error.strerror or str(error)) from error
        return memoryview(data)

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Nothing to fetch."""

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


def _seek_and_read(file: int, n: int, offset: int) -> bytes:
    """Do what `os.pread` does, where there is none."""
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, n)


_pread = getattr(os, "pread", _seek_and_read)


class StreamSource(Counted):
    """A seekable binary file object, which stays the caller's: it is not closed here."""

    def __init__(self, file: BinaryIO, name: str | None = None) -> None:
        super().__init__()
        self.name = name or str(getattr(file, "name", "<stream>"))
        self.path: Place | None = None
        self._file = file
        try:
            file.seek(0, os.SEEK_END)
            self.size = file.tell()
        except (OSError, ValueError, AttributeError) as error:
            raise SourceError(self.name, "the file object is not seekable") from error

    def read_at(self, offset: int, n: int) -> memoryview:
        self._count(offset, n)
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
