"""The worker behind a queue labels what a bucket's events name, loses no message, and stores what it answered."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.manifest import FIXTURES, ROOT

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")
pytest.importorskip("s3fs")
pytest.importorskip("flask")

SCRIPT = ROOT / "examples" / "queue_worker.py"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A bucket of uploads, one of records, and a queue, on loopback."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3, sqs = boto3.client("s3"), boto3.client("sqs")
    for bucket in ("uploads", "records"):
        s3.create_bucket(Bucket=bucket)
    yield {"s3": s3, "sqs": sqs, "queue": sqs.create_queue(QueueName="uploads")["QueueUrl"]}
    server.shutdown()


def event(*keys: str) -> str:
    return json.dumps({"Records": [{"s3": {"bucket": {"name": "uploads"}, "object": {"key": key}}} for key in keys]})


def test_what_the_queue_names_is_labelled_and_stored(cloud: dict[str, Any]) -> None:
    s3, sqs, queue = cloud["s3"], cloud["sqs"], cloud["queue"]
    s3.upload_file(str(FIXTURES / "gpt2-ln.Q8_0.gguf"), "uploads", "my model/ln.gguf")
    s3.put_object(Bucket="uploads", Key="broken.gguf", Body=b"GGUF\3")
    for body in (event("my+model/ln.gguf", "readme.md"), event("broken.gguf"), "{}", "no event", event("gone.onnx")):
        sqs.send_message(QueueUrl=queue, MessageBody=body)
    command = [sys.executable, str(SCRIPT), queue, "--records", "s3://records/norms/", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ), timeout=120)
    assert done.returncode == 0, done.stderr
    stored = {one["Key"] for one in s3.list_objects_v2(Bucket="records")["Contents"]}
    assert stored == {f"norms/uploads/{name}.json" for name in ("my model/ln.gguf", "broken.gguf", "gone.onnx")}
    record = json.loads(s3.get_object(Bucket="records", Key="norms/uploads/my model/ln.gguf.json")["Body"].read())
    assert record["label"] == "LayerNorm"
    failure = json.loads(s3.get_object(Bucket="records", Key="norms/uploads/broken.gguf.json")["Body"].read())
    assert failure["error"]["code"] == "truncated"
    assert "left in the queue" in done.stderr
    counted = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert int(counted["ApproximateNumberOfMessages"]) + int(counted["ApproximateNumberOfMessagesNotVisible"]) == 1
