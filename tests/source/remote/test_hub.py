"""Against a stand-in for the Hugging Face Hub on loopback, through HfFileSystem. The real Hub was not asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from normsniff import LimitExceeded, SourceError, sniff
from normsniff.limits import Limits
from normsniff.source.places import open_file, place_of
from tests.helpers.servers import Handler, RangeServer
from tests.helpers.sparse import llama, write_sharded

pytest.importorskip("huggingface_hub")

from huggingface_hub.utils import _http

from normsniff.source.remote.hub import Hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RangeServer:
    """Serve the test's directory as the repository org/model, large files by a redirect."""

    def answer(handler: Handler, _: int) -> bool:
        path = handler.path.partition("?")[0]
        if re.fullmatch(rf"/api/models/org/model(/revision/({COMMIT}|main))?", path):
            handler.reply(200, json.dumps({"id": "org/model", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith("/api/models/org/model/tree/"):
            files = [file for file in sorted(tmp_path.iterdir()) if file.is_file()]
            rows = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name} for file in files
            ]
            handler.reply(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/"):
            handler.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif match := re.fullmatch(r"/org/model/resolve/(\w+)/(.+)", path):
            assert match[1] == COMMIT
            handler.reply(302, headers={"Location": f"/{match[2]}?signature=1"})
        else:
            return False
        return True

    endpoint = server.url("").rstrip("/")  # what HF_ENDPOINT sets, when the package is imported
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + template)
    server.fault = answer
    return server


def test_a_repository_is_one_model_at_one_commit(hub: RangeServer, tmp_path: Path) -> None:
    write_sharded(tmp_path, llama(3, d=256, f=512, vocabulary=2000), 3)
    (tmp_path / "README.md").touch()
    local = sniff(tmp_path, evidence=("declared", "layout"))
    record = sniff("hf://org/model", evidence=("declared", "layout"))
    assert (record.label, record.confidence) == (local.label, local.confidence)
    assert record.path == "hf://org/model"
    asked = [path.partition("?")[0] for path in hub.paths]
    assert sum(path.startswith("/api/models/") for path in asked) == 4, "main, its commit, that commit, its files"
    assert [path for path in asked if path in ("/model.safetensors.index.json", "/config.json")] == [
        "/model.safetensors.index.json",
        "/config.json",
    ]


def test_a_file_is_read_by_ranges(hub: RangeServer, tmp_path: Path) -> None:
    data = bytes(i % 251 for i in range(500_000))
    (tmp_path / "data.bin").write_bytes(data)
    source = open_file(place_of("hf://org/model@main/data.bin", Limits()))
    source.prefetch([(200_000, 10), (400_000, 10)])
    assert bytes(source.read_at(400_000, 10)) == data[400_000:400_010]
    assert hub.sent < 140_000
    assert source.bytes_read < 140_000


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hf://org/none", "no such file or directory"),
        ("hf://org/model/none.gguf", "no such file"),
        ("hf://org/model", "no model file there"),
        ("hf://model", "Repository id must be"),
    ],
)
def test_what_is_not_there(hub: RangeServer, tmp_path: Path, url: str, words: str) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(SourceError, match=f"{url}/?: .*{words}"):
        sniff(url)


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_told_of_the_token(hub: RangeServer, tmp_path: Path, status: int) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    answer = hub.fault
    assert answer is not None

    def fault(handler: Handler, number: int) -> bool:
        if "/resolve/" not in handler.path:
            return answer(handler, number)
        handler.reply(status, b"{}", {"X-Error-Code": "GatedRepo"})
        return True

    hub.fault = fault
    with pytest.raises(SourceError, match="access denied") as caught:
        sniff("hf://org/model/model.gguf")
    assert "HF_TOKEN" in caught.value.hint


def test_a_repository_that_is_not_shown_may_be_private(hub: RangeServer) -> None:
    with pytest.raises(SourceError, match="no such file") as caught:
        sniff("hf://org/none")
    assert "HF_TOKEN" in caught.value.hint


def pages(handler: Handler) -> None:
    page = json.dumps([{"type": "directory", "path": "d", "oid": "d"}]).encode()
    handler.reply(200, page, {"Link": f'<http://{handler.headers["Host"]}{handler.path}>; rel="next"'})


def whole(handler: Handler) -> None:
    handler.reply(200, bytes(100), {"Content-Length": str(10**12)})


@pytest.mark.parametrize(
    ("part", "answer", "words"),
    [
        (
            "/api/models/org/model",
            partial(Handler.reply, status=429, headers={"Retry-After": "1000000000"}),
            "come back",
        ),
        ("/api/models/org/model", partial(Handler.reply, status=200, body=b"[" * 17_000_000), "bytes about files"),
        ("/api/models/org/model", partial(Handler.reply, status=200, body=b"[" * 100_000), "RecursionError"),
        (
            "/api/models/org/model",
            partial(Handler.reply, status=200, headers={"Content-Encoding": "gzip"}),
            "compresses",
        ),
        ("/tree/", pages, "takes more than 100 requests"),
        ("/resolve/", whole, "whole files only"),
    ],
)
def test_a_hub_made_to_be_endless_ends(
    hub: RangeServer, tmp_path: Path, part: str, answer: Callable[[Handler], None], words: str
) -> None:
    """Its library waits as long as a server wants, and takes whatever comes."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    honest = hub.fault
    assert honest is not None

    def fault(handler: Handler, number: int) -> bool:
        if part not in handler.path:
            return honest(handler, number)
        answer(handler)
        return True

    hub.fault = fault
    with pytest.raises(SourceError, match=words):
        sniff("hf://org/model")


def test_a_hub_that_is_silent_is_given_up(hub: RangeServer) -> None:
    hub.latency = 5.0
    with pytest.raises(SourceError, match="no answer in time"):
        sniff("hf://org/model", limits=Limits(request_seconds=0.3))


def test_what_comes_from_a_hub_counts_against_the_limit(hub: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(300_000))
    with pytest.raises(LimitExceeded, match="bytes fetched"):
        open_file(place_of("hf://org/model/data.bin", Limits(fetched_bytes=100_000)))


def test_what_others_ask_of_the_library_is_not_limited(hub: RangeServer) -> None:
    from huggingface_hub import HfApi

    Hub()
    assert HfApi(endpoint=hub.url("").rstrip("/")).repo_info("org/model").sha == COMMIT
    factory = _http._GLOBAL_CLIENT_FACTORY
    Hub()
    assert _http._GLOBAL_CLIENT_FACTORY is factory, "hooks are put in once"
