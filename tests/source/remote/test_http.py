from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from normsniff import LimitExceeded, SourceError, sniff
from normsniff.errors import FormatError
from normsniff.limits import Limits
from normsniff.source.local import ByteSource
from normsniff.source.places import open_file, place_of
from normsniff.source.remote.answers import TOGETHER
from normsniff.source.remote.link import HEAD
from normsniff.source.remote.paths import RemotePath
from tests.helpers.servers import Handler, RangeServer
from tests.helpers.sparse import llama, write_safetensors

DATA = bytes(i * 7 % 251 for i in range(400_000))


@pytest.fixture
def data(server: RangeServer, tmp_path: Path) -> str:
    """Serve a file that is larger than its head, and return its URL."""
    (tmp_path / "data").write_bytes(DATA)
    return server.url("data")


def opened(url: str, **limits: float) -> ByteSource:
    return open_file(place_of(url, Limits(**limits)))  # type: ignore[arg-type]  # floats only for seconds


def once(answer: Callable[[Handler], None], at: int = 2) -> Callable[[Handler, int], bool]:
    """Return a fault in the answer to one request."""

    def fault(handler: Handler, number: int) -> bool:
        if number == at:
            answer(handler)
        return number == at

    return fault


def always(answer: Callable[[Handler], None], after: int = 1) -> Callable[[Handler, int], bool]:
    """Return a fault in the answers to all requests but the first ones."""

    def fault(handler: Handler, number: int) -> bool:
        if number > after:
            answer(handler)
        return number > after

    return fault


def busy(handler: Handler) -> None:
    handler.reply(503)


def short(handler: Handler) -> None:
    handler.reply(206, b"short", {"Content-Range": "bytes 300000-300009/400000"})


def cut_off(handler: Handler) -> None:
    handler.reply(206, b"cut", {"Content-Range": "bytes 300000-300009/400000", "Content-Length": "10"})
    hung_up(handler)


def hung_up(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def test_ranges_are_read_once_and_what_is_announced_comes_together(server: RangeServer, data: str) -> None:
    source = opened(data)
    assert source.size == len(DATA)
    assert bytes(source.read_at(0, 100)) == DATA[:100]
    assert [one.range for one in server.requests] == [f"bytes=0-{HEAD - 1}"]
    source.prefetch([(200_000, 10), (200_100, 10), (390_000, 5), (399_999, 900)])
    assert bytes(source.read_at(200_100, 10)) == DATA[200_100:200_110]
    assert bytes(source.read_at(390_000, 5)) == DATA[390_000:390_005]
    assert sorted(one.range or "" for one in server.requests[1:]) == ["bytes=200000-200109", "bytes=390000-399999"]
    assert bytes(source.read_at(0, len(DATA))) == DATA
    assert server.sent == source.bytes_read == len(DATA)
    source.close()


def test_a_walk_is_read_ahead_in_growing_steps_and_a_jump_is_not(server: RangeServer, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 26)
    source = opened(server.url("large"))
    for at in range(0, 8_000_000, 5000):
        source.read_at(at, 5000)
    assert len(server.requests) <= 7
    assert server.sent <= 2 * 8_000_000
    server.requests.clear()
    source.read_at(1 << 25, 100)
    source.read_at((1 << 26) - 22, 22)
    source.read_at((1 << 26) - 60_000, 46)
    assert len(server.requests) == 2
    assert server.sent == 2 << 16


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (busy, "answers 503"),
        (lambda handler: handler.reply(500), "answers 500"),
        (lambda handler: handler.reply(429, headers={"Retry-After": "0"}), "answers 429"),
        (short, "bytes asked for, 5 came"),
        (cut_off, "the connection broke"),
        (hung_up, "the connection broke"),
    ],
)
def test_what_passes_is_tried_again_but_not_for_ever(
    server: RangeServer, data: str, answer: Callable[[Handler], None], words: str
) -> None:
    source = opened(data)
    server.fault = once(answer)
    assert bytes(source.read_at(300_000, 10)) == DATA[300_000:300_010]
    assert len(server.requests) == 3
    source = opened(data)
    server.reset()
    server.fault = always(answer, after=0)
    with pytest.raises(SourceError, match=rf"http://127.0.0.1:\d+/data: .*{words}"):
        source.read_at(300_000, 10)
    assert len(server.requests) == (8 if answer is hung_up else 4), "aiohttp itself asks anew on a closed connection"


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("normsniff.source.remote.link.time", found)
    return found


