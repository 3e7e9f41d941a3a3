from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from normsniff.errors import LimitExceeded
from normsniff.source.remote.sockets import CountedSocket, Counter


@pytest.fixture
def pair() -> Iterator[tuple[Counter, socket.socket, socket.socket]]:
    """Yield what counts, a socket of its own, and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        counter = Counter()
        own = counter.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname()))
        with own:
            own.connect(server.getsockname())
            other, _ = server.accept()
            with other:
                yield counter, own, other


def test_every_byte_is_told_to_who_reads_now(pair: tuple[Counter, socket.socket, socket.socket]) -> None:
    counter, own, other = pair
    assert isinstance(own, CountedSocket)
    first: list[int] = []
    second: list[int] = []
    counter.count = first.append
    other.sendall(b"abc")
    assert own.recv(3, socket.MSG_WAITALL) == b"abc"
    counter.count = second.append
    other.sendall(b"defgh")
    buffer = bytearray(5)
    assert own.recv_into(buffer, 5, socket.MSG_WAITALL) == 5
    assert (sum(first), sum(second)) == (3, 5)


def test_a_connection_over_which_too_much_comes_is_broken(pair: tuple[Counter, socket.socket, socket.socket]) -> None:
    counter, own, other = pair

    def count(n: int) -> None:
        raise LimitExceeded("here", "bytes", 2, n)

    counter.count = count
    other.sendall(b"abc")
    with pytest.raises(ConnectionAbortedError):
        own.recv(10)
