"""Limits on what huggingface_hub asks for: it waits as long as a server wants, and takes whatever comes.

Hooks of its HTTP client see every request and answer, those of redirects and of tries again included. They do nothing
but for the calls of a `watched` block.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http

from .answers import PASSING, RefusedError, TransientError, retry_after
from .files import Count

_REQUESTS = 100  # of one call: a listing has 20 pages of 1,000 names, and each may be redirected or asked for again
_DOCUMENT = 16_000_000  # bytes of an answer about files: all names of a repository of 20,000 are below 5 MB


class _Errand:
    """What one call may cost."""

    def __init__(self, count: Count, seconds: float) -> None:
        self.count = count
        self._stop = time.monotonic() + seconds
        self._requests = 0

    def next(self) -> float:
        """Return the seconds that are left for the next request."""
        self._requests += 1
        if self._requests > _REQUESTS:
            raise RefusedError(f"one answer takes more than {_REQUESTS} requests")
        return self.left()

    def left(self) -> float:
        left = self._stop - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


_current: ContextVar[_Errand | None] = ContextVar("normsniff-hub-call", default=None)


@contextmanager
def watched(count: Count, seconds: float) -> Iterator[None]:
    """Count what comes in the block, and end it in time."""
    token = _current.set(_Errand(count, seconds))
    try:
        yield
    finally:
        _current.reset(token)


@dataclass(frozen=True)
class _Hooked:
    """Makes clients with our hooks, as whoever made them before does otherwise."""

    factory: Callable[[], Any]

    def __call__(self) -> Any:
        client = self.factory()
        hooks = client.event_hooks
        client.event_hooks = {"request": [*hooks["request"], _before], "response": [*hooks["response"], _after]}
        return client


def install() -> None:
    """See to it that the clients of huggingface_hub have our hooks."""
    factory = getattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)  # a user's own, with a proxy say
    if not isinstance(factory, _Hooked):
        set_client_factory(_Hooked(factory))


def _before(request: Any) -> None:
    call = _current.get()
    if call is None:
        return
    request.headers["accept-encoding"] = "identity"
    request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), call.next())


def _after(response: Any) -> None:
    call = _current.get()
    if call is None:
        return
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError("the server compresses the file on its way, so that no ranges can be read")
    if response.status_code in PASSING:  # the library would sleep as long as it is told to
        wait = retry_after(response.headers.get("retry-after", ""))
        raise TransientError(f"the server answers {response.status_code}", wait)
    asked = response.request.headers.get("range")
    if asked is not None and response.status_code == 200:
        raise RefusedError("the server sends whole files only")
    base = importlib.import_module(type(response).__module__.partition(".")[0]).SyncByteStream  # of httpx, or its heir
    response.stream = _counted(base, response.stream, call, None if asked else _DOCUMENT)


def _counted(base: Any, stream: Any, call: _Errand, most: int | None) -> Any:
    class Bounded(base):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            came = 0
            for piece in stream:
                call.count(len(piece))
                call.left()
                came += len(piece)
                if most is not None and came > most:
                    raise RefusedError(f"the server sends more than {most:,} bytes about files")
                yield piece

        def close(self) -> None:
            stream.close()

    return Bounded()
