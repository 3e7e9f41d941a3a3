"""The service's end of the lines from workers: who calls with a token gets the session that gave it away."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from .line import LONGEST, TOKEN, Address

Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[bytes | None]]
"""Gets a message of a worker; returns the answer if it wants one."""

_PATIENCE = 5.0  # seconds in which who calls must give a token


class Exchange:
    """Takes calls of workers.

    Attributes:
        address: where they call.
    """

    def __init__(self) -> None:
        self.address: Address = ""
        self._expected: dict[bytes, tuple[Handler, asyncio.Event]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen for the length of the block: on a socket in a private directory; without such sockets, on loopback."""
        with tempfile.TemporaryDirectory(prefix="normsniff-") as folder:
            try:
                self.address = str(Path(folder, "line"))
                server: asyncio.Server = await asyncio.start_unix_server(self._taken, self.address)
            except (AttributeError, OSError):  # a system without them, a folder in which there can be none
                server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
                self.address = server.sockets[0].getsockname()[:2]
            try:
                yield
            finally:
                server.close()

    @asynccontextmanager
    async def expecting(self, handler: Handler) -> AsyncIterator[tuple[bytes, asyncio.Event]]:
        """Yield a token for one call, and what is set once the call has ended; after the block nobody is expected."""
        token, over = secrets.token_bytes(TOKEN), asyncio.Event()
        self._expected[token] = handler, over
        try:
            yield token, over
        finally:
            self._expected.pop(token, None)
            over.set()

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over: asyncio.Event | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                token = await reader.readexactly(TOKEN)
            found = self._expected.pop(token, None)
            if found is None:
                return
            handler, over = found
            talk = asyncio.ensure_future(_talk(reader, writer, handler))
            end = asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait({talk, end}, return_when=asyncio.FIRST_COMPLETED)
                if talk.done():
                    talk.result()
            finally:
                talk.cancel()
                end.cancel()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError):
            pass  # the worker is gone, or it was none
        finally:
            if over is not None:
                over.set()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    """Give messages to a handler, and its answers back, until the worker hangs up."""
    while True:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
        except asyncio.IncompleteReadError:
            return
        if size > LONGEST:
            return
        answer = await handler(msgspec.json.decode(await reader.readexactly(size)))
        if answer is not None:
            writer.write(len(answer).to_bytes(4, "big"))
            writer.write(answer)
            await writer.drain()
