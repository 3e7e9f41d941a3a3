"""Pieces of a file that were fetched, and what is missing between them."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Extents:
    """Byte ranges in memory that do not overlap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._data: dict[int, memoryview] = {}

    def add(self, start: int, data: bytes) -> None:
        """Keep `data`, which lies at `start`; the range was `missing` before."""
        if data:
            insort(self._starts, start)
            self._data[start] = memoryview(data)

    def get(self, start: int, n: int) -> memoryview | None:
        """Return `n` bytes from `start`, or None if some are missing."""
        pieces: list[memoryview] = []
        at, stop = start, start + n
        index = bisect_right(self._starts, at) - 1
        while at < stop:
            if not 0 <= index < len(self._starts):
                return None
            begin = self._starts[index]
            data = self._data[begin]
            if not begin <= at < begin + len(data):
                return None
            pieces.append(data[at - begin : stop - begin])
            at = begin + len(data)
            index += 1
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the (start, stop) inside a range that are not here, in order."""
        gaps: list[tuple[int, int]] = []
        index = max(bisect_right(self._starts, start) - 1, 0)
        for begin in self._starts[index:]:
            if begin >= stop:
                break
            if begin > start:
                gaps.append((start, begin))
            start = max(start, begin + len(self._data[begin]))
        if start < stop:
            gaps.append((start, stop))
        return gaps


class Recent(Generic[T]):
    """What was put in last: the oldest is dropped where all of it is too much."""

    def __init__(self, most: int) -> None:
        """Set up.

        Args:
            most: bytes of all together; the last one is kept whatever it has.
        """
        self._most = most
        self._held = 0
        self._kept: dict[str, tuple[T, int]] = {}
        self._lock = Lock()

    def get(self, key: str) -> T | None:
        """Return what is kept, or None."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    def put(self, key: str, value: T, nbytes: int) -> None:
        """Keep `value`, which takes so many bytes."""
        with self._lock:
            self._held += nbytes - self._kept.pop(key, (value, 0))[1]
            self._kept[key] = value, nbytes
            while self._held > self._most and len(self._kept) > 1:
                self._held -= self._kept.pop(next(iter(self._kept)))[1]


def merge(ranges: Iterable[tuple[int, int]], gap: int, largest: int) -> list[tuple[int, int]]:
    """Join (start, stop) that lie at most `gap` bytes apart, and cut what is longer than `largest` bytes.

    >>> merge([(0, 4), (6, 8), (20, 30)], 2, 8)
    [(0, 8), (20, 28), (28, 30)]
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return [(at, min(at + largest, stop)) for start, stop in joined for at in range(start, stop, largest)]
