"""The API: what it answers, what it refuses and in which words, and that nothing of it leaves its bounds."""

from __future__ import annotations

import io
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import normsniff
from normsniff.cli import cli
from normsniff.record import Classification
from tests.helpers import calls
from tests.helpers.manifest import FIXTURES

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from normsniff.serve.app import VERBS, application
from normsniff.serve.settings import Settings

GGUF = FIXTURES / "gpt2-ln.Q8_0.gguf"
HOME = "http://127.0.0.1:8420"


def client_of(**settings: Any) -> TestClient:
    return TestClient(application(Settings(jobs=1, **settings)), base_url=HOME)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with a model, and links that lead out of it."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.gguf").write_bytes(GGUF.read_bytes())
    (outside / "config.json").write_text('{"model_type": "llama"}')
    root = tmp_path_factory.mktemp("root")
    (root / "lake").mkdir()
    (root / "lake" / "model.gguf").write_bytes(GGUF.read_bytes())
    (root / "inner.gguf").symlink_to("lake/model.gguf")
    (root / "out.gguf").symlink_to(outside / "secret.gguf")
    (root / "out").symlink_to(outside)
    (root / "mixed").mkdir()
    (root / "mixed" / "model.gguf").symlink_to(outside / "secret.gguf")
    (root / "loop").symlink_to("loop")
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root=root, upload=10_000_000, hosts=("127.0.0.1:1",)) as client:
        yield client


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a folder for temporary files in place of the system's: its path is short, as sockets are put into it.

    The server that forks workers outlives a test, so that its own socket must not lie there: it keeps the place that
    it has when this is called.
    """
    get_temp_dir()
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def problem(answer: Any, status: int, slug: str) -> str:
    """Check what kind of problem an answer is; returns its words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["type"] == f"urn:normsniff:{slug}"
    assert found["status"] == status
    assert "Traceback" not in answer.text
    detail: str = found["detail"]
    return detail


class TestAnswers:
    def test_a_body_gets_the_record_that_the_library_gives(self, client: TestClient) -> None:
        answer = client.post("/v1/sniff?name=gpt2.gguf", content=GGUF.read_bytes())
        record = msgspec.json.decode(answer.content, type=Classification)
        expected = normsniff.sniff(GGUF)
        assert record.path == "gpt2.gguf"
        same = {"path": None, "seconds": None}
        assert msgspec.structs.replace(record, **same) == msgspec.structs.replace(expected, **same)

    def test_what_curl_calls_a_form_is_a_body_all_the_same(self, client: TestClient) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert client.post("/v1/sniff", content=GGUF.read_bytes(), headers=headers).json()["label"] == "LayerNorm"

    def test_a_path_below_the_root_is_read_where_it_is(self, client: TestClient) -> None:
        answer = client.post("/v1/sniff", json={"path": "lake/model.gguf"}).json()
        assert (answer["path"], answer["label"]) == ("lake/model.gguf", "LayerNorm")
        assert client.post("/v1/sniff", json={"path": "lake"}).json()["label"] == "LayerNorm"
        assert client.post("/v1/sniff", json={"path": "inner.gguf"}).json()["label"] == "LayerNorm"

    def test_parameters_alone_are_asked_for_in_the_query_and_in_json(self, client: TestClient) -> None:
        by_query = client.post("/v1/sniff?evidence=kernel", content=GGUF.read_bytes()).json()
        by_json = client.post("/v1/sniff", json={"path": "inner.gguf", "evidence": ["kernel"]}).json()
        assert {one["kind"] for one in by_query["evidence"]} <= {"kernel", "verdict"}
        assert by_query["evidence"] == by_json["evidence"]

    def test_a_check_a_plan_and_a_report_are_what_the_commands_print(self, client: TestClient) -> None:
        found = {verb: client.post(f"/v1/{verb}", json={"path": "inner.gguf"}) for verb in VERBS}
        assert found["check"].json()["findings"] == []
        assert found["plan"].json()["most_bytes"] == normsniff.plan(GGUF).most_bytes
        assert found["report"].headers["content-type"].startswith("text/html")
        assert found["report"].text.startswith("<!DOCTYPE html>")
        assert "sandbox" in found["report"].headers["content-security-policy"]

    def test_an_abstention_is_an_answer(self, client: TestClient) -> None:
        answer = client.post("/v1/sniff?evidence=kernel&budget=0", content=GGUF.read_bytes())
        assert (answer.status_code, answer.json()["label"]) == (200, "undetermined")

    def test_health_and_metrics_are_told(self, client: TestClient) -> None:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json()["status"] == "ready"
        client.post("/v1/sniff", content=GGUF.read_bytes())
        text = client.get("/metrics").text
        assert 'normsniff_labels_total{label="LayerNorm"}' in text
        assert 'normsniff_requests_total{route="/v1/sniff",status="200"}' in text
        assert "normsniff_inside 0.0" in text

    def test_the_description_is_valid_and_names_every_route(self, client: TestClient) -> None:
        found = client.get("/openapi.json").json()
        assert found["openapi"].startswith("3.1")
        assert {f"/v1/{verb}" for verb in VERBS} < found["paths"].keys()
        validator = pytest.importorskip("openapi_spec_validator")
        validator.validate(found)

    def test_an_answer_is_what_the_description_says(self, client: TestClient) -> None:
        jsonschema = pytest.importorskip("jsonschema")
        described = client.get("/openapi.json").json()
        for verb in ("sniff", "check", "plan"):
            answer = client.post(f"/v1/{verb}", json={"path": "inner.gguf"})
            schema = described["paths"][f"/v1/{verb}"]["post"]["responses"]["200"]["content"]["application/json"]
            jsonschema.validate(answer.json(), schema["schema"] | {"components": described["components"]})


