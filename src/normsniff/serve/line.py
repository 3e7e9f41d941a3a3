"""The line from a worker back to the service: it tells of its progress, and asks for bytes that a page holds.

A worker's pipe carries a call and its answer and nothing between. So the service listens on an address of its own, and
a worker that is given a token calls there. Messages are a length in four bytes and as many bytes.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from threading import Lock
from types import TracebackType
from typing import Any, TypeAlias

import msgspec

from ..source.remote.answers import RefusedError

Address: TypeAlias = "str | tuple[str, int]"
"""A path of a socket, or host and port."""

TOKEN = 32  # bytes
LONGEST = 1 << 26  # bytes of a message: a report of 20,000 norms has about 20 MB


class Calling:
    """A worker's end of the line."""

    def __init__(self, address: Address, token: bytes) -> None:
        """Connect.

        Args:
            address: where the service listens.
            token: that says which request this is for.
        """
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._lock = Lock()
        try:
            self._socket.connect(address)
            self._socket.sendall(token)
        except OSError as error:
            self._socket.close()
            raise RefusedError(_GONE) from error

    def __enter__(self) -> Calling:
        """Return the line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hang up."""
        self._socket.close()

    def tell(self, **message: Any) -> None:
        """Send a message that wants no answer."""
        with self._lock:
            self._send(message)

    def ask(self, ranges: Sequence[tuple[int, int, int]]) -> bytes:
        """Return bytes of files that the page holds, one range after the other.

        Args:
            ranges: number of the file, first byte and the byte after the last.

        Raises:
            RefusedError: the page cannot read them, sends another number of bytes, or is gone.
        """
        with self._lock:
            self._send({"type": "read", "ranges": ranges})
            answer = self._receive()
        wanted = sum(stop - start for _, start, stop in ranges)
        if answer[:1] != b"+":
            raise RefusedError(answer[1:].decode("utf-8", "replace"))
        if len(answer) - 1 != wanted:
            raise RefusedError(f"{wanted:,} bytes were asked for, the page sent {len(answer) - 1:,}")
        return answer[1:]

    def _send(self, message: dict[str, Any]) -> None:
        data = msgspec.json.encode(message)
        try:
            self._socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError as error:
            raise RefusedError(_GONE) from error

    def _receive(self) -> bytes:
        size = int.from_bytes(self._exactly(4), "big")
        return self._exactly(size)

    def _exactly(self, n: int) -> bytes:
        data = bytearray()
        while len(data) < n:
            try:
                piece = self._socket.recv(min(n - len(data), 1 << 20))
            except OSError as error:
                raise RefusedError(_GONE) from error
            if not piece:
                raise RefusedError(_GONE)
            data += piece
        return bytes(data)


_GONE = "the page is gone"
