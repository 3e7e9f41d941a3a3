"""What tests have called in other processes; a module of its own, so that those need not import pytest."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from normsniff.errors import parsing

MEMORY = 400_000_000
"""Bytes that a process of the tests may allocate."""


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def hang_in_python() -> None:
    while True:
        pass


def hang_in_c() -> None:
    ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock: no Python signal handler, no thread runs


def eat() -> int:
    return len(bytearray(2 * MEMORY))


def eat_in_a_reader() -> int:
    with parsing("x.gguf"):  # turns MemoryError into FormatError
        return eat()


def segfault() -> None:
    ctypes.string_at(0)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code: int) -> None:
    os._exit(code)


def close_the_pipe_and_hang() -> None:
    os.closerange(3, 100)
    hang_in_python()


def fail() -> None:
    with parsing("x.gguf"):
        raise KeyError("general.architecture")


def unpicklable() -> Any:
    return lambda: None


class Strange(Exception):  # noqa: N818
    """Needs two arguments, so that it does not come back from a pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def strange() -> None:
    raise Strange(1, 2)


def map_a_file(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return len(mapped) + mapped[-1]


def rendezvous(directory: Path, number: int) -> bool:
    """Wait until the other call runs too."""
    (directory / str(number)).touch()
    while len(list(directory.iterdir())) < 2:
        time.sleep(0.01)
    return True


def misbehave(_verb: str, subject: Any, _options: Any) -> Any:
    """Stand in for a request's answer: do what the body names, one of the functions above."""
    name, *arguments = subject.file.read_text().split()
    functions: dict[str, Callable[..., Any]] = {"hang": hang_in_python, "kill": kill_itself, "eat": eat, "nap": _nap}
    return functions[name](*arguments)


def _nap(until: str) -> None:
    while not Path(until).exists():
        time.sleep(0.01)
