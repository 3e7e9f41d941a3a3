"""MessagePack, walked without its contents: what comes next, how long it is, and on behind it.

Layout: msgpack/spec.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NoReturn

from .. import meter
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource

_WINDOW = 1 << 9  # bytes: a key, a shape and a dtype; more would be the content of an array
_TEXT_BYTES = 1000  # of a key; longer ones are no names
# first byte -> (kind, bytes of its length or value)
_KINDS: Mapping[int, tuple[str, int]] = {
    0xC0: ("skip", 0), 0xC2: ("skip", 0), 0xC3: ("skip", 0), 0xCA: ("skip", 4), 0xCB: ("skip", 8),
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4), 0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xCC: ("uint", 1), 0xCD: ("uint", 2), 0xCE: ("uint", 4), 0xCF: ("uint", 8),
    0xD0: ("int", 1), 0xD1: ("int", 2), 0xD2: ("int", 4), 0xD3: ("int", 8),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4), 0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2),
    0xDF: ("map", 4),
}  # fmt: skip
_FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class PackCursor:
    """A position in MessagePack.

    Args:
        source: the file.
        limits: caps on what is walked.
        extensions: kinds of extensions by their code; others are ``"ext"``.
    """

    def __init__(self, source: ByteSource, limits: Limits, extensions: Mapping[int, str]) -> None:
        self.position = 0
        self.source = source
        self.limits = limits
        self._extensions = extensions
        self._items = 8 * limits.tensors  # an array of Flax takes six: its key, extension, shape, dtype and bytes
        self._window, self._base = b"", 0
        self._hash = hashlib.sha256()

    def fail(self, code: str, detail: str, at: int | None = None) -> NoReturn:
        """Raise `FormatError` with an offset."""
        raise FormatError(code, f"{self.source.name} @ {self.position if at is None else at}", detail)

    def digest(self) -> str:
        """Return the SHA-256 of everything that was read, which is all but what was stepped over."""
        return self._hash.hexdigest()

    def head(self) -> tuple[str, int]:
        """Return the kind of the next value and its number of bytes or entries; its content comes next."""
        self._items -= 1
        if self._items < 0:
            most = 8 * self.limits.tensors
            raise LimitExceeded(f"{self.source.name} @ {self.position}", "values", most, most + 1)
        meter.charge(3, "walking the tree")
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return "int", first if first < 0x80 else first - 0x100
        if first < 0xC0:
            return (
                ("map", first & 0xF)
                if first < 0x90
                else ("list", first & 0xF)
                if first < 0xA0
                else ("text", first & 0x1F)
            )
        if first in _FIXEXT:
            return self._extension(_FIXEXT[first])
        if first not in _KINDS:
            self.fail("bad-tag", f"0x{first:02x} starts no value of MessagePack", self.position - 1)
        kind, width = _KINDS[first]
        if kind == "skip":
            self._take(width)
            return kind, 0
        n = int.from_bytes(self._take(width), "big", signed=kind == "int")
        if kind == "ext":
            return self._extension(n)
        return kind, n

    def peek(self) -> str:
        """Return the kind of the next value and stay before it."""
        at = self.position
        kind, _ = self.head()
        self.position = at
        return kind

    def text(self) -> str:
        """Return the next value, which must be a short text (or a number, as text)."""
        kind, n = self.head()
        if kind == "int":
            return str(n)
        if kind != "text" or n > _TEXT_BYTES:
            self.fail("bad-key", "a name was expected")
        return self._take(n).decode("utf-8", "replace")

    def skip(self) -> None:
        """Step over the next value, whatever it holds."""
        waiting = 1
        while waiting:
            waiting -= 1
            kind, n = self.head()
            if kind in ("map", "list"):
                waiting += n * (2 if kind == "map" else 1)
            elif kind not in ("int", "uint", "skip"):
                self.step(n)

    def step(self, n: int) -> None:
        """Step over `n` bytes without reading them."""
        if n > self.source.size - self.position:
            missing = n - (self.source.size - self.position)
            self.fail("truncated", f"{missing:,} of {n:,} bytes are missing at the end of the file")
        self.position += n

    def _extension(self, n: int) -> tuple[str, int]:
        code = self._take(1)[0]
        return self._extensions.get(code, "ext"), n

    def _take(self, n: int) -> bytes:
        at = self.position - self._base
        if at < 0 or at + n > len(self._window):
            if n > self.source.size - self.position:
                self.fail("truncated", f"the file ends after {self.source.size - self.position:,} of {n:,} bytes")
            ahead = min(max(n, _WINDOW), self.source.size - self.position)
            self._window, self._base, at = bytes(self.source.read_at(self.position, ahead)), self.position, 0
        taken = self._window[at : at + n]
        self.position += n
        self._hash.update(taken)
        return taken
