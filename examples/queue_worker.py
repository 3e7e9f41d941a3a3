"""Label the models that a queue of upload events names, one process with limits a model; start as many as you like.

    pip install 'normsniff[s3]' boto3
    python examples/queue_worker.py https://sqs.eu-central-1.amazonaws.com/1234/uploads --records s3://hub-records/

A bucket tells an SQS queue of every upload (event notifications, `s3:ObjectCreated:*`). The worker takes the messages,
reads what a label needs of each object by byte ranges, and puts the record, or the failure, as JSON under its name into
another bucket. A message is deleted once its records are stored: if the worker dies before, the queue delivers it
again, and the same names are written again. A message that cannot be understood is left to the
queue's dead-letter policy.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote_plus

import boto3
import click
import msgspec

import normsniff

WEIGHTS = {".safetensors", ".gguf", ".onnx", ".keras", ".h5", ".pt", ".pth", ".bin", ".tflite", ".msgpack"}
PATIENCE = 20  # seconds that SQS holds a request open while there is nothing: its most
TIMEOUT = 120.0  # seconds for one model
MEMORY = 2_000_000_000


def uploads(body: str) -> Iterator[tuple[str, str]]:
    """Yield bucket and key of every model file that an S3 event names; keys are quoted as in a form.

    Raises:
        ValueError: the message is no S3 event.
    """
    event = json.loads(body)
    try:
        records = event.get("Records", [])  # without, it is the test event that S3 sends when a rule is made
        named = [(one["s3"]["bucket"]["name"], unquote_plus(one["s3"]["object"]["key"])) for one in records]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no S3 event: {error}") from None
    for bucket, key in named:
        if PurePosixPath(key).suffix.lower() in WEIGHTS:
            yield bucket, key


def label(workers: normsniff.Workers, url: str) -> normsniff.Classification | normsniff.Failure:
    """Return the record of a model, or why there is none."""
    try:
        record: normsniff.Classification = workers.submit(normsniff.sniff, url).result()
    except normsniff.NormsniffError as error:
        return normsniff.Failure.of(url, error)
    return record


def work(queue: str, records: str, workers: normsniff.Workers, *, sqs: Any, s3: Any, once: bool = False) -> int:
    """Answer the messages of a queue; return how many models were labelled, when `once` and it is empty.

    Args:
        queue: its URL.
        records: ``s3://bucket/prefix`` for the records.
        workers: the processes that read.
        sqs: a client of SQS.
        s3: a client of S3.
        once: end when the queue is empty.
    """
    target, _, prefix = records.removeprefix("s3://").partition("/")
    done = 0
    while True:
        patience = 0 if once else PATIENCE
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=patience).get("Messages")
        if not messages and once:
            return done
        for message in messages or []:
            try:
                named = list(uploads(message["Body"]))
            except ValueError as error:
                click.echo(f"left in the queue: {error}", err=True)
                continue
            for bucket, key in named:
                answer = label(workers, f"s3://{bucket}/{key}")
                body = msgspec.json.encode(answer)
                s3.put_object(Bucket=target, Key=f"{prefix}{bucket}/{key}.json", Body=body)
                said = answer.error.message if isinstance(answer, normsniff.Failure) else answer.label
                click.echo(f"{bucket}/{key}: {said}")
                done += 1
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


@click.command()
@click.argument("queue")
@click.option("--records", required=True, help="s3://bucket/prefix for the records.")
@click.option("--once", is_flag=True, help="End when the queue is empty.")
def main(queue: str, records: str, once: bool) -> None:
    """Label the models that the messages of an SQS queue name."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a container is stopped; nothing is half done
    with normsniff.Workers(1, timeout=TIMEOUT, memory=MEMORY) as workers:
        work(queue, records, workers, sqs=boto3.client("sqs"), s3=boto3.client("s3"), once=once)


if __name__ == "__main__":
    main()