def asking(*times: str) -> Callable[[Handler, int], bool]:
    def fault(handler: Handler, number: int) -> bool:
        if number <= len(times):
            handler.reply(429, headers={"Retry-After": times[number - 1]})
        return number <= len(times)

    return fault


def test_a_server_that_asks_for_time_gets_it(server: RangeServer, data: str, clock: Clock) -> None:
    server.fault = asking("7", "40", "Wed, 21 Oct 2015 07:28:00 GMT")
    opened(data)
    assert clock.slept == [7.0, 40.0, 0.01]


@pytest.mark.parametrize("times", [("86400",), ("50", "11"), ("Thu, 31 Dec 2099 00:00:00 GMT",)])
def test_a_server_that_asks_for_more_time_than_there_is_is_not_waited_for(
    server: RangeServer, data: str, clock: Clock, times: tuple[str, ...]
) -> None:
    server.fault = asking(*times)
    with pytest.raises(
        SourceError, match=r"answers 429, and asks to come back in [\d,]+ s; there are \d+ s left"
    ) as told:
        opened(data)
    assert sum(clock.slept) < 60
    assert told.value.hint


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda handler: handler.reply(404), "no such file"),
        (lambda handler: handler.reply(403), "access denied"),
        (lambda handler: handler.reply(418), "answers 418"),
        (lambda handler: handler.reply(206, b"x" * 10), "does not tell which bytes"),
        (lambda handler: handler.reply(206, b"x", {"Content-Range": "bytes 5-5/9"}), "sends bytes from 5, not from 0"),
        (lambda handler: handler.reply(206, b"x" * 10, {"Content-Range": "bytes 0-9/*"}), "how large the file is"),
        (lambda handler: handler.reply(206, bytes(HEAD + 1), {"Content-Range": "bytes 0-9/400000"}), "more than"),
        (lambda handler: handler.reply(200, b"x", {"Content-Encoding": "gzip"}), "compresses"),
        (lambda handler: handler.reply(302, headers={"Location": "/data"}), "too many redirects"),
        (lambda handler: handler.reply(302, headers={"Location": "file:///etc/passwd"}), "cannot be asked over HTTP"),
    ],
)
def test_answers_that_cannot_be_used_are_said_to_be_so(
    server: RangeServer, data: str, answer: Callable[[Handler], None], words: str
) -> None:
    server.fault = always(answer, after=0)
    with pytest.raises(SourceError, match=words) as caught:
        opened(data)
    assert "127.0.0.1" in caught.value.where


def test_a_file_that_changes_while_it_is_read_is_noticed(server: RangeServer, data: str, tmp_path: Path) -> None:
    source = opened(data)
    server.tag = "v2"
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_at(300_000, 10)
    server.tag = None
    source = opened(data)
    (tmp_path / "data").write_bytes(DATA + b"more")
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_at(300_000, 10)
    (tmp_path / "data").write_bytes(DATA[:200_000])
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_at(300_000, 10)


def test_servers_without_ranges_serve_small_files_only(server: RangeServer, data: str, tmp_path: Path) -> None:
    server.ranges = False
    source = opened(data)
    assert bytes(source.read_at(399_990, 10)) == DATA[-10:]
    assert len(server.requests) == 1, "it came whole"
    with pytest.raises(SourceError, match="whole files only, and this one has 400,000 bytes"):
        opened(data, whole_bytes=399_999)

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"186a0\r\n" + bytes(100_000) + b"\r\n")

    server.fault = always(endless, after=0)
    with pytest.raises(SourceError, match="more than the 1,000,000 bytes"):
        opened(data, whole_bytes=1_000_000)


