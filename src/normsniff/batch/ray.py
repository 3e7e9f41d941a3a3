"""A scan on a Ray cluster: a task for every batch of inputs, a Parquet part file from every task.

Ray gives a task that was lost with its worker or its node to another one. A part file is named after its inputs and
appears whole, so that a batch that is answered twice still gives its rows once. Inside a task, inputs are answered by a
process under limits, as on one machine: what a file does to its reader costs no Ray worker.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, OutputError, WorkerError
from ..outputs import replacing
from ..record import Answer, Failure
from ..workers import Workers
from .answers import answers
from .identity import Identity, identity_of
from .tally import Tally

try:
    import pyarrow.parquet as pq
    import ray
except ImportError as error:
    raise MissingExtra("ray", "--engine ray") from error

from ..render.parquet import write_parquet

BATCH = 50
"""Inputs a task: some seconds of work, against milliseconds that Ray needs for a task."""

_KEYS = b"normsniff.inputs"
"""Where a part keeps the keys of its inputs (`Identity.key`), one after the other in hexadecimal."""

_RETRIES = 10  # a batch that has lost so many workers is answered with failures


def begin(output: Path, settings: str) -> set[bytes]:
    """Make the directory for a scan, or go on with what is there; return the keys of the inputs that have a row.

    Raises:
        OutputError: the directory cannot be made or read, or was begun with other settings.
    """
    note = output / "_settings.txt"  # readers of a directory of Parquet files pass over names with an underscore
    try:
        output.mkdir(exist_ok=True)
        if not note.exists():
            with replacing(note) as file:
                file.write(settings.encode())
        if note.read_text() != settings:
            raise OutputError(str(output), f"was begun with other settings ({note.read_text()}); now: {settings}")
        parts = sorted(output.glob("part-*.parquet"))
        return {key for part in parts for key in _keys(pq.read_schema(part).metadata[_KEYS])}
    except OSError as error:
        raise OutputError(str(output), error.strerror or str(error)) from error


def scan_on_ray(
    inputs: Iterable[str],
    output: Path,
    done: set[bytes],
    *,
    address: str | None,
    jobs: int | None,
    limits: Mapping[str, Any],
    dedupe: bool,
    options: Mapping[str, Any],
    tell: Callable[[int], object],
) -> Tally:
    """Answer every input that is not `done`, into a directory of Parquet part files that all nodes can write.

    Args:
        inputs: paths and URIs that all nodes can read.
        output: the directory.
        done: what `begin` returned; every input that is handed out is added.
        address: of the cluster; None starts one on this machine.
        jobs: tasks at a time on a cluster that is started here.
        limits: ``timeout`` and ``memory`` of `Workers`.
        dedupe: answer inputs of the same content once; content met in an earlier, interrupted scan is not known.
        options: those of `sniff`.
        tell: called with a number of inputs once they are answered.

    Returns:
        What was answered now, without the rows that were there.

    Raises:
        OutputError: a part cannot be written.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a scan calls nobody
    here = {"num_cpus": jobs, "include_dashboard": False} if address is None else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    tally = Tally()
    fresh = _fresh(inputs, done)
    try:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES, scheduling_strategy="SPREAD")(_answer_batch)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Contents)
        call = (str(output), dict(limits), actor.remote() if dedupe else None, dict(options))
        waiting: dict[Any, list[str]] = {}
        while True:
            cpus = int(ray.cluster_resources().get("CPU", 1))
            while len(waiting) < 2 * cpus and (batch := list(islice(fresh, BATCH))):
                waiting[task.remote(batch, *call)] = batch
            if not waiting:
                return tally
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            batch = waiting.pop(ready)
            try:
                part = ray.get(ready)
            except ray.exceptions.RayError as error:
                lost = WorkerError("crashed", f"Ray gave its batch up ({type(error).__name__})")
                part = _write(output, batch, ((identity_of(one), Failure.of(one, lost)) for one in batch))
            tally.merge(part)
            tell(part.inputs)
    finally:
        ray.shutdown()


class _Contents:
    """Content ids that were met, for all tasks."""

    def __init__(self) -> None:
        self._met: dict[bytes, Identity] = {}

    def setdefault(self, content: bytes, first: Identity) -> Identity:
        return self._met.setdefault(content, first)


class _KnownToAll:
    """A `batch.Known` that asks the actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def setdefault(self, content: bytes, first: Identity, /) -> Identity:
        return Identity(*ray.get(self._actor.setdefault.remote(content, first)))


def _answer_batch(
    batch: Sequence[str], output: str, limits: Mapping[str, Any], contents: Any, options: Mapping[str, Any]
) -> Tally:
    workers = _workers(**limits)
    known = None if contents is None else _KnownToAll(contents)
    return _write(Path(output), batch, answers(batch, workers, known=known, in_flight=2, **options))


@cache
def _workers(timeout: float | None, memory: int | None) -> Workers:
    """Return the process that answers for this Ray worker; it is kept, as it has every format's library loaded."""
    return Workers(1, timeout=timeout, memory=memory)


def _write(output: Path, batch: Sequence[str], found: Iterable[tuple[Identity, Answer]]) -> Tally:
    tally = Tally()

    def counted() -> Iterator[Answer]:
        for _, answer in found:
            tally.add(answer)
            yield answer

    keys = b"".join(identity_of(one).key for one in batch)
    with replacing(output / f"part-{hashlib.sha256(keys).hexdigest()[:32]}.parquet") as file:
        write_parquet(counted(), file, {_KEYS: keys.hex().encode()})
    return tally


def _fresh(inputs: Iterable[str], done: set[bytes]) -> Iterator[str]:
    for one in inputs:
        key = identity_of(one).key
        if key not in done:
            done.add(key)
            yield one


def _keys(told: bytes) -> Iterator[bytes]:
    keys = bytes.fromhex(told.decode())
    return (keys[at : at + 16] for at in range(0, len(keys), 16))
