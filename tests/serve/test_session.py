"""A page and its session: ranges that are asked for, records that grow, and pages that lie, hang or leave."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

import normsniff
from normsniff.errors import LimitExceeded, SourceError
from normsniff.limits import Limits
from normsniff.record import Classification
from tests.helpers.manifest import FIXTURES
from tests.helpers.sparse import llama, write_sharded

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocket, WebSocketDisconnect

from normsniff.serve.app import application
from normsniff.serve.calls import models_in
from normsniff.serve.dropped import ANSWER, PageFiles, place_of_drop
from normsniff.serve.line import Calling
from normsniff.serve.service import Service
from normsniff.serve.session import _Session
from normsniff.serve.settings import Settings

GGUF = FIXTURES / "gpt2-ln.Q8_0.gguf"
HOME = "http://127.0.0.1:8420"
OURS = {"host": "127.0.0.1:8420", "origin": HOME}
LAYERS = 19  # of the shapes of Llama 2, in BF16: 8.2 GB


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = Settings(jobs=1, root=FIXTURES, timeout=30.0)
    with TestClient(application(settings), base_url=HOME, headers=OURS) as client:
        yield client


class Page:
    """What the script of the page does: it sends names and sizes, and slices files for whoever asks.

    Attributes:
        heard: messages but questions.
        sent: bytes of files that were sent.
        asks: questions that were asked.
    """

    def __init__(self, socket: WebSocketTestSession, files: Mapping[str, Path]) -> None:
        self.socket = socket
        self.files = list(files.values())
        self.heard: list[dict[str, Any]] = []
        self.sent = self.asks = 0
        socket.send_json({"files": [[name, path.stat().st_size] for name, path in files.items()]})

    def follow(self) -> list[dict[str, Any]]:
        """Answer until the end."""
        while True:
            said = self.socket.receive_json()
            if said["type"] == "read":
                self.asks += 1
                self.answer(said["ask"], said["ranges"])
                continue
            self.heard.append(said)
            if said["type"] == "end":
                return self.heard

    def answer(self, ask: int, ranges: Sequence[tuple[int, int, int]]) -> None:
        """Send what was asked for."""
        data = b"".join(self.slice(*one) for one in ranges)
        self.sent += len(data)
        self.socket.send_bytes(ask.to_bytes(4, "big") + data)

    def slice(self, number: int, start: int, stop: int) -> bytes:
        """Return a range of a file."""
        with self.files[number].open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


def parse_html(text: str) -> set[str]:
    """Return the elements that a browser would see."""
    found: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add(tag)
            assert all(not name.startswith("on") for name, _ in attrs)

    Tags().feed(text)
    return found


def idle(client: TestClient) -> None:
    """Wait until nobody is inside any more."""
    deadline = time.monotonic() + 20
    while client.get("/readyz").json()["inside"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestDrops:
    def test_a_dropped_file_is_asked_for_ranges_and_answered_as_a_local_one(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            heard = Page(socket, {"model.gguf": GGUF}).follow()
        assert [one["type"] for one in heard] == ["models", "grown", "done", "end"]
        record = msgspec.json.decode(heard[2]["record"], type=Classification)
        expected = normsniff.sniff(GGUF)
        assert record.path == "model.gguf"
        assert (record.label, record.confidence, record.evidence) == (
            expected.label,
            expected.confidence,
            expected.evidence,
        )
        assert heard[2]["words"] == f"model.gguf: LayerNorm, {expected.confidence:.1%} sure"
        assert "dropped://" not in json.dumps(heard)

    def test_the_report_grows_from_the_header_on_and_has_no_inline_style(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            grown, done = Page(socket, {"model.gguf": GGUF}).follow()[1:3]
        assert grown["html"].startswith("<article")
        assert grown["html"].count('class="point"') < done["html"].count('class="point"')
        assert " style=" not in done["html"]
        assert done["page"].startswith("<!DOCTYPE html>")

    def test_a_folder_is_one_model_with_what_lies_beside_it(self, client: TestClient) -> None:
        files = {f"gpt2/{path.name}": path for path in sorted((FIXTURES / "gpt2-ln").iterdir())}
        with client.websocket_connect("/session") as socket:
            heard = Page(socket, files).follow()
        assert heard[0] == {"type": "models", "models": ["gpt2/model.safetensors"]}
        record = msgspec.json.decode(heard[-2]["record"], type=Classification)
        assert any("config" in one.reason or one.kind == "declared" for one in record.evidence)
        assert record.label == "LayerNorm"

    def test_several_files_are_answered_one_by_one_and_a_bad_one_stops_no_other(
        self, client: TestClient, tmp_path: Path
    ) -> None:
        (tmp_path / "bad.gguf").write_bytes(GGUF.read_bytes()[:3000])
        files = {"a.gguf": GGUF, "bad.gguf": tmp_path / "bad.gguf", "b.gguf": FIXTURES / "llama-rms.Q8_0.gguf"}
        with client.websocket_connect("/session") as socket:
            heard = Page(socket, files).follow()
        ends = {one["model"]: one for one in heard if one["type"] in ("done", "failed")}
        assert [heard[0]["models"][number] for number in sorted(ends)] == ["a.gguf", "b.gguf", "bad.gguf"]
        labels = {heard[0]["models"][number]: one.get("label") for number, one in ends.items()}
        assert labels == {"a.gguf": "LayerNorm", "b.gguf": "RMSNorm", "bad.gguf": None}

    def test_what_is_passed_over_is_told(self) -> None:
        files = {"m/model.gguf": GGUF, "m/config.json": GGUF, "m/other.gguf": GGUF, "m/optimizer.pt": GGUF}
        names, skipped = models_in(tuple((name, 1000) for name in files))
        assert names
        assert all(reason for _, reason in skipped)

    def test_a_drop_without_a_model_is_told_so(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            heard = Page(socket, {"a.txt": GGUF, "b/c.txt": GGUF}).follow()
        assert heard[0]["type"] == "problem"
        assert "no model" in heard[0]["detail"]

    def test_eight_gigabytes_cost_some_megabytes_and_few_questions(self, client: TestClient, tmp_path: Path) -> None:
        total = write_sharded(tmp_path, llama(LAYERS), 4)
        assert total > 8e9
        with client.websocket_connect("/session") as socket:
            page = Page(socket, {path.name: path for path in sorted(tmp_path.iterdir())})
            heard = page.follow()
        record = msgspec.json.decode(heard[-2]["record"], type=Classification)
        assert record.file_size is not None
        assert record.file_size > 8e9
        assert page.sent < 40e6
        assert page.asks < 60

    def test_names_of_files_are_text_and_nothing_else(self, client: TestClient) -> None:
        name = "<img src=x onerror=alert(1)>?#%2e;a@b.gguf"
        with client.websocket_connect("/session") as socket:
            heard = Page(socket, {name: GGUF}).follow()
        assert heard[0]["models"] == [name]
        html = parse_html(heard[-2]["html"])
        assert "article" in html
        assert "img" not in html
        assert msgspec.json.decode(heard[-2]["record"], type=Classification).label == "LayerNorm"

    def test_a_path_below_the_root_grows_likewise(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            socket.send_json({"path": GGUF.name})
            types: list[str] = []
            while not types or types[-1] != "end":
                types.append(socket.receive_json()["type"])
        assert types == ["models", "grown", "done", "end"]

    def test_a_url_that_is_not_allowed_and_a_path_outside_are_refused(self, client: TestClient) -> None:
        for opening, words in (
            ({"url": "http://10.0.0.1/a.gguf"}, "allowed hosts"),
            ({"path": "../x"}, "below the root"),
        ):
            with client.websocket_connect("/session") as socket:
                socket.send_json(opening)
                said = socket.receive_json()
                said = socket.receive_json() if said["type"] == "models" else said
                assert words in json.dumps(said)


class TestPagesThatMisbehave:
    @pytest.mark.parametrize("origin", ["http://evil.example", "null", ""])
    def test_a_page_of_somebody_else_gets_no_session(self, client: TestClient, origin: str) -> None:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/session", headers={"origin": origin}):
            pass

    @pytest.mark.parametrize(
        "opening", ["", "{", "[]", "{}", '{"files": []}', '{"files": [["a", -1]]}', '{"files": [["", 1]]}',
                    '{"files": [["../a", 1]]}', '{"files": [["a//b", 1], ["c", 1]]}', '{"files": [["a", 1e99]]}',
                    '{"more": 1}', "[" * 50_000],
    )  # fmt: skip
    def test_what_is_no_opening_closes_the_session_or_is_a_problem(self, client: TestClient, opening: str) -> None:
        with client.websocket_connect("/session") as socket:
            socket.send_text(opening)
            said = socket.receive()
            assert said.get("code") == 1007 or json.loads(said["text"])["type"] == "problem"
        idle(client)

    def test_a_page_that_cannot_read_its_file_says_why(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            page = Page(socket, {"a.gguf": GGUF})
            page.answer = lambda ask, _: socket.send_json({"ask": ask, "reason": "it is gone"})  # type: ignore[assignment,method-assign]
            heard = page.follow()
        assert heard[1]["type"] == "failed"
        assert "it is gone" in heard[1]["html"]

    @pytest.mark.parametrize("change", [-1, 1, -100_000])
    def test_a_page_that_sends_another_number_of_bytes_is_not_believed(self, client: TestClient, change: int) -> None:
        with client.websocket_connect("/session") as socket:
            page = Page(socket, {"a.gguf": GGUF})

            def lie(ask: int, ranges: Sequence[tuple[int, int, int]]) -> None:
                length = max(sum(stop - start for _, start, stop in ranges) + change, 0)
                socket.send_bytes(ask.to_bytes(4, "big") + bytes(length))

            page.answer = lie  # type: ignore[method-assign]
            heard = page.follow()
        assert heard[1]["type"] == "failed"
        assert "the page sent" in heard[1]["html"]

    def test_answers_that_nobody_asked_for_change_nothing(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            page = Page(socket, {"a.gguf": GGUF})
            for ask in (0, 7, 2**32 - 1):
                socket.send_bytes(ask.to_bytes(4, "big") + b"x" * 100)
            socket.send_bytes(b"")
            slices = page.answer

            def twice(ask: int, ranges: Sequence[tuple[int, int, int]]) -> None:
                slices(ask, ranges)
                slices(ask, ranges)

            page.answer = twice  # type: ignore[method-assign]
            heard = page.follow()
        assert heard[-2]["label"] == "LayerNorm"

    def test_a_page_that_leaves_or_never_answers_keeps_no_place(self, client: TestClient) -> None:
        with client.websocket_connect("/session") as socket:
            Page(socket, {"a.gguf": GGUF})
            while socket.receive_json()["type"] != "read":
                pass
        idle(client)
        assert client.post("/v1/sniff", content=GGUF.read_bytes()).status_code == 200
        assert "normsniff_sessions 0.0" in client.get("/metrics").text

    def test_a_page_that_is_silent_costs_the_time_of_one_answer(self) -> None:
        settings = Settings(jobs=1, timeout=0.7)
        with (
            TestClient(application(settings), base_url=HOME, headers=OURS) as client,
            client.websocket_connect("/session") as socket,
        ):
            page = Page(socket, {"a.gguf": GGUF})
            page.answer = lambda *_: None  # type: ignore[method-assign]
            heard = page.follow()
            assert heard[1]["type"] == "failed"
            assert "timeout" in heard[1]["html"]


class Double(Calling):
    """A line to a page in this process, which notes what it is asked for."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files
        self.asked: list[list[tuple[int, int, int]]] = []

    def ask(self, ranges: Sequence[tuple[int, int, int]]) -> bytes:
        self.asked.append(list(ranges))
        return b"".join(self.files[number][start:stop] for number, start, stop in ranges)


