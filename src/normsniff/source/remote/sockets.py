"""Connections whose bytes are counted where they come: on the socket.

What an HTTP library hands over is less than what a server sends: extensions of chunks, provisional answers, bodies of
redirects and errors, what lies in a buffer when a connection is dropped.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeAlias

from ...errors import LimitExceeded
from .files import Count

SocketMaker: TypeAlias = Callable[[Any], socket.socket]
"""What aiohttp has sockets made by, out of a row of `socket.getaddrinfo`."""


class CountedSocket(socket.socket):
    """Tells `count` of every byte that it receives; where that is too much, the connection is broken."""

    count: Count

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return what came."""
        data = super().recv(bufsize, flags)
        self._tell(len(data))
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """Write what came into a buffer, and return how much it is."""
        got = super().recv_into(buffer, nbytes, flags)
        self._tell(got)
        return got

    def _tell(self, n: int) -> None:
        try:
            self.count(n)
        except LimitExceeded:  # an event loop knows what to do with an OSError; who waits asks `count` again
            raise ConnectionAbortedError("more came than may") from None


class Counter:
    """Makes sockets, and passes on what comes through them to whoever reads now.

    Attributes:
        count: of who reads now.
    """

    def __init__(self) -> None:
        self.count: Count = int

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address."""
        made = CountedSocket(*info[:3])
        made.count = lambda n: self.count(n)
        return made
