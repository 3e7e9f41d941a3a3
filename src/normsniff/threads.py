"""One thread of BLAS for as long as anybody here works: samples are too small for more to be worth their start.

On an idle machine more threads cost 1.7 times the CPU for nothing, and on a busy one they wait for each other: there a
label took tens of times as long. The setting is the whole process's, while `sniff` may run in several threads, so that
none of them can save and restore it for itself: whoever came second would save the first one's setting and restore it
last. So they are counted. The first to come sets one thread, the last to leave restores what was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Read when numpy is loaded; commands set them before that, and then nothing is to be done here."""


class _OneThread:
    """The count of those who work, and what to restore when the last one leaves."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def enter(self) -> None:
        """Count one who begins; the first one sets one thread."""
        with self._lock:
            if not self._users:
                libraries = self._found()
                self._before = [library.num_threads for library in libraries]
                _set(libraries, [1] * len(libraries))
            self._users += 1

    def leave(self) -> None:
        """Count one who ends; the last one restores what was."""
        with self._lock:
            self._users -= 1
            if not self._users:
                _set(self._found(), self._before)

    def forked(self) -> None:
        """Forget, in a child of this process, those who worked in its parent's other threads."""
        self._lock = Lock()
        if self._users:
            self._users = 0
            _set(self._found(), self._before)

    def _found(self) -> list[Any]:
        if self._libraries is None:
            import numpy  # noqa: F401 - what is looked for comes with it
            from threadpoolctl import ThreadpoolController

            found = ThreadpoolController().lib_controllers
            self._libraries = [library for library in found if library.user_api == "blas"]
        return self._libraries


def _set(libraries: list[Any], numbers: list[int]) -> None:
    for library, number in zip(libraries, numbers, strict=True):
        if library.num_threads != number:
            library.set_num_threads(number)


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread.forked)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread in the block; blocks in other threads and inside this one may overlap with it.

    A BLAS that is built on OpenMP keeps its setting for every thread apart: there the block that came first is bounded,
    and those that came after it in other threads only if nothing else was set in them.
    """
    if all(os.environ.get(name) == "1" for name in VARIABLES):
        yield
        return
    _one_thread.enter()
    try:
        yield
    finally:
        _one_thread.leave()
