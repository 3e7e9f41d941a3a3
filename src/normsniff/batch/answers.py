"""Many inputs, one answer each, on whatever executor there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ..pipeline import sniff
from ..record import Answer, Classification, Duplicate, Failure
from .content import content_id
from .identity import Identity, identity_of

IN_FLIGHT = 64
"""Inputs handed out at a time: enough for an executor of some dozen processes, few enough to cost no memory."""


class Known(Protocol):
    """Content that was met before; a dict is one."""

    def setdefault(self, content: bytes, first: Identity, /) -> Identity:
        """Return the input in which `content` was met first, which is `first` if it never was."""
        ...


def sniff_many(
    inputs: Iterable[str | Path], executor: Executor | None = None, *, in_flight: int = IN_FLIGHT, **options: Any
) -> Iterator[Classification | Failure]:
    """Classify many models; every input gives exactly one record.

    Records come as they are ready, not in the order of the inputs: `path` says which input a record answers.
    Inputs are taken lazily, a few ahead of the answers.

    Args:
        inputs: what `sniff` takes by name: paths of files, or of directories that hold one model, and URIs.
        executor: where to work: any `concurrent.futures.Executor`, for example `normsniff.Workers`, which survives
            crashes and keeps limits, or Dask's ``Client.get_executor()``. None: here, one after the other.
        in_flight: inputs handed to the executor at a time.
        options: those of `sniff`.

    Raises:
        BrokenExecutor: the executor itself is lost; the standard library's pool of processes is, once one crashes.
    """
    for _, answer in answers(inputs, executor, in_flight=in_flight, **options):
        assert not isinstance(answer, Duplicate)  # nothing is known, so nothing is a duplicate
        yield answer


def answers(
    inputs: Iterable[str | Path],
    executor: Executor | None = None,
    *,
    known: Known | None = None,
    in_flight: int = IN_FLIGHT,
    **options: Any,
) -> Iterator[tuple[Identity, Answer]]:
    """Do what `sniff_many` does, and answer an input whose content is `known` with a `Duplicate`; see `content`.

    Yields:
        The input that is answered, by its bytes: the `path` of two records may be spelled alike.
    """
    place = executor or _Here()
    if executor is None:
        in_flight = 1
    waiting: dict[Future[Any], tuple[str | Path, bool]] = {}
    left = iter(inputs)

    def start(one: str | Path, *, identify: bool) -> None:
        future = place.submit(content_id, one) if identify else place.submit(sniff, one, **options)
        waiting[future] = one, identify

    try:
        while True:
            for one in islice(left, in_flight - len(waiting)):
                start(one, identify=known is not None)
            if not waiting:
                return
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            for future in [future for future in waiting if future in done]:  # of two copies the first is the original
                one, identified = waiting.pop(future)
                answer = _outcome(future, one)
                name = identity_of(one)
                if not identified or isinstance(answer, Failure):
                    yield name, answer
                    continue
                assert known is not None
                first = known.setdefault(answer, name) if answer is not None else None
                if first is None or first.key == name.key:
                    start(one, identify=False)
                else:
                    yield name, Duplicate(path=name.spelling, duplicate_of=first.spelling, content_id=answer.hex())
    finally:
        for future in waiting:
            future.cancel()


def _outcome(future: Future[Any], one: str | Path) -> Any:
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except Exception as error:  # noqa: BLE001 - an engine's own error (a lost node, say) is this input's answer too
        return Failure.of(one, error)


class _Here(Executor):
    """Calls at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future
