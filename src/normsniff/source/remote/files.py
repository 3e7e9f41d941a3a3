"""What is asked of a file system behind a URL, and how fsspec answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from .answers import TOGETHER, Entry, Head, RefusedError

Count: TypeAlias = Callable[[int], object]
"""Told how many bytes come over the network, asked for or not; raises LimitExceeded where they are too many."""


class Files(Protocol):
    """What a link asks. Whatever goes wrong is an exception of the library's own, or one of `answers`.

    What is asked for must be there in so many `seconds`, whatever it takes; then it is a TimeoutError.
    """

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        ...

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        ...

    def requests_for(self, head: Head, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many requests `read_ranges` will send."""
        ...

    def entries(self, url: str, count: Count, seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        ...


class OneByOne:
    """File systems that ask for every range by a request of its own."""

    def requests_for(self, _head: Head, ranges: Sequence[tuple[int, int]]) -> int:
        """Return how many requests `read_ranges` will send."""
        return len(ranges)


class Plain(OneByOne):
    """Any asynchronous file system of fsspec. A file that changes while it is read shows only if it gets shorter."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def head_file(self, url: str, n: int, count: Count, seconds: float) -> Head:
        """Return the first `n` bytes of a file, or all of a shorter one."""
        head: Head = self._within(seconds, self._head, url, n, count)
        return head

    async def _head(self, url: str, n: int, count: Count) -> Head:
        size = size_of(await self._files._info(url))
        count(min(n, size))
        return Head(size, await self._files._cat_file(url, 0, min(n, size)) if size else b"", None, url)

    def read_ranges(
        self, head: Head, ranges: Sequence[tuple[int, int]], count: Count, seconds: float
    ) -> Sequence[bytes | BaseException]:
        """Return the bytes of (start, stop) ranges, an exception for each that failed."""
        count(sum(stop - start for start, stop in ranges))
        return cat_ranges(self._files, head.url, ranges, seconds)

    def entries(self, url: str, _count: Count, seconds: float) -> list[Entry]:
        """Return what is in a directory."""
        listed = self._within(seconds, self._files._ls, url, detail=True)
        if [one["name"] for one in listed] == [url.partition("://")[2].rstrip("/")]:
            raise NotADirectoryError
        return entries_of(listed)

    def _within(self, seconds: float, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        from fsspec.asyn import sync

        return sync(self._files.loop, call, *args, timeout=seconds, **options)


def size_of(info: dict[str, Any]) -> int:
    """Return the size of a file out of what fsspec knows about it."""
    if info["type"] == "directory":
        raise IsADirectoryError
    if not isinstance(info["size"], int):
        raise RefusedError("the server does not tell how large the file is")
    return info["size"]


def entries_of(listed: Sequence[Any]) -> list[Entry]:
    """Return fsspec's listing of a directory as entries."""
    return [Entry(one["name"].rstrip("/").rpartition("/")[2], one["type"] == "directory") for one in listed]


def cat_ranges(
    files: Any, url: str, ranges: Sequence[tuple[int, int]], seconds: float, **options: Any
) -> Sequence[bytes | BaseException]:
    """Fetch ranges at the same time, with fsspec."""
    from fsspec.asyn import sync

    starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
    try:
        found: Sequence[bytes | BaseException] = sync(
            files.loop, files._cat_ranges, [url] * len(ranges), starts, stops,
            batch_size=TOGETHER, on_error="return", timeout=seconds, **options,
        )  # fmt: skip
    except TimeoutError as error:
        return [error] * len(ranges)
    return found
