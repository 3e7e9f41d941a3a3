"""Where bytes come from. Everything that normsniff reads passes through here and is counted.

A source is random access and knows its size, so that a reader can check a length before it believes
it, and so that local files, bytes in memory and (later) remote ranges look alike.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from .errors import SourceError


class ByteSource(Protocol):
    """Random access to `size` bytes.

    Attributes:
        name: what to call the source in messages; for a local file its path.
        size: total length in bytes.
        path: the local path, or None; siblings (shards, config.json) are looked up beside it.
        bytes_read: how many bytes were handed out so far.
    """

    name: str
    size: int
    path: Path | None
    bytes_read: int

    def read_at(self, offset: int, n: int) -> memoryview:
        """Return exactly `n` bytes from `offset`.

        Raises:
            SourceError: the range is not inside the source.
        """
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
        self.path: Path | None = None
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)
        self.bytes_read = 0

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._view[offset : offset + n]

    def close(self) -> None:
        """Nothing to release."""


class FileSource:
    """A local file, mapped: only the pages that are touched are read."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path: Path | None = path
        self.bytes_read = 0
        self._map: mmap.mmap | None = None
        try:
            with path.open("rb") as file:
                if not path.is_file():  # a FIFO or a device would block or never end
                    raise SourceError(self.name, "not a regular file")
                self.size = os.fstat(file.fileno()).st_size
                if self.size:  # an empty file cannot be mapped
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise SourceError(self.name, error.strerror or str(error)) from error
        self._view = memoryview(self._map) if self._map is not None else memoryview(b"")

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._view[offset : offset + n]

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
        self.path: Path | None = None
        self.bytes_read = 0
        self._file = file
        try:
            self.size = file.seek(0, os.SEEK_END)
        except (OSError, ValueError, AttributeError) as error:
            raise SourceError(self.name, "the file object is not seekable") from error

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        try:
            self._file.seek(offset)
            data = self._file.read(n)
        except (OSError, ValueError) as error:
            raise SourceError(self.name, str(error)) from error
        if len(data) != n:
            raise SourceError(f"{self.name} @ {offset}", f"{n:,} bytes asked for, {len(data):,} came")
        return memoryview(data)

    def close(self) -> None:
        """The caller owns the file."""


class WindowSource:
    """A range of another source, for a member of an archive that is stored uncompressed."""

    def __init__(self, parent: ByteSource, start: int, size: int, name: str) -> None:
        if start < 0 or size < 0 or start + size > parent.size:
            raise SourceError(f"{parent.name} @ {start}", f"{name}: {size:,} bytes do not fit in the file")
        self.name = f"{parent.name}!{name}"
        self.path: Path | None = None
        self.size = size
        self.bytes_read = 0
        self._parent = parent
        self._start = start

    def read_at(self, offset: int, n: int) -> memoryview:
        _checked(self, offset, n)
        return self._parent.read_at(self._start + offset, n)

    def close(self) -> None:
        """The parent holds the file."""
