"""Against a server that speaks S3 on loopback, through s3fs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from normsniff import LimitExceeded, SourceError, sniff
from normsniff.limits import Limits
from normsniff.source.places import open_file, place_of
from tests.helpers.servers import Handler, RangeServer
from tests.helpers.sparse import llama, write_safetensors, write_sharded

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask")


class Counted:
    """A WSGI application, and the requests that it got."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.ranges = True
        self.endpoint = ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if not self.ranges:
            environ.pop("HTTP_RANGE", None)
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        for piece in self.application(environ, start_response):
            self.sent += len(piece)
            yield piece


@pytest.fixture(scope="module")
def moto() -> Iterator[Counted]:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = Counted(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    application.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield application
    server.shutdown()


@pytest.fixture
def bucket(moto: Counted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, as boto3 sees it; s3fs finds the server by the environment."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": moto.endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    bucket = boto3.resource("s3").Bucket("models")
    bucket.create()
    yield bucket
    bucket.objects.delete()


def upload(bucket: Any, directory: Path, prefix: str) -> None:
    for path in sorted(directory.iterdir()):
        bucket.upload_file(str(path), f"{prefix}{path.name}")


def test_a_prefix_that_holds_shards_is_one_model(bucket: Any, moto: Counted, tmp_path: Path) -> None:
    write_sharded(tmp_path, llama(3, d=256, f=512, vocabulary=2000), 3)
    upload(bucket, tmp_path, "org/llama/")
    local = sniff(tmp_path, evidence=("declared", "layout"))
    moto.requests.clear()
    record = sniff("s3://models/org/llama", evidence=("declared", "layout"))
    assert (record.label, record.confidence) == (local.label, local.confidence)
    assert record.path == "s3://models/org/llama"
    assert moto.requests[0] == ("GET", "/models")
    names = [path.rpartition("/")[2] for _, path in moto.requests[1:]]
    assert names[0] == "model.safetensors.index.json"
    assert {method for method, _ in moto.requests} == {"GET"}, "a head comes with the size: no HEAD"


def test_one_object_is_read_by_ranges(bucket: Any, moto: Counted, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, llama(2, d=256, f=512, vocabulary=32_000))
    upload(bucket, tmp_path, "")
    moto.requests.clear()
    moto.sent = 0
    record = sniff("s3://models/m.safetensors", evidence=("declared", "layout"))
    assert (record.label, record.file_size) == ("RMSNorm", path.stat().st_size)
    assert moto.sent < 400_000 < path.stat().st_size // 50
    assert (record.bytes_read or 0) <= moto.sent


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(bucket: Any) -> None:
    bucket.put_object(Key="data", Body=bytes(400_000))
    source = open_file(place_of("s3://models/data", Limits()))
    bucket.put_object(Key="data", Body=b"x" * 400_000)
    with pytest.raises(SourceError, match="s3://models/data: the file changed while it was read"):
        source.read_at(300_000, 10)


def test_what_is_not_there(bucket: Any) -> None:
    bucket.put_object(Key="empty", Body=b"")
    assert open_file(place_of("s3://models/empty", Limits())).size == 0
    for url in ("s3://models/none.gguf", "s3://models/none", "s3://nobody/none.gguf"):
        with pytest.raises(SourceError, match=f"{url}: no such file"):
            sniff(url)


def test_a_prefix_with_several_models_names_them(bucket: Any) -> None:
    for key in ("lake/a.gguf", "lake/sub/b-00001-of-00002.gguf", "lake/sub/b-00002-of-00002.gguf", "lake/notes.txt"):
        bucket.put_object(Key=key, Body=b"GGUF")
    with pytest.raises(SourceError, match=r"holds 2 models, name one of them: a.gguf, sub/b-00001-of-00002.gguf"):
        sniff("s3://models/lake")


def test_public_objects_need_no_credentials(bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bucket.put_object(Key="x.gguf", Body=b"{}", ACL="public-read")
    with pytest.raises(Exception, match=r"x\.gguf") as caught:
        sniff("s3://models/x.gguf")
    assert "hunter2" not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert open_file(place_of("s3://models/x.gguf", Limits())).size == 2, "a public bucket is read anonymously"


def test_a_server_that_ignores_ranges_is_refused_before_it_has_sent_all(
    bucket: Any, moto: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="data", Body=bytes(400_000))
    monkeypatch.setattr(moto, "ranges", False)
    with pytest.raises(SourceError, match="does not tell which bytes it sends"):
        open_file(place_of("s3://models/data", Limits()))


@pytest.fixture
def hostile(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> RangeServer:
    for name, value in {
        "AWS_ENDPOINT_URL": server.url("").rstrip("/"), "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return server


def listing(*entries: str, truncated: bool = False) -> bytes:
    told = f"<IsTruncated>{str(truncated).lower()}</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    return f"<ListBucketResult>{told}{''.join(entries)}</ListBucketResult>".encode()


DIRECTORY = "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (listing(DIRECTORY, truncated=True), "files in one directory"),
        (listing(DIRECTORY), "directories inside each other"),
        (listing(*("<Contents><Key>m.gguf</Key></Contents>" for _ in range(30_000))), "files and directories"),
        (listing("<Contents><Size>5</Size></Contents><CommonPrefixes/>"), "no such file or directory"),
        (listing("x" * 5_000_000), "bytes of a page of a listing"),
    ],
)
def test_a_listing_made_to_be_endless_ends(hostile: RangeServer, body: bytes, words: str) -> None:
    def fault(handler: Handler, _: int) -> bool:
        if "list-type" not in handler.path:
            handler.reply(404)
        else:
            handler.reply(200, body, {"Content-Type": "application/xml"})
        return True

    hostile.fault = fault
    with pytest.raises((SourceError, LimitExceeded), match=words):
        sniff("s3://models/")
    assert len(hostile.requests) < 200


def test_the_body_of_an_error_counts_against_the_limit(hostile: RangeServer) -> None:
    """s3fs reads it whole."""

    def fault(handler: Handler, _: int) -> bool:
        handler.close_connection = True
        handler.reply(404, bytes(60_000), {"Content-Length": str(10**12)})
        for _ in range(400):
            handler.wfile.write(bytes(60_000))
        return True

    hostile.fault = fault
    with pytest.raises(LimitExceeded, match="bytes fetched"):
        open_file(place_of("s3://models/data", Limits(fetched_bytes=1_000_000)))


def test_an_object_that_drips_is_given_up(hostile: RangeServer) -> None:
    def fault(handler: Handler, _: int) -> bool:
        handler.reply(206, b"x", {"Content-Range": "bytes 0-99/1000", "Content-Length": "100"})
        for _ in range(600):
            time.sleep(0.1)
            handler.wfile.write(b"x")
        return True

    hostile.fault = fault
    with pytest.raises(SourceError, match="no answer in time"):
        open_file(place_of("s3://models/data", Limits(request_seconds=1.0)))


def test_what_is_not_http_is_not_quoted(hostile: RangeServer) -> None:
    def fault(handler: Handler, _: int) -> bool:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: sesame\r\n\r\n")
        return True

    hostile.fault = fault
    with pytest.raises(SourceError, match="not HTTP as it should be"):
        open_file(place_of("s3://models/data", Limits()))
