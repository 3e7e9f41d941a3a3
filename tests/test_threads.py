"""BLAS has one thread while anybody works, and as many as before once nobody does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from normsniff import sniff
from normsniff.threads import VARIABLES, _OneThread, one_thread
from tests.helpers.manifest import FIXTURES

MODEL = FIXTURES / "gpt2-ln.Q8_0.gguf"


class Library:
    """A BLAS of which is known what was set."""

    user_api = "blas"
    threading_layer = "pthreads"

    def __init__(self) -> None:
        self.num_threads = 8

    def set_num_threads(self, number: int) -> None:
        self.num_threads = number


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    one, ours = Library(), _OneThread()
    ours._libraries = [one]
    monkeypatch.setattr("normsniff.threads._one_thread", ours)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield one
    assert one.num_threads == 8


def test_one_thread_in_the_block_and_as_many_as_before_after_it(library: Library) -> None:
    with one_thread():
        assert library.num_threads == 1
        with one_thread():
            assert library.num_threads == 1
        assert library.num_threads == 1
    assert library.num_threads == 8
    with pytest.raises(ValueError, match="as it was"), one_thread():
        raise ValueError("as it was")
    assert library.num_threads == 8


def test_blocks_that_overlap_in_other_threads_leak_nothing(library: Library) -> None:
    """The first to come is the first to leave: what the second one found, one thread, is not what is restored."""
    second_in, first_out = threading.Event(), threading.Event()

    def second() -> None:
        with one_thread():
            second_in.set()
            assert first_out.wait(60)
            seen.append(library.num_threads)

    seen: list[int] = []
    thread = threading.Thread(target=second)
    with one_thread():
        thread.start()
        assert second_in.wait(60)
    first_out.set()
    thread.join(60)
    assert seen == [1]
    assert library.num_threads == 8


def test_a_label_is_worked_out_in_one_thread(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    product = np.matmul

    def watched(*args: object, **kwargs: object) -> object:
        seen.append(library.num_threads)
        return product(*args, **kwargs)  # type: ignore[call-overload]  # as it was called

    monkeypatch.setattr(np, "matmul", watched)
    sniff(MODEL)
    assert seen
    assert set(seen) == {1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_meanwhile_forgets_who_worked_in_its_parent(library: Library) -> None:
    from normsniff import threads

    with one_thread():
        threads._one_thread.forked()  # what the system calls in the child
        assert library.num_threads == 8
        assert threads._one_thread.enter() == []


REAL = """
from concurrent.futures import ThreadPoolExecutor
import numpy
from threadpoolctl import threadpool_info
from normsniff.threads import _one_thread, one_thread

def count():
    return {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}

def inside():
    with one_thread():
        return count()

before = count()
with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
    told = [inside(), first.submit(inside).result(), second.submit(inside).result(), inside()]
    told.append(count())
    apart = first.submit(_one_thread.enter).result()
    told += [first.submit(count).result(), second.submit(inside).result()]
    first.submit(_one_thread.leave, apart).result()
print(before, told, count())
"""


def test_the_blas_of_numpy_is_bounded_from_any_thread_and_restored() -> None:
    """Of a real one in a process of its own: threadpoolctl lets one thread at a time set anything."""
    if not any(one["user_api"] == "blas" for one in threadpool_info()):
        pytest.skip("a BLAS that threadpoolctl does not know")
    plain = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    two = {**plain, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", REAL], env=two, capture_output=True, text=True, check=True)
    if done.stdout.startswith("{1}"):
        pytest.skip("one CPU")
    assert done.stdout.split("\n")[0] == "{2} [{1}, {1}, {1}, {1}, {2}, {1}, {1}] {2}"


def test_nothing_is_looked_for_where_the_environment_says_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _OneThread()
    monkeypatch.setattr("normsniff.threads._one_thread", ours)
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    with one_thread():
        assert ours._libraries is None
