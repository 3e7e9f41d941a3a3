"""A forward walk through a header, in large windows."""

from __future__ import annotations

import hashlib
import struct
from typing import Any, NoReturn

from ..errors import FormatError, LimitExceeded
from ..source.local import ByteSource

_FIRST, _LARGEST = 1 << 12, 1 << 20  # windows double from the one to the other, so that little past the header is read


class Window:
    """The bytes ahead of a walk: each is read once, hashed once, and dropped when the walk has passed.

    Memory stays at two windows, whatever is walked over; a single `take` may ask for more.
    """

    def __init__(self, source: ByteSource, most: int) -> None:
        """Start at the first byte of `source`; a walk beyond `most` bytes is refused."""
        self.source = source
        self._most = most
        self._bytes = b""
        self._base = 0  # where _bytes starts in the source
        self._at = 0  # how far the walk has come inside _bytes
        self._step = _FIRST
        self._hash = hashlib.sha256()

    @property
    def position(self) -> int:
        """Offset of the next byte in the source."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the source."""
        return self.source.size - self._base - self._at

    def digest(self) -> str:
        """Return the SHA-256 of everything before the current position, hexadecimal."""
        passed = self._hash.copy()
        passed.update(memoryview(self._bytes)[: self._at])
        return passed.hexdigest()

    def fail(self, code: str, detail: str, at: int | None = None) -> NoReturn:
        """Raise `FormatError` with the current offset, or another one."""
        raise FormatError(code, f"{self.source.name} @ {self.position if at is None else at}", detail)

    def check_count(self, what: str, count: int, most: int, smallest: int) -> None:
        """Refuse a count that cannot fit, although each thing takes only `smallest` bytes, or one over the cap."""
        if count * smallest > self.remaining:
            self.fail("truncated", f"{count:,} {what} cannot fit in the {self.remaining:,} bytes left")
        if count > most:
            raise LimitExceeded(f"{self.source.name} @ {self.position}", what, most, count)

    def take(self, n: int) -> bytes:
        """Return the next `n` bytes."""
        self._need(n)
        self._at += n
        return self._bytes[self._at - n : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the next values, as `layout` has them."""
        at = self._at
        if layout.size > len(self._bytes) - at:  # not left to _need: a call in vain for every number of a header
            self._need(layout.size)
            at = self._at
        self._at = at + layout.size
        return layout.unpack_from(self._bytes, at)

    def skip(self, n: int) -> None:
        """Step over `n` bytes."""
        if n > len(self._bytes) - self._at:
            self._admit(n)
            while n > (rest := len(self._bytes) - self._at):
                n -= rest
                self._at += rest
                self._refill(1)
        self._at += n

    def skip_prefixed(self, layout: struct.Struct, count: int) -> None:
        """Step over `count` runs of bytes that start with their length."""
        width, unpack = layout.size, layout.unpack_from
        while count:
            self._need(width)
            window, at, last = self._bytes, self._at, len(self._bytes) - width
            done = 0
            for done in range(1, count + 1):  # noqa: B007  (nearly all the time of a header goes here, so no more than this)
                (n,) = unpack(window, at)
                at += width + n
                if at > last:
                    break
            count -= done
            self._at = min(at, len(window))
            self.skip(at - self._at)

    def _need(self, n: int) -> None:
        if n > len(self._bytes) - self._at:
            self._admit(n)
            self._refill(n)

    def _admit(self, n: int) -> None:
        if n > self.remaining:
            self.fail("truncated", f"the header needs {n:,} more bytes, the file ends after {self.remaining:,}")
        if self.position + n > self._most:
            raise LimitExceeded(self.source.name, "header bytes", self._most, self.position + n)

    def _refill(self, n: int) -> None:
        """Drop what was passed and read on, so that at least `n` bytes lie ahead."""
        self._hash.update(memoryview(self._bytes)[: self._at])
        rest = self._bytes[self._at :]
        self._base += self._at
        start = self._base + len(rest)
        size = min(max(n - len(rest), self._step), self.source.size - start)
        self._step = min(2 * self._step, _LARGEST)
        self._bytes = b"".join((rest, self.source.read_at(start, size)))
        self._at = 0
