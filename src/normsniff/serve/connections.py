"""Connections on which nothing moves are ended: there are only so many, and who holds one need not say anything."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0
"""Seconds in which a request must have begun, and in which some of an answer must be taken; at most twice as many."""


class Watched(H11Protocol):
    """HTTP as uvicorn speaks it through h11, which bounds the length of headers, but not their time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._stuck: object = None
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._watching = self.loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        if self.transport.get_protocol() is not self:  # a WebSocket, which asks for signs of life itself
            return
        unread = self.transport.get_write_buffer_size()
        waiting = self.cycle is None or self.cycle.response_complete
        stuck = (unread, id(self.cycle)) if unread or waiting else None
        if stuck is not None and stuck == self._stuck:
            self.transport.abort()
            return
        self._stuck = stuck
        self._watch()
