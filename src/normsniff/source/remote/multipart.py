"""Several byte ranges by one request: how they are put together, and the ``multipart/byteranges`` that answers them.

A norm has some kilobytes and lies hundreds of megabytes from the next, so that a model takes one request a block
otherwise. Servers need not serve several ranges at once (RFC 9110, section 14.2): S3 does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .answers import RefusedError, content_span
from .fetched import Extents

SEVERAL = 3
"""Ranges from which they are asked for together: fewer go at the same time, and need no server that can do it."""

_SMALL = 1 << 17  # bytes of a range; what is larger is better had over a connection of its own
_MOST, _MOST_BYTES = 64, 1 << 20
"""Ranges and bytes of one request: a line of 1.5 kB, which every server takes (Apache allows 200 ranges)."""

PART = 1 << 10
"""Bytes that a part may have beside its data: a boundary of up to 70, and its own headers."""

_BOUNDARY = re.compile(r"""multipart/byteranges\s*;.*?\bboundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_RANGE = re.compile(rb"^content-range:([^\r\n]{1,100})\r?$", re.IGNORECASE | re.MULTILINE)


def bundles(ranges: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Put small (start, stop) ranges together, in order; large ones stay alone, and so do all if there are few.

    >>> bundles([(i << 20, (i << 20) + 10) for i in range(5)]) == [[(i << 20, (i << 20) + 10) for i in range(5)]]
    True
    >>> bundles([(0, 10), (1 << 20, 1 << 21)])
    [[(0, 10)], [(1048576, 2097152)]]
    """
    small = [one for one in ranges if one[1] - one[0] <= _SMALL]
    if len(small) < SEVERAL:
        return [[one] for one in ranges]
    found: list[list[tuple[int, int]]] = []
    size = 0
    for one in small:
        length = one[1] - one[0]
        if not found or len(found[-1]) == _MOST or size + length > _MOST_BYTES:
            found.append([])
            size = 0
        found[-1].append(one)
        size += length
    return [*found, *([one] for one in ranges if one[1] - one[0] > _SMALL)]


def boundary_of(content_type: str) -> bytes | None:
    """Return what parts an answer of several ranges, or None if it is none."""
    found = _BOUNDARY.match(content_type.strip())
    return None if found is None else (found[1] or found[2]).encode("latin-1", "replace")


def parts(body: bytes, boundary: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield every part of an answer: where its bytes begin, the size of the whole file, the bytes.

    The boundary is looked for behind the bytes that a part says it has, so that data may look like one.

    Raises:
        RefusedError: it is not what RFC 9110, section 14.6, describes.
    """
    mark, at = b"--" + boundary, 0
    while True:
        at = body.find(mark, at)
        if at < 0:
            raise RefusedError("an answer of several ranges ends early")
        at += len(mark)
        if body[at : at + 2] == b"--":
            return
        end = body.find(b"\r\n\r\n", at, at + PART)
        told = _RANGE.search(body, at, end) if end >= 0 else None
        if told is None:
            raise RefusedError("a part of an answer does not tell which bytes it has")
        first, last, size = content_span(told[1].decode("latin-1"))
        at = end + 4 + last + 1 - first
        if at > len(body):
            raise RefusedError("an answer of several ranges ends early")
        yield first, size, body[end + 4 : at]


def together(body: bytes, boundary: bytes) -> tuple[Extents, set[int]]:
    """Return the bytes of all parts, and the sizes that they tell of the whole file.

    Raises:
        RefusedError: as `parts` does.
    """
    found, sizes = Extents(), set()
    for first, size, data in parts(body, boundary):
        for start, stop in found.missing(first, first + len(data)):  # parts may overlap
            found.add(start, data[start - first : stop - first])
        sizes.add(size)
    return found, sizes
