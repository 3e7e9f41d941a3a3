"""Clients that hold a connection, with raw sockets against a service on loopback."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.helpers.manifest import FIXTURES

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from normsniff.serve.settings import Settings
from tests.helpers.services import served

FOREVER = 60.0  # seconds that no test waits for


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Yield where a service without much patience listens."""
    monkeypatch.setattr("normsniff.serve.connections.PATIENCE", 0.2)
    monkeypatch.setattr("normsniff.serve.spool._STALL", 0.3)
    with served(Settings(jobs=1, queue=0, root=FIXTURES)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def said_to(address: tuple[str, int], data: bytes) -> bytes:
    """Return what the service says to these bytes until it ends the connection."""
    with socket.create_connection(address, timeout=FOREVER) as client:
        client.sendall(data)
        found = b""
        while piece := client.recv(1 << 16):
            found += piece
    return found


def begun(address: tuple[str, int], *headers: str) -> bytes:
    lines = ("POST /v1/sniff HTTP/1.1", f"Host: {address[0]}:{address[1]}", *headers, "", "")
    return "\r\n".join(lines).encode()


def is_alive(address: tuple[str, int]) -> bool:
    """Whether the service takes a request: with no queue, whether it has none."""
    try:
        with urlopen(f"http://{address[0]}:{address[1]}/readyz") as answer:
            return bool(json.load(answer)["inside"] == 0)
    except HTTPError:  # 503: full
        return False


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nX: ", b"POST /"])
def test_who_never_ends_a_request_loses_the_connection(address: tuple[str, int], data: bytes) -> None:
    assert said_to(address, data) == b""
    assert is_alive(address)


def test_a_second_request_must_end_as_well(address: tuple[str, int]) -> None:
    whole = f"GET /healthz HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode()
    found = said_to(address, whole + b"GET /")
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b'{"status":"ok"}')


def test_who_takes_no_answer_loses_the_connection(address: tuple[str, int]) -> None:
    """Its answers are asked for until the system buffers no more of them."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        client.settimeout(FOREVER)
        client.connect(address)
        many = f"GET /openapi.json HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode() * 1_000_000
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.sendall(many)
    assert is_alive(address)


@pytest.mark.parametrize("header", ["Content-Type: application/json", "X-Name: model"])
def test_who_sends_half_of_a_body_is_told_so(address: tuple[str, int], header: str) -> None:
    found = said_to(address, begun(address, header, "Content-Length: 100", "Connection: close") + b"{")
    assert found.startswith(b"HTTP/1.1 408")
    assert b"urn:normsniff:too-slow" in found
    assert is_alive(address)


@pytest.mark.parametrize("header", ["Content-Type: application/json", "X-Name: model"])
def test_who_leaves_in_the_middle_leaves_no_traceback(
    address: tuple[str, int], header: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(address) as client:
        client.sendall(begun(address, header, "Content-Length: 100") + b"{")
    for _ in range(600):
        if is_alive(address):
            break
        time.sleep(0.1)
    assert is_alive(address)
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_what_is_no_text_is_no_fault_of_the_service(address: tuple[str, int]) -> None:
    body = b'{"path":"\xed\xa0\x80"}'
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close")
    assert b"urn:normsniff:bad-request" in said_to(address, begun(address, *headers) + body)
