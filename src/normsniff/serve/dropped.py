"""Files that a page holds, as a file system: what is read of them is asked of the page, and nothing else leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ..limits import Limits
from ..source.remote.answers import Entry, Head, RefusedError
from ..source.remote.files import Count
from ..source.remote.link import Link
from ..source.remote.paths import RemotePath
from .line import Calling

SCHEME = "dropped"
_TOP = "files"  # the directory that all of a drop is in: a place needs one
PREFIX = f"{SCHEME}://{_TOP}/"
"""What stands before the names of dropped files in messages."""

_Folder: TypeAlias = "dict[str, _Folder | None]"  # None stands for a file

ANSWER = 1 << 23
"""Bytes that are asked for at a time: half of what a WebSocket's message may have."""


class PageFiles:
    """The files of one drop, in the order in which the page numbers them."""

    def __init__(self, line: Calling | None, files: Sequence[tuple[str, int]]) -> None:
        """Take the listing; nothing is read yet.

        Args:
            line: to the page; None where only names are asked for.
            files: path, with slashes, and size in bytes of each.
        """
        self._line = line
        self._files = {f"{PREFIX}{path}": (number, size) for number, (path, size) in enumerate(files)}
        self._top: _Folder = {}
        for path, _ in files:
            *parts, last = path.split("/")
            folder = self._top
            for part in parts:
                folder[part] = below = folder.get(part) or {}
                folder = below
            folder.setdefault(last, None)

    def head_file(self, url: str, n: int, count: Count, _seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        if url not in self._files:
            raise FileNotFoundError if self._folder(url) is None else IsADirectoryError
        number, size = self._files[url]
        data = self._read([(number, 0, min(n, size))], count)
        return Head(size, data, None, url)

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, _seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges."""
        number, _ = self._files[head.url]
        found: list[bytes | BaseException] = []
        for some in _portions(ranges):
            data, at = self._read([(number, start, stop) for start, stop in some], count), 0
            for start, stop in some:
                found.append(data[at : at + stop - start])
                at += stop - start
        return found

    def requests_for(self, _head: Head, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many questions `read_ranges` will ask."""
        return sum(1 for _ in _portions(ranges))

    def entries(self, url: str, _count: Count, _seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        folder = self._folder(url)
        if folder is None:
            raise NotADirectoryError if url.rstrip("/") in self._files else FileNotFoundError
        return [Entry(name, below is not None) for name, below in folder.items()]

    def _folder(self, url: str) -> _Folder | None:
        folder: _Folder | None = self._top
        for part in url.removeprefix(PREFIX.rstrip("/")).strip("/").split("/"):
            if folder is None or not part:
                break
            folder = folder.get(part)
        return folder

    def _read(self, ranges: list[tuple[int, int, int]], count: Count) -> bytes:
        if self._line is None:
            raise RefusedError("only names are known")
        data = self._line.ask(ranges) if any(start < stop for _, start, stop in ranges) else b""
        count(len(data))
        return data


def place_of_drop(line: Calling | None, files: Sequence[tuple[str, int]], path: str, limits: Limits) -> RemotePath:
    """Return the place of a dropped file or directory; "" is all of the drop."""
    link = Link(SCHEME, limits, f"{PREFIX}{path}", PageFiles(line, files))
    return RemotePath(SCHEME, f"{_TOP}/{path}" if path else _TOP, link)


def plain(text: str) -> str:
    """Return a text without what stands before the names of dropped files."""
    return text.replace(PREFIX, "")


def _portions(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield ranges that are asked for together; each is at most as long as the largest that is fetched as one."""
    some: list[tuple[int, int]] = []
    size = 0
    for start, stop in ranges:
        if some and size + stop - start > ANSWER:
            yield some
            some, size = [], 0
        some.append((start, stop))
        size += stop - start
    if some:
        yield some
