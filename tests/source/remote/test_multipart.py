from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.limits import Limits
from normsniff.source.places import open_file, place_of
from normsniff.source.remote.answers import RefusedError
from normsniff.source.remote.multipart import boundary_of, bundles, parts, together
from tests.helpers.servers import Handler, RangeServer

DATA = bytes(i * 7 % 251 for i in range(1 << 21))
FAR = [(i * 100_000 + 200_000, 50 + i) for i in range(12)]  # (offset, length), further apart than is merged


def read(server: RangeServer) -> int:
    """Read the far ranges of a file, check them, and return how many requests were counted."""
    source = open_file(place_of(server.url("data"), Limits()))
    source.prefetch(FAR)
    for offset, n in FAR:
        assert bytes(source.read_at(offset, n)) == DATA[offset : offset + n]
    requests: int = source.requests  # type: ignore[attr-defined]  # of sources behind URLs
    assert requests == len(server.requests)
    return requests


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    """A server of its own: what a host cannot do is remembered."""
    (tmp_path / "data").write_bytes(DATA)
    running = RangeServer(tmp_path)
    yield running
    running.shutdown()
    running.server_close()


def test_far_ranges_take_one_request(server: RangeServer) -> None:
    assert read(server) == 2


@pytest.mark.parametrize("several", ["first", False])
def test_a_server_of_single_ranges_is_asked_once_in_vain(several: object, server: RangeServer) -> None:
    server.several = several  # type: ignore[assignment]  # one of its three
    assert read(server) == 2 + len(FAR)
    server.requests.clear()
    assert read(server) == 1 + len(FAR)


def test_a_status_that_only_several_ranges_get_is_no_failure(server: RangeServer) -> None:
    def refuse(handler: Handler, _number: int) -> bool:
        if "," not in handler.headers.get("Range", ""):
            return False
        handler.reply(416)
        return True

    server.fault = refuse
    assert read(server) == 2 + len(FAR)


def test_a_file_that_changes_is_told(server: RangeServer) -> None:
    source = open_file(place_of(server.url("data"), Limits()))
    server.tag = "v2"
    with pytest.raises(Exception, match="changed while it was read"):
        source.prefetch(FAR)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--P\r\nContent-Range: bytes 0-9/20\r\n\r\n01234",
        b"--P\r\nContent-Range: bytes 9-0/20\r\n\r\n--P--",
        b"--P\r\nContent-Type: x\r\n\r\n--P--",
        b"--P\r\nContent-Range: bytes 0-99999999999999999999/20\r\n\r\n--P--",
        b"--P\r\nContent-Range: bytes 0-1/20\r\n\r\n01",
    ],
)
def test_what_is_no_answer_of_parts_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError):
        list(parts(body, b"P"))


@given(st.lists(st.tuples(st.integers(0, 100), st.binary(min_size=1, max_size=40)), max_size=5))
def test_parts_come_out_as_they_went_in(pieces: list[tuple[int, bytes]]) -> None:
    body = b"preamble"
    for first, data in pieces:
        span = f"bytes {first}-{first + len(data) - 1}/1000".encode()
        body += b"\r\n--P\r\ncontent-range: " + span + b"\r\n\r\n" + data
    body += b"\r\n--P--\r\n"
    assert list(parts(body, b"P")) == [(first, 1000, data) for first, data in pieces]
    found, sizes = together(body, b"P")
    assert sizes == ({1000} if pieces else set())
    assert all(found.get(first, len(data)) is not None for first, data in pieces)


@given(st.binary(max_size=200))
def test_any_bytes_are_parts_or_refused(body: bytes) -> None:
    with contextlib.suppress(RefusedError):
        assert sum(len(data) for _, _, data in parts(b"--P" + body, b"P")) <= len(body)


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/byteranges; boundary=THIS", b"THIS"),
        ('Multipart/ByteRanges; charset=x; boundary="a b"', b"a b"),
        ("application/octet-stream", None),
        ("multipart/byteranges", None),
    ],
)
def test_the_boundary_is_told_by_the_type(kind: str, boundary: bytes | None) -> None:
    assert boundary_of(kind) == boundary


@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 1 << 19)), max_size=200))
def test_every_range_is_in_one_bundle(pieces: list[tuple[int, int]]) -> None:
    ranges = [(start, start + n) for start, n in pieces]
    found = bundles(ranges)
    assert sorted(one for bundle in found for one in bundle) == sorted(ranges)
    assert all(len(bundle) <= 64 for bundle in found)
    assert all(sum(stop - start for start, stop in bundle) <= 1 << 20 for bundle in found if len(bundle) > 1)
