"""Who is let in: so many requests at a time, and the next is sent away at once instead of waiting without end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from ..workers import Workers
from .problems import Problem

_SMOOTHING = 0.2  # weight of the last answer in the mean time of an answer
_GUESS = 0.5  # seconds of an answer before there was one
_LONGEST_PATIENCE = 120  # seconds of the longest Retry-After


class Gate:
    """The way to the workers.

    Attributes:
        limit: how many may be inside, those that are worked on and those that wait.
        inside: how many are.
        seconds: mean time that a worker took for an answer of late.
    """

    def __init__(self, workers: Workers, queue: int) -> None:
        self.limit = workers.jobs + queue
        self.inside = 0
        self.seconds = _GUESS
        self._workers = workers

    @property
    def waiting(self) -> int:
        """How many wait for a worker."""
        return max(self.inside - self._workers.jobs, 0)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Ticket]:
        """Hold a place for the length of the block, or of the work that it began and left.

        Raises:
            Problem: all places are taken (429).
        """
        if self.inside >= self.limit:
            patience = min(max(1, math.ceil(self.waiting * self.seconds / self._workers.jobs)), _LONGEST_PATIENCE)
            detail = f"{self.inside} requests are being answered or wait, which is all that this service takes"
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "busy", detail, hint=f"try again in {patience} s",
                headers={"Retry-After": str(patience)},
            )  # fmt: skip
        self.inside += 1
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            ticket.left()

    def submit(self, fn: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call `fn`, and learn how long it takes."""
        begun = time.monotonic()
        busy = self.waiting
        future: Future[Any] = self._workers.submit(fn, *args)
        loop = asyncio.get_running_loop()

        def learn() -> None:
            if not future.cancelled() and not busy:  # what waited first says little about the work
                self.seconds += _SMOOTHING * (time.monotonic() - begun - self.seconds)

        future.add_done_callback(lambda _: _call_in(loop, learn))
        return future

    def leave(self) -> None:
        """Free a place."""
        self.inside -= 1


class Ticket:
    """A place inside, for one request."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._future: Future[Any] | None = None

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Return what `fn` returns in a worker; a call that still waits is taken back if this is cancelled."""
        self._future = self._gate.submit(fn, *args)
        return await asyncio.wrap_future(self._future)

    def left(self) -> None:
        """Give the place back, once nothing works for it any more."""
        if self._future is None or self._future.done() or self._future.cancel():
            self._gate.leave()
            return
        loop = asyncio.get_running_loop()
        self._future.add_done_callback(lambda _: _call_in(loop, self._gate.leave))


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    if not loop.is_closed():  # the service has ended before its workers
        loop.call_soon_threadsafe(function)