class TestRefusals:
    @pytest.mark.parametrize(
        "path", ["../x", "out.gguf", "out", "out/secret.gguf", "mixed/model.gguf", "/etc/passwd", "a\0b", "nope",
                 "loop", "lake/../../x", "~", "file:///etc/passwd"],
    )  # fmt: skip
    def test_no_path_leads_out_of_the_root_and_all_get_the_same_words(self, client: TestClient, path: str) -> None:
        answer = client.post("/v1/sniff", json={"path": path})
        words = problem(answer, 422, "source")
        assert words.endswith("no such file or directory below the root")
        assert "outside" not in words

    def test_a_directory_whose_model_lies_elsewhere_has_none(self, client: TestClient) -> None:
        assert "no model file" in problem(client.post("/v1/sniff", json={"path": "mixed"}), 422, "source")

    def test_a_file_that_is_no_model_is_a_problem_with_its_code(self, client: TestClient) -> None:
        problem(client.post("/v1/sniff", content=b"hello\n" * 40), 422, "unknown-format")
        cut = client.post("/v1/check?name=cut.gguf", content=GGUF.read_bytes()[:2000])
        assert problem(cut, 422, "truncated").startswith("cut.gguf")

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"{}", b'{"url": "x", "path": "y"}', b'{"path": 1}', b'{"path": "a", "more": 1}',
                 b'{"path": "a", "evidence": []}', b'{"path": "a", "budget": -1}', b"[" * 60_000, b'"\xff"'],
    )  # fmt: skip
    def test_a_request_that_is_none_is_told_so(self, client: TestClient, body: bytes) -> None:
        problem(
            client.post("/v1/sniff", content=body, headers={"content-type": "application/json"}), 400, "bad-request"
        )

    @pytest.mark.parametrize("query", ["evidence=", "evidence=magic", "budget=-1", "budget=x", "deep=7", "other=1"])
    def test_a_query_that_is_none_likewise(self, client: TestClient, query: str) -> None:
        problem(client.post(f"/v1/sniff?{query}", content=b"x"), 400, "bad-request")

    def test_an_empty_body_and_a_form_are_told_what_to_do(self, client: TestClient) -> None:
        problem(client.post("/v1/sniff"), 400, "empty")
        problem(client.post("/v1/sniff", files={"a": b"x"}), 415, "multipart")

    def test_a_body_is_bounded_by_what_it_says_and_by_what_comes(self, client: TestClient) -> None:
        problem(client.post("/v1/sniff", content=b"x" * 10_000_001), 413, "too-large")
        problem(client.post("/v1/sniff", content=(b"x" * 1_000_000 for _ in range(11))), 413, "too-large")
        long = b'{"path": "' + b"a" * 70_000 + b'"}'
        problem(client.post("/v1/sniff", content=long, headers={"content-type": "application/json"}), 413, "too-large")

    def test_a_url_leads_to_allowed_hosts_only(self, client: TestClient) -> None:
        for url in (
            "http://169.254.169.254/",
            "file:///etc/passwd",
            "s3://bucket/a",
            "hf://org/model",
            "https://a.b/c",
            "x",
        ):
            problem(client.post("/v1/sniff", json={"url": url}), 403, "url-not-allowed")

    def test_without_a_root_no_path_is_read(self) -> None:
        with client_of() as client:
            problem(client.post("/v1/sniff", json={"path": "model.gguf"}), 403, "no-root")

    def test_no_route_and_no_method(self, client: TestClient) -> None:
        problem(client.get("/v1/nothing"), 404, "http")
        problem(client.get("/v1/sniff"), 405, "http")

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b"])
    def test_a_name_that_is_not_ours_is_not_answered(self, client: TestClient, host: str) -> None:
        problem(client.get("/healthz", headers={"host": host}), 421, "unknown-name")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8420", "127.0.0.1", "[::1]:8420", "192.0.2.7:80"])
    def test_localhost_and_addresses_are(self, client: TestClient, host: str) -> None:
        assert client.get("/healthz", headers={"host": host}).status_code == 200

    def test_a_name_that_was_given_is_ours(self) -> None:
        with client_of(names=("Models.example",)) as client:
            assert client.get("/healthz", headers={"host": "models.example"}).status_code == 200
            problem(client.get("/healthz", headers={"host": "other.example"}), 421, "unknown-name")

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8421", "http://[", ""])
    def test_a_page_of_somebody_else_cannot_ask(self, client: TestClient, origin: str) -> None:
        problem(client.post("/v1/sniff", content=b"x", headers={"origin": origin}), 403, "foreign-origin")

    def test_our_own_page_can(self, client: TestClient) -> None:
        answer = client.post("/v1/sniff", content=GGUF.read_bytes(), headers={"origin": HOME})
        assert answer.status_code == 200

    def test_every_answer_forbids_what_it_does_not_need(self, client: TestClient) -> None:
        for answer in (client.get("/healthz"), client.get("/nothing"), client.post("/v1/sniff", content=b"x")):
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert answer.headers["x-content-type-options"] == "nosniff"


