"""What a URL holds for its server alone is written nowhere else: no output, record, journal, log, warning or error."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import normsniff
from normsniff.cli import cli
from normsniff.cli.report import _made
from normsniff.errors import SourceError
from normsniff.record import Failure, spelled
from normsniff.serve.ssrf import Guard
from normsniff.source.places import place_of
from tests.helpers.manifest import FIXTURES
from tests.helpers.servers import Handler, RangeServer

pytest.importorskip("aiohttp")

SECRETS = ("hunter2", "0af31c", "sesame", "cookie9", "fragment7", "elsewhere5")
QUERY = "X-Amz-Signature=0af31c&sig='sesame&sesame#fragment7"
PLACES = ("model.safetensors", "llama-rms;jsessionid=cookie9/", "sharded/model.safetensors.index.json", "none.gguf",
          "broken/model.safetensors")  # fmt: skip


def secret_urls(server: RangeServer) -> list[str]:
    return [f"{server.url(place)}?{QUERY}".replace("//", "//me:hunter2@", 1) for place in PLACES]


def redirected(handler: Handler, _number: int) -> bool:
    if "elsewhere5" in handler.path:
        return False
    handler.reply(302, headers={"Location": f"{handler.path.partition('?')[0]}?token=elsewhere5"})
    return True


def redirected_to_nothing(handler: Handler, _number: int) -> bool:
    there = "elsewhere5" in handler.path
    handler.reply(403 if there else 302, headers={"Location": "http://you:hunter2@127.0.0.1:9/x?token=elsewhere5"})
    return True


def answering(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler, int], bool]:
    def fault(handler: Handler, _number: int) -> bool:
        handler.reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return fault


FAULTS = {
    "none": None,
    "redirected": redirected,
    "redirected to nothing": redirected_to_nothing,
    "403": answering(403),
    "404": answering(404),
    "418": answering(418),
    "no ranges": answering(200, b"\0" * 100),
    "a wrong range": answering(206, b"abc", Content_Range="bytes 7-9/10?sig=0af31c"),
    "a lie about lengths": answering(206, b"abc", Content_Range="bytes 0-9/10", Connection="close"),
    "a redirect that is no URL": answering(302, Location="http://me:hunter2@[/?token=elsewhere5"),
    "a loop": answering(302, Location="?token=elsewhere5"),
}  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    shutil.copy(FIXTURES / "llama-rms.bf16.safetensors", root / "model.safetensors")
    shutil.copytree(FIXTURES / "llama-rms", root / "llama-rms;jsessionid=cookie9")
    (root / "sharded").mkdir()
    (root / "sharded/model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    (root / "broken").mkdir()
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", root / "broken")
    (root / "broken/config.json").write_text("{")
    return root


@pytest.fixture
def server(lake: Path) -> Iterator[RangeServer]:
    one = RangeServer(lake)
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.source.remote.link._FIRST_WAIT", 0.0)


def assert_no_secret(text: str, where: str) -> None:
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"{found} in {where}: {text[max(0, text.index(found[0]) - 300) :][:600]}"


COMMANDS = {
    "sniff": ("sniff",), "json": ("--json", "--norms"), "sarif": ("--format", "sarif"),
    "cyclonedx": ("--format", "cyclonedx"), "check": ("check",), "check json": ("check", "--json"),
    "check sarif": ("check", "--format", "sarif"), "report": ("report", "-o", "out.html"),
    "csv": ("scan", "-j", "1", "-o", "out.csv", "--skipped", "out.skipped"),
    "jsonl": ("scan", "-j", "1", "-o", "out.jsonl"), "limited": ("--timeout", "60"),
    "baseline": ("check", "--baseline", "out.known", "--update-baseline"),
    "plan": ("plan",), "plan json": ("plan", "--json"), "norms": ("norms", "-o", "out.npz"),
    "norms json": ("norms", "--json"), "direction": ("direction", "-o", "out.npz"),
    "prune": ("prune", "-o", "out.safetensors"), "track": ("track",),
}  # fmt: skip
ONE_INPUT = ("plan", "plan json", "norms", "norms json", "direction", "prune")


@pytest.mark.parametrize(
    ("fault", "command"),
    [*((fault, "json") for fault in FAULTS),
     *((fault, command) for fault in ("none", "403") for command in COMMANDS if command != "json")],
)  # fmt: skip
def test_a_secret_of_a_url_is_written_nowhere(
    fault: str, command: str, server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    server.fault = FAULTS[fault]
    urls = secret_urls(server)
    for given in [[url] for url in urls] if command in ONE_INPUT else [urls]:
        result = CliRunner().invoke(cli, [*COMMANDS[command], *given])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert_no_secret(result.stdout, "stdout")
        assert_no_secret(result.stderr, "stderr")
        assert_no_secret(caplog.text, "logs")
        for path in tmp_path.iterdir():
            assert_no_secret(path.read_bytes().decode("latin-1"), path.name)
            path.unlink()
    assert command == "track" or any("sesame" in path for path in server.paths), "but the server got them"


def test_a_limit_of_a_process_tells_no_secret(server: RangeServer) -> None:
    server.latency = 5.0
    for limits in ({"timeout": 0.5}, {"limits": normsniff.Limits(requests=0)}):
        with pytest.raises(normsniff.NormsniffError) as caught:
            normsniff.sniff(secret_urls(server)[0], isolate=True, **limits)
        assert_no_secret("".join(traceback.format_exception(caught.value)), "a traceback")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_traceback_shows_no_secret(fault: str, server: RangeServer) -> None:
    server.fault = FAULTS[fault]
    for url in secret_urls(server):
        for ask in (normsniff.sniff, normsniff.check):
            try:
                record = ask(url)
            except normsniff.NormsniffError as error:
                assert_no_secret("".join(traceback.format_exception(error)), "a traceback")
                assert_no_secret(f"{error!r} {vars(error)!r}", "an error")
            else:
                assert_no_secret(repr(record), "a record")


SPACED = (
    "http://me:hunter2 hunter2@host/m.gguf", "http://me:hun\tter2@host/m.gguf?x=\nsesame",
    "https://host/a b?sig=sesame",
    "s3://me:hunter2\u00a0x@bucket/a key", "http://host/a\u2028?token=sesame#fragment7",
    "HTTP://host/'a' b?sig='sesame", "ftp://me:a hunter2@host/x", "http:/me:a hunter2@host/x",
    "http://host/a;jsessionid= cookie9/b",
)  # fmt: skip


@pytest.mark.parametrize("url", SPACED)
def test_a_space_ends_no_url_that_is_known_to_be_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_no_secret(spelled(url), "a record")
    assert_no_secret(repr(Failure.of(url, SourceError(spelled(url), "not there"))), "a failure")
    try:
        assert_no_secret(spelled(place_of(url, normsniff.Limits())), "a place")
    except SourceError as error:
        assert_no_secret(f"{error} {vars(error)}", "an error")
    with pytest.raises(SourceError) as caught:
        Guard(()).check_url(url)
    assert_no_secret(f"{caught.value} {vars(caught.value)}", "an error")
    monkeypatch.setattr("sys.argv", ["normsniff", "report", url])
    assert_no_secret(_made([], hashed=False).command, "a page")
