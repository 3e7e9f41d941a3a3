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
        self._before: list[tuple[Any, int]] = []

    def enter(self) -> list[tuple[Any, int]]:
        """Count one who begins; the first one sets one thread.

        Returns:
            What to restore in this thread alone: a BLAS on OpenMP keeps its setting for every thread apart.
        """
        with self._lock:
            apart = [one for one in self._found() if one.threading_layer == "openmp"]
            if not self._users:
                self._before = _narrowed([one for one in self._found() if one not in apart])
            self._users += 1
        return _narrowed(apart)

    def leave(self, apart: list[tuple[Any, int]]) -> None:
        """Count one who ends; the last one restores what was."""
        _set(apart)
        with self._lock:
            self._users -= 1
            if not self._users:
                _set(self._before)

    def forked(self) -> None:
        """Forget, in a child of this process, those who worked in its parent's other threads."""
        self._lock = Lock()
        if self._users:
            self._users = 0
            _set(self._before)

    def _found(self) -> list[Any]:
        if self._libraries is None:
            import numpy  # noqa: F401 - what is looked for comes with it
            from threadpoolctl import ThreadpoolController

            found = ThreadpoolController().lib_controllers
            self._libraries = [library for library in found if library.user_api == "blas"]
        return self._libraries


def _narrowed(libraries: list[Any]) -> list[tuple[Any, int]]:
    """Set one thread where there are more, and return how many there were."""
    before = [(library, library.num_threads) for library in libraries]
    before = [(library, number) for library, number in before if number is not None and number > 1]
    _set([(library, 1) for library, _ in before])
    return before


def _set(numbers: list[tuple[Any, int]]) -> None:
    for library, number in numbers:
        library.set_num_threads(number)
        # threadpoolctl 3.7 and later ignore all threads but the one that was first to set anything, until it lets go.
        getattr(library, "clear_controlling_thread", _nothing)()


def _nothing() -> None:
    pass


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread.forked)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread in the block; blocks in other threads and inside this one may overlap with it."""
    if all(os.environ.get(name) == "1" for name in VARIABLES):
        yield
        return
    apart = _one_thread.enter()
    try:
        yield
    finally:
        _one_thread.leave(apart)