class TestBounds:
    def test_nothing_of_an_upload_stays_and_no_name_is_used(
        self, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        with client_of() as client:
            for name in ("../../evil", "/etc/passwd", "a\0b", "c:\\windows\\x", "\N{BEL}"):
                answer = client.post("/v1/sniff", params={"name": name}, content=GGUF.read_bytes())
                assert answer.status_code == 200
                assert "/" not in answer.json()["path"]
            assert [path for path in scratch.rglob("*") if path.is_file()] == []  # there are sockets
        assert list(scratch.glob("normsniff-*")) == []

    def test_a_file_that_hangs_crashes_or_fills_its_process_costs_that_and_the_next_is_answered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with client_of(timeout=1.0, memory=calls.MEMORY) as client:
            with monkeypatch.context() as patched:
                patched.setattr("normsniff.serve.api.answer", calls.misbehave)
                problem(client.post("/v1/sniff", content=b"hang"), 422, "timeout")
                problem(client.post("/v1/sniff", content=b"kill"), 500, "crashed")
                problem(client.post("/v1/sniff", content=b"eat"), 422, "memory")
            assert client.post("/v1/sniff", content=GGUF.read_bytes()).status_code == 200

    def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("normsniff.serve.api.answer", calls.misbehave)
        with client_of(queue=1) as client:
            body = f"nap {tmp_path / 'over'}".encode()
            slow = [threading.Thread(target=client.post, args=("/v1/sniff",), kwargs={"content": body}) for _ in "ab"]
            for one in slow:
                one.start()
            deadline = time.monotonic() + 30
            while client.get("/readyz").status_code == 200:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            answer = client.post("/v1/sniff", content=b"nap")
            problem(answer, 429, "busy")
            assert int(answer.headers["retry-after"]) >= 1
            (tmp_path / "over").touch()
            for one in slow:
                one.join()
            assert client.get("/readyz").json() == {"status": "ready", "inside": 0}


class TestCommand:
    def test_its_help_shows_what_is_allowed(self) -> None:
        printed = CliRunner().invoke(cli, ["serve", "--help"]).output
        assert "huggingface.co" in printed
        assert "127.0.0.1" in printed

    def test_a_port_that_is_taken_and_a_host_that_is_not_ours_are_told(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = CliRunner().invoke(cli, ["serve", "--port", str(taken.getsockname()[1])])
        assert done.exit_code == 1
        assert "cannot listen" in done.stderr
        assert "cannot listen" in CliRunner().invoke(cli, ["serve", "--host", "192.0.2.1", "--port", "0"]).stderr

    def test_without_the_extra_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        done = CliRunner().invoke(cli, ["serve"])
        assert done.exit_code == 1
        assert "[serve]'" in done.stderr

    def test_a_network_is_checked_at_once(self) -> None:
        done = CliRunner().invoke(cli, ["serve", "--allow-network", "10.0.0.0/99"])
        assert done.exit_code == 2


def test_a_fault_of_ours_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr("normsniff.serve.app.description", broken)
    app = application(Settings(jobs=1))
    with TestClient(app, base_url=HOME, raise_server_exceptions=False) as client:
        answer = client.get("/openapi.json")
        assert "secret" not in problem(answer, 500, "fault")
        assert "secret" not in json.dumps(answer.json())
        assert io.BytesIO(answer.content).read()