class TestFiles:
    def test_ranges_are_asked_for_together_up_to_a_size(self) -> None:
        data = bytes(range(256)) * 100_000
        line = Double([data])
        files = PageFiles(line, [("a", len(data))])
        head = files.head_file("dropped://files/a", 100, lambda _: None, 60.0)
        assert (head.size, head.data) == (len(data), data[:100])
        wanted = [(i * ANSWER // 3, (i + 1) * ANSWER // 3) for i in range(8)]
        assert files.read_ranges(head, wanted, lambda _: None, 60.0) == [data[start:stop] for start, stop in wanted]
        assert len(line.asked) == 1 + 3
        assert all(sum(stop - start for _, start, stop in one) <= ANSWER for one in line.asked)

    def test_folders_are_made_of_the_names(self) -> None:
        files = PageFiles(None, [("a/b/c.gguf", 1), ("a/d.txt", 2), ("e", 3)])
        listed = {one.name: one.is_directory for one in files.entries("dropped://files/a/", lambda _: None, 60.0)}
        assert listed == {"b": True, "d.txt": False}
        with pytest.raises(FileNotFoundError):
            files.entries("dropped://files/x", lambda _: None, 60.0)
        with pytest.raises(NotADirectoryError):
            files.entries("dropped://files/e", lambda _: None, 60.0)
        with pytest.raises(IsADirectoryError):
            files.head_file("dropped://files/a", 1, lambda _: None, 60.0)

    def test_folders_cost_what_their_names_do(self) -> None:
        """A path for each of the folders that a name lies in would take the square of its length."""
        deep = [("a/" * 2000 + f"{number}.gguf", 1) for number in range(20)]
        tracemalloc.start()
        try:
            files = PageFiles(None, deep)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
        assert len(files.entries("dropped://files/" + "a/" * 2000, lambda _: None, 60.0)) == 20
        with pytest.raises(LimitExceeded, match="directories inside each other"):
            models_in(tuple(deep))

    def test_a_place_of_a_drop_is_sniffed_as_any_other(self) -> None:
        line = Double([GGUF.read_bytes()])
        place = place_of_drop(line, [("x/model.gguf", GGUF.stat().st_size)], "x/model.gguf", Limits())
        assert normsniff.sniff(place).label == "LayerNorm"
        with pytest.raises(SourceError):
            normsniff.sniff(place_of_drop(line, [("x", 1)], "y.gguf", Limits()))


def test_workers_find_back_where_the_path_of_temporary_files_is_too_long_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    fresh = TestClient(application(Settings(jobs=1)), base_url=HOME, headers=OURS)
    with fresh as client, client.websocket_connect("/session") as socket:
        heard = Page(socket, {"model.gguf": GGUF}).follow()
    assert heard[-2]["label"] == "LayerNorm"


def test_a_page_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.serve.session._TAKEN", 0.01)

    class Deaf:
        async def send_text(self, _: str) -> None:
            await asyncio.sleep(3600)

    one = _Session(cast(WebSocket, Deaf()), cast(Service, None))
    with pytest.raises(TimeoutError):
        asyncio.run(one._say(type="waiting"))