def test_a_slow_server_is_given_up(server: RangeServer, data: str) -> None:
    server.latency = 0.3
    with pytest.raises(SourceError, match="no answer in time"):
        opened(data, request_seconds=0.05)


def test_nobody_listens() -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(SourceError, match="the connection broke"):
        opened("http://127.0.0.1:9/model.safetensors")


def test_an_empty_file_is_empty(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert opened(server.url("empty")).size == 0
    with pytest.raises(FormatError, match="the file is empty"):
        sniff(server.url("empty"))


def test_a_redirect_is_followed_once(server: RangeServer, data: str) -> None:
    def moved(handler: Handler, number: int) -> bool:
        if handler.path.startswith("/old"):
            handler.reply(302, headers={"Location": server.url("data?signature=1").replace("127.0.0.1", "localhost")})
        return handler.path.startswith("/old")

    server.fault = moved
    source = opened(server.url("old"))
    source.read_at(300_000, 10)
    source.read_at(200_000, 10)
    assert server.paths == ["/old", "/data?signature=1", "/data?signature=1", "/data?signature=1"]
    assert "signature=1" not in source.name

    def expired(handler: Handler, number: int) -> bool:
        if handler.path == "/data?signature=1":
            handler.reply(403)
        elif handler.path == "/old":
            handler.reply(302, headers={"Location": server.url("data?signature=2").replace("127.0.0.1", "localhost")})
        return handler.path in ("/data?signature=1", "/old")

    server.fault = expired
    assert bytes(source.read_at(390_000, 10)) == DATA[390_000:390_010]
    assert server.paths[4:] == ["/data?signature=1", "/old", "/data?signature=2"]


def test_limits_hold(server: RangeServer, data: str) -> None:
    with pytest.raises(LimitExceeded, match=r"bytes fetched 231,\d{3} is over the limit of 200,000"):
        opened(data, fetched_bytes=200_000).prefetch([(200_000, 100_000)])
    source = opened(data, requests=2)
    source.read_at(200_000, 1)
    with pytest.raises(LimitExceeded, match="requests 3 is over the limit of 2"):
        source.read_at(390_000, 1)


def test_credentials_are_shown_nowhere(server: RangeServer, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", llama(2, d=64, f=128, vocabulary=512))
    secrets = ("hunter2", "0af31c", "sesame")
    url = server.url("m.safetensors?X-Amz-Signature=0af31c&token=sesame").replace("//", "//me:hunter2@")
    record = sniff(url)
    text = record.to_json().decode()
    assert record.label == "RMSNorm"
    assert record.path == server.url("m.safetensors?X-Amz-Signature=…&token=…")
    assert not any(secret in text for secret in secrets)
    assert all("X-Amz-Signature=0af31c&token=sesame" in path for path in server.paths), "but the server got them"
    for answer in (404, 403, 418, 500):
        server.fault = always(partial(Handler.reply, status=answer), after=0)
        with pytest.raises(SourceError) as caught:
            sniff(url)
        shown = "".join(traceback.format_exception(caught.value)).split("\nDuring handling")[-1]
        assert not any(secret in shown.partition("SourceError")[2] for secret in secrets)
        assert "m.safetensors?X-Amz-Signature=…&token=…" in str(caught.value)


def test_a_page_of_links_is_a_directory(server: RangeServer, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m 1.safetensors", llama(2, d=64, f=128, vocabulary=512))
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rms_norm_eps": 1e-6}')
    (tmp_path / "README.md").touch()
    assert sniff(server.url("")).path == server.url("")
    assert server.paths[0] == "/"
    assert set(server.paths[1:]) == {"/m%201.safetensors", "/config.json"}
    (tmp_path / "other").mkdir()
    write_safetensors(tmp_path / "other" / "n.gguf", {})
    (tmp_path / "config.json").unlink()
    with pytest.raises(SourceError, match=r"holds 2 models, name one of them: m%201.safetensors, other/n.gguf"):
        sniff(server.url(""))


def test_any_asynchronous_file_system_of_fsspec_will_do(server: RangeServer, data: str, tmp_path: Path) -> None:
    """gs:// takes this way; fsspec's own HTTP stands in for gcsfs."""
    from fsspec.implementations.http import HTTPFileSystem

    from normsniff.source.remote.files import Plain

    files = Plain(HTTPFileSystem(skip_instance_cache=True))
    head = files.head_file(data, 100, int, 60.0)
    assert (head.size, head.data) == (len(DATA), DATA[:100])
    assert files.read_ranges(head, [(5, 10), (399_990, 400_000)], int, 60.0) == [DATA[5:10], DATA[-10:]]
    assert [entry.name for entry in files.entries(server.url(""), int, 60.0)] == ["data"]
    assert isinstance(
        files.read_ranges(replace(head, url=server.url("none")), [(0, 1)], int, 60.0)[0], FileNotFoundError
    )


def read_on(file: ByteSource, first: int, step: int) -> None:
    for at in range(first, file.size, step):
        file.read_at(at, 10)


def test_what_comes_unasked_counts_against_the_limit(server: RangeServer, data: str) -> None:
    """A server that sends ranges at first and whole files later moves no more than the limit and one answer."""
    file = opened(data, fetched_bytes=1_000_000, whole_bytes=500_000)
    server.ranges = False
    with pytest.raises(LimitExceeded, match="bytes fetched"):
        read_on(file, 150_000, 1_000)
    assert server.sent < 2_000_000


def test_a_server_that_never_answers_is_not_asked_again(server: RangeServer, data: str) -> None:
    server.latency = 0.5
    with pytest.raises(SourceError, match="no answer in time"):
        opened(data, request_seconds=0.1)
    assert len(server.requests) == 1


def test_a_model_that_takes_for_ever_ends(server: RangeServer, data: str) -> None:
    file = opened(data, remote_seconds=0.0)
    server.latency = 1.1
    with pytest.raises(LimitExceeded, match="seconds of asking"):
        read_on(file, 150_000, 70_000)


def raw(data: bytes, again: int = 0) -> Callable[[Handler], None]:
    """Return an answer that is these bytes and nothing else, the last of them again and again."""

    def answer(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(data)
        for _ in range(again):
            handler.wfile.write(data[-60_000:])

    return answer


def test_what_no_library_hands_over_counts_against_the_limit(server: RangeServer, data: str) -> None:
    """Extensions of chunks, answers before the answer, bodies of redirects and of errors."""
    for answer in (
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5;x=" + b"x" * 60_000, 400),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 2_400, 400),
    ):
        server.reset()
        server.fault = always(answer, after=0)
        with pytest.raises(LimitExceeded, match="bytes fetched"):
            opened(data, fetched_bytes=1_000_000)
        assert len(server.requests) <= 2, "aiohttp asks twice where a connection breaks"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-You-Asked: sig=hunter2\0\r\n\r\n",
        b"HTTP/1.1 hunter2 OK\r\n\r\n",
        b"hunter2",
        b"HTTP/1.1 302 OK\r\nLocation: //you:hunter2@[/x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 OK\r\nLocation: file:///hunter2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 OK\r\nLocation: http://127.0.0.1:hunter2/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n",
    ],
)
def test_an_answer_that_is_none_is_not_quoted(server: RangeServer, data: str, answer: bytes) -> None:
    server.fault = always(raw(answer), after=0)
    with pytest.raises(SourceError, match=r"not HTTP as it should be|cannot be asked over HTTP") as caught:
        opened(data)
    assert "hunter2" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://me:hunter2@[/m.gguf", "http://a:hunter2/m"])
def test_a_url_that_is_none_is_not_quoted_in_a_reason(url: str) -> None:
    with pytest.raises(SourceError, match="cannot be asked over HTTP") as caught:
        sniff(url)
    assert "hunter2" not in caught.value.detail


def test_what_is_compressed_in_whatever_spelling_is_refused(server: RangeServer, data: str) -> None:
    both = b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    server.fault = always(raw(both), after=0)
    with pytest.raises(SourceError, match="compresses the file on its way"):
        opened(data)


def test_of_many_ranges_those_that_wait_are_not_asked_for_once_one_cannot_be_had(
    server: RangeServer, data: str, tmp_path: Path
) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(200 << 20)
    many = [(i << 20, 200_000) for i in range(1, 150)]  # too large to be asked for together
    source = opened(server.url("long"), request_seconds=0.5)
    server.latency = 3.0
    with pytest.raises(SourceError, match="no answer in time"):
        source.prefetch(many)
    assert len(server.requests) <= 1 + TOGETHER
    source = opened(server.url("long"), request_seconds=60.0)
    server.latency = 0.0
    server.fault = always(partial(Handler.reply, status=418), after=len(server.requests))
    with pytest.raises(SourceError, match="the server answers 418"):
        source.prefetch(many)
    assert len(server.requests) <= 2 + 2 * TOGETHER


def test_of_many_shards_those_that_wait_are_not_asked_for_once_one_is_silent(
    server: RangeServer, tmp_path: Path
) -> None:
    index = {"weight_map": {f"{i}.weight": f"model-{i}.safetensors" for i in range(500)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    def silent(handler: Handler, _: int) -> bool:
        if handler.path.endswith(".safetensors"):
            time.sleep(3)
        return False

    server.fault = silent
    with pytest.raises(SourceError, match="no answer in time"):
        sniff(server.url("model.safetensors.index.json"), limits=Limits(request_seconds=0.5))
    assert len(server.requests) <= 2 + 2 * TOGETHER


def test_an_address_of_version_six_is_one(tmp_path: Path) -> None:
    class Six(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    try:
        server = Six(("::1", 0), Empty)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        assert opened(f"http://[::1]:{server.server_address[1]}/model.gguf?sig=hunter2").name.endswith("?sig=…")
        server.shutdown()


def test_answers_that_each_come_in_time_have_one_time_together(server: RangeServer, tmp_path: Path) -> None:
    with (tmp_path / "long").open("wb") as file:
        file.truncate(400 << 20)
    source = opened(server.url("long"), remote_seconds=1.0)
    server.latency = 0.4
    with pytest.raises((SourceError, LimitExceeded), match=r"no answer in time|seconds of asking"):
        source.prefetch([(i << 20, 200_000) for i in range(1, 390)])
    assert len(server.requests) < 300


def test_directories_that_lie_in_each_other_without_end_are_left(server: RangeServer) -> None:
    server.fault = always(partial(Handler.reply, status=200, body=b"<a href='a/'><a href='b/'>"), after=0)
    with pytest.raises(LimitExceeded, match="directories inside each other"):
        sniff(server.url(""))
    assert len(server.requests) < 100


def test_beginnings_of_other_models_are_not_kept_for_ever(
    server: RangeServer, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normsniff.source.remote.link._KEPT", 3 * HEAD)
    place = place_of(data, Limits())
    assert isinstance(place, RemotePath)
    urls = [f"{data}?{i}" for i in range(5)]
    heads = [place.link.head(url) for url in urls]
    assert place.link.head(urls[-1]) is heads[-1]
    assert place.link.head(urls[0]) is not heads[0]


def test_links_are_found_in_a_page_made_to_be_slow(server: RangeServer, tmp_path: Path) -> None:
    """Each of these took the square of its length, or more."""
    for text in ("<a " * 60_000, "<a href" * 30_000, "<a " + "href=" * 40_000, "<a x href = " * 20_000):
        server.fault = always(partial(Handler.reply, status=200, body=text.encode()), after=0)
        with pytest.raises(SourceError, match="no such file or directory"):
            sniff(server.url(""))
