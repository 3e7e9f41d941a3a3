"""Many inputs, one answer each, on whatever executor there is."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from .. import arguments
from ..model import modelled
from ..pipeline import answer_of, checked_options, sniff
from ..record import Answer, Classification, Duplicate, Failure
from .content import content_id, content_of
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
        options: `evidence`, `limits`, `budget`, `device` and `check` of `sniff`.

    Raises:
        BrokenExecutor: the executor itself is lost; the standard library's pool of processes is, once one crashes.
        TypeError: an argument is of another type, `inputs` one path, or one of the inputs no path.
        ValueError: an argument has a value that it cannot have, or one of the inputs is empty.
    """
    arguments.several("inputs", inputs, "paths")
    in_flight = arguments.count("in_flight", in_flight, 1)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {type(executor).__name__}")
    found = answers(map(_named, inputs), executor, in_flight=in_flight, **checked_options(**options))
    # nothing is known, so nothing is a duplicate
    return (answer for _, answer in found if not isinstance(answer, Duplicate))


def _named(one: object) -> str:
    """Return an input by its path or URL; the mistake of a caller is no failure of an input."""
    return arguments.path("each of inputs", one)


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
    waiting: dict[Future[Any], tuple[str | Path, Callable[..., Any], int | None]] = {}
    left, sizes = iter(inputs), _SizesMet()

    def start(one: str | Path, task: Callable[..., Any], size: int | None = None) -> None:
        future = place.submit(content_id, one) if task is content_id else place.submit(task, one, **options)
        waiting[future] = one, task, size

    def take_up(one: str | Path) -> None:
        if known is None or (isinstance(one, str) and "://" in one):
            start(one, sniff)
        elif (size := _size_of(one)) is None or sizes.was_met(size):
            start(one, content_id)
        elif sizes.is_first(size, one):
            start(one, sniff_and_identify, size)

    try:
        while True:
            for one in islice(left, in_flight - len(waiting) - sizes.held):
                take_up(one)
            if not waiting:
                return
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            for future in [future for future in waiting if future in done]:  # of two copies the first is the original
                one, task, size = waiting.pop(future)
                answer, content = _parted(_outcome(future, one), task)
                name = identity_of(one)
                first = known.setdefault(content, name) if known is not None and content is not None else name
                if first.key != name.key:
                    assert content is not None
                    yield name, Duplicate(path=name.spelling, duplicate_of=first.spelling, content_id=content.hex())
                elif answer is None:
                    start(one, sniff)
                else:
                    yield name, answer
                for other in sizes.release(size):
                    start(other, content_id)
    finally:
        for future in waiting:
            future.cancel()


def _parted(outcome: Any, task: Callable[..., Any]) -> tuple[Classification | Failure | None, bytes | None]:
    """Return the answer, if there is one yet, and the content of an input, if it is known."""
    if isinstance(outcome, Failure) or task is sniff:
        return outcome, None
    return outcome if task is sniff_and_identify else (None, outcome)


def sniff_and_identify(one: str | Path, **options: Any) -> tuple[Classification, bytes | None]:
    """Do what `sniff` does and what `content_id` does, and open the model once.

    Raises:
        NormsniffError: as `sniff` does.
    """
    answering = {name: options.pop(name) for name in ("budget", "device", "check") if name in options}
    with modelled(one, **options) as model:
        return answer_of(model, **answering), content_of(model.checkpoint)


class _SizesMet:
    """Sizes of the files that were met: no file is a copy of one of another size.

    A file of a new size is answered and identified at once. Those that have the size of one that is being answered are
    held back until it is, so that a copy costs no answer of its own and the first of them stays the original.
    """

    def __init__(self) -> None:
        self._met: dict[int, list[str | Path] | None] = {}  # None: the first of this size was answered
        self.held = 0

    def was_met(self, size: int) -> bool:
        """Whether a file of this size was answered."""
        return self._met.get(size, ()) is None

    def is_first(self, size: int, one: str | Path) -> bool:
        """Whether nothing has had this size so far; `one` is held back otherwise."""
        if size in self._met:
            behind = self._met[size]
            assert behind is not None
            behind.append(one)
            self.held += 1
            return False
        self._met[size] = []
        return True

    def release(self, size: int | None) -> list[str | Path]:
        """Return what was held back for the first of its size, which now is answered."""
        behind = None if size is None else self._met[size]
        if size is None or behind is None:
            return []
        self._met[size] = None
        self.held -= len(behind)
        return behind


def _size_of(one: str | Path) -> int | None:
    """Return the size of a file, or None for anything else: a directory may hold several."""
    try:
        status = Path(one).stat()
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


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
