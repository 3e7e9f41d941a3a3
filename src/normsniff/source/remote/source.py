"""A file behind a URL as a `ByteSource`: what was fetched is kept, and a little more is fetched than was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import SourceError
from .fetched import Extents, merge
from .link import HEAD
from .paths import RemotePath

GAP = 1 << 16
"""Bytes that cost about as much as one more request: 30 ms of latency, 16 requests at a time, 30 MB a second."""

_LARGEST = 1 << 23  # bytes of one request, so that large ranges come over several connections
_LONGEST_STEP = 1 << 22  # read-ahead: a GGUF header of 10 MB is there after seven requests


class RemoteSource:
    """A file behind a URL.

    Attributes:
        path: where it is; `name` is the same without credentials.
    """

    def __init__(self, path: RemotePath) -> None:
        self.path: Path | RemotePath | None = path
        self.name = str(path)
        self.gap = GAP
        self._link = path.link
        self._url = path.url
        self._head = self._link.head(self._url)
        self.size = self._head.size
        self._fetched = len(self._head.data)
        self._kept = Extents()
        self._kept.add(0, self._head.data)
        self._ahead = HEAD
        self._last = len(self._head.data)  # where the last fetch ended

    @property
    def bytes_read(self) -> int:
        """Bytes that came over the network; none comes twice."""
        return self._fetched

    @property
    def requests(self) -> int:
        """Requests that the whole model has taken so far."""
        return self._link.requests

    def read_at(self, offset: int, n: int) -> memoryview:
        """Return exactly `n` bytes from `offset`; what was not fetched before is fetched now."""
        if offset < 0 or n < 0 or offset + n > self.size:
            raise SourceError(f"{self.name} @ {offset}", f"{n:,} bytes asked for, the file ends at {self.size:,}")
        found = self._kept.get(offset, n)
        if found is None:
            self._fetch([self._with_more(offset, offset + n)], 0)
            found = self._kept.get(offset, n)
        assert found is not None
        return found

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch these (offset, n) at once, those that lie close together as one."""
        clipped = ((max(offset, 0), min(offset + n, self.size)) for offset, n in ranges)
        self._fetch([one for one in clipped if one[0] < one[1]], GAP)

    def close(self) -> None:
        """Drop what was fetched."""
        self._kept = Extents()
        self._kept.add(0, self._head.data)

    def _with_more(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range to fetch for a read that was not announced.

        A walk that reads on gets ever longer steps, as a header may go on for megabytes; a jump gets as much as is
        as good as free, around the end of the file also what is before, as the directory of a zip archive is there.
        """
        if start <= self._last <= stop:
            stop = max(stop, self._last + self._ahead)
            self._ahead = min(2 * self._ahead, _LONGEST_STEP)
        else:
            self._ahead = HEAD
            start = min(start, max(self.size - GAP, 0))
            stop = max(stop, start + GAP)
        return start, min(stop, self.size)

    def _fetch(self, ranges: Sequence[tuple[int, int]], gap: int) -> None:
        wanted = [piece for start, stop in ranges for piece in self._kept.missing(start, stop)]
        joined = [piece for start, stop in merge(wanted, gap, _LARGEST) for piece in self._kept.missing(start, stop)]
        if not joined:
            return
        for (start, stop), data in zip(joined, self._link.read(self._head, joined), strict=True):
            self._kept.add(start, data)
            self._fetched += stop - start
            self._last = stop
