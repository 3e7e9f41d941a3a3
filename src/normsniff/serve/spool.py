"""Where bodies lie while they are looked at: under random names in a directory of their own, each and all bounded."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path

from .problems import Problem

_PIECE = 1 << 20  # bytes that are written at a time, beside the loop
_STALL = 30.0  # seconds in which the next bytes must come; who sends nothing must not keep a place
_SLOWEST = 50_000  # bytes a second, half a megabit, beyond these seconds: nor must who sends next to nothing


class Spool:
    """A directory of files that are on their way.

    Attributes:
        each: bytes of the largest file.
        together: bytes of all files.
        held: bytes that are there.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self.together = 2 * each
        self.held = 0
        self._folder = tempfile.TemporaryDirectory(prefix="normsniff-")

    def close(self) -> None:
        """Remove the directory."""
        self._folder.cleanup()

    @asynccontextmanager
    async def holding(self, body: AsyncIterator[bytes], length: int | None) -> AsyncIterator[Path]:
        """Write a body into a file, and remove it after the block.

        Args:
            body: its pieces.
            length: what its sender says of it; None where nothing is said.

        Raises:
            Problem: it is too large (413), comes too slowly (408), or there is no room (429, 507).
        """
        if length is not None:
            self._check(length, length)
        path = Path(self._folder.name, secrets.token_hex(16))
        taken = 0
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            try:
                buffer = bytearray()
                async for piece in timely(body):
                    self._check(taken + len(piece), len(piece))
                    taken += len(piece)
                    self.held += len(piece)
                    buffer += piece
                    if len(buffer) >= _PIECE:
                        await asyncio.to_thread(_write, file, bytes(buffer))
                        buffer.clear()
                await asyncio.to_thread(_write, file, bytes(buffer))
            finally:
                os.close(file)
            yield path
        finally:
            self.held -= taken
            with suppress(OSError):
                path.unlink()

    def _check(self, size: int, more: int) -> None:
        if size > self.each:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"a body may have {self.each:,} bytes",
                hint="give a URL, or drop the file on the page: of either only what is needed is read",
            )  # fmt: skip
        if self.held + more > self.together:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "spool-full", "other bodies take all the room",
                hint="try again in a few seconds", headers={"Retry-After": "5"},
            )  # fmt: skip


async def timely(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a body, as long as they come.

    Raises:
        Problem: nothing came for a while, or too little all the time (408).
    """
    pieces = aiter(body)
    clock = asyncio.get_running_loop().time
    begun, taken = clock(), 0
    while True:
        late = begun + _STALL + taken / _SLOWEST
        try:
            async with asyncio.timeout_at(min(clock() + _STALL, late)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            detail = f"{taken:,} bytes of the body came in {clock() - begun:.0f} s, and too few of late"
            raise Problem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", detail) from None
        taken += len(piece)
        yield piece


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(file, view) :]
    except OSError as error:
        raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, "no-space", f"not written: {error.strerror}") from error
