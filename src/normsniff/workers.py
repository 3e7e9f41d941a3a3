"""Processes under limits: a call that hangs, crashes or eats memory costs its own process and gets an error.

An executor of the standard library fails every waiting call when one process dies, and never ends a call that hangs.
Pools that do better share one pipe and its locks between their processes, so that a process killed at the wrong moment
blocks them all (pebble issues 97, 153 and 163). Here every process has a pipe of its own and shares nothing.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, TypeVar

from . import arguments
from .errors import WorkerError

T = TypeVar("T")

_CALLS = 1000  # a process answers so many calls and is replaced: what libraries leak never adds up to the limit
_GRACE = 5.0  # seconds after its time when a process ends itself, should nobody be left to end it
_START = 60.0  # seconds in which a process must start, on however busy a machine
_TURN = 3600.0  # seconds of one wait at most: what polls for pipes takes no more than 2^31 ms
_AHEAD = 4096  # bytes of a call that is sent to a busy process: any pipe takes so much, so that nobody waits to write
_UNGUARDED = 78  # exit code of a process in which the caller's script ran again and would start workers of its own
_SOCKET = 60  # bytes of a temporary directory in which the fork server's socket has room: of 104 it takes 32 or more
_BEGUN = b"begun"  # what a process says when it takes up a call; a pickle begins otherwise


@dataclass(slots=True)
class _WaitingCall:
    future: Future[Any]
    pickled: bytes


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    call: _WaitingCall | None = None
    following: _WaitingCall | None = None  # sent ahead, so that the process need not wait for it
    begun: bool = False
    deadline: float = math.inf
    calls: int = 0


class Workers(Executor):
    """An executor that gives every call a time and a memory limit, and every lost call a `WorkerError`.

    Processes are forked from a server that has imported normsniff, so that a replacement costs milliseconds (where the
    system has none, or the path of the temporary directory is too long for its socket, they start anew). As with
    any pool of processes, a script that starts one keeps its own statements under ``if __name__ == "__main__":``.

    Args:
        jobs: processes; by default one for every CPU.
        timeout: seconds that a call may take; then its process is killed. None: for ever.
        memory: bytes that a process may allocate (``RLIMIT_DATA``: mapped files do not count), or a text such as
            ``"2GB"``. None: no limit.

    Raises:
        BrokenExecutor: by `submit` and its futures, where a script lets every process start workers again.
        TypeError: an argument is of another type.
        ValueError: a limit is not positive, or the system cannot enforce a memory limit (only Linux can).
    """

    def __init__(
        self, jobs: int | None = None, *, timeout: float | None = None, memory: int | str | None = None
    ) -> None:
        if getattr(multiprocessing.process.current_process(), "_inheriting", False):  # what multiprocessing asks, too
            os._exit(_UNGUARDED)  # the parent has the words
        self.jobs = _cpus() if jobs is None else arguments.count("jobs", jobs, 1)
        timeout = None if timeout is None else arguments.seconds("timeout", timeout)
        memory = arguments.size("memory", memory, 1)
        if memory is not None and not sys.platform.startswith("linux"):
            raise ValueError("a memory limit needs Linux")
        self._timeout = timeout
        self._memory = memory
        self._context = _context()
        self._waiting: deque[_WaitingCall] = deque()
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = self._killed = self._broken = False
        self._bell, self._ring = self._context.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="normsniff-workers", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn` called in one of the processes; it, its arguments and its answer must be picklable."""
        call = _WaitingCall(Future(), pickle.dumps((fn, args, kwargs)))
        with self._lock:
            if self._broken:
                raise _unguarded()
            if self._closed:
                raise RuntimeError("the workers were shut down")
            self._waiting.append(call)
        self._ring.send_bytes(b".")
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the processes when the last call is answered."""
        with self._lock:
            already, self._closed = self._closed, True
            if cancel_futures:
                ahead = [worker.following for worker in list(self._workers)]
                for call in (*self._waiting, *(one for one in ahead if one is not None)):
                    call.future.cancel()
        if not already:
            self._ring.send_bytes(b".")
        if wait:
            self._thread.join()

    def kill_workers(self) -> None:
        """Kill the processes now; calls that were not answered fail."""
        self.shutdown(wait=False, cancel_futures=True)  # first, or what waits would be taken for lost
        self._killed = True
        if self._thread.is_alive():
            with suppress(OSError):
                self._ring.send_bytes(b".")
        self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the calls, or kill them if an exception leaves the block."""
        if kind is not None:
            self.kill_workers()
        self.shutdown()

    def _run(self) -> None:
        """Give calls to processes and take their answers, in a thread of its own."""
        try:
            while not self._killed:
                self._assign()
                if self._closed and not self._waiting and all(worker.call is None for worker in self._workers):
                    break
                patience = min((worker.deadline for worker in self._workers), default=math.inf) - time.monotonic()
                pipes = [self._bell, *(worker.pipe for worker in self._workers)]
                self._receive(wait(pipes, min(max(0.0, patience), _TURN) if patience < math.inf else None))
        finally:
            with self._lock:
                self._closed = True
            for worker in list(self._workers):
                self._retire(worker, self._end())
            for call in self._waiting:
                if _is_wanted(call):
                    call.future.set_exception(self._end())

    def _end(self) -> Exception:
        """Return why calls fail that were not answered when the thread ended."""
        return _unguarded() if self._broken else WorkerError("crashed", "the workers were shut down")

    def _assign(self) -> None:
        idle = [worker for worker in self._workers if worker.call is None]
        while self._waiting and (idle or len(self._workers) < self.jobs):
            call = self._waiting.popleft()
            if not _is_wanted(call):
                continue
            try:
                worker = idle.pop() if idle else self._start()
            except (OSError, EOFError) as error:
                call.future.set_exception(WorkerError("crashed", f"no process could be started: {error}"))
                continue
            self._expect(worker, call)
            _send(worker, call)
        with self._lock:  # so that `shutdown` finds every call in one place or the other
            for worker in self._workers:
                self._send_ahead(worker)

    def _send_ahead(self, worker: _Worker) -> None:
        if worker.call is None or worker.following is not None or worker.calls + 2 > _CALLS:
            return
        while self._waiting and len(self._waiting[0].pickled) <= _AHEAD and worker.following is None:
            call = self._waiting.popleft()
            if call.future.cancelled() and not _is_wanted(call):
                continue
            worker.following = call  # it may be cancelled until its turn comes; its answer is then dropped
            _send(worker, call)

    def _expect(self, worker: _Worker, call: _WaitingCall | None) -> None:
        """Take note of the call that a process is to take up."""
        worker.call, worker.begun, worker.deadline = call, False, math.inf
        if call is not None:
            _is_wanted(call)
        if call is not None and self._timeout is not None:
            worker.deadline = time.monotonic() + _START + self._timeout

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        alarm = self._timeout + _GRACE if self._timeout is not None and hasattr(signal, "setitimer") else None
        with theirs:
            process = self._context.Process(  # type: ignore[attr-defined]  # every context has it
                target=_serve, args=(theirs, alarm, self._memory), name="normsniff-worker", daemon=True
            )
            _shield()
            process.start()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _receive(self, ready: list[Any]) -> None:
        while self._bell.poll():
            self._bell.recv_bytes()
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.pipe in ready:
                self._take(worker)
            elif now >= worker.deadline:
                self._retire(worker, WorkerError("timeout", f"not answered within {self._timeout:g} s"))

    def _take(self, worker: _Worker) -> None:
        """Take what a process says, or find that it has died."""
        try:
            said = worker.pipe.recv_bytes()
            if said == _BEGUN:
                worker.begun = True
                if self._timeout is not None:
                    worker.deadline = time.monotonic() + self._timeout
                return
            answered, value = pickle.loads(said)  # noqa: S301 - our own process wrote it
        except (EOFError, OSError):
            self._retire(worker, None)
            return
        except Exception as error:  # noqa: BLE001 - whatever unpickling raises must not end this thread
            self._retire(worker, WorkerError("crashed", f"its answer cannot be read ({type(error).__name__})"))
            return
        call = worker.call
        assert call is not None
        self._expect(worker, worker.following)
        worker.following = None
        worker.calls += 1
        if worker.calls >= _CALLS or (isinstance(value, WorkerError) and not answered):
            if worker.call is not None:  # it would answer into a pipe that is closed; another process does that call
                worker.process.kill()
            self._retire(worker, None)
        if call.future.cancelled():
            return
        if answered:
            call.future.set_result(value)
        else:
            call.future.set_exception(value)

    def _retire(self, worker: _Worker, error: Exception | None) -> None:
        """End a process; the call that it was busy with fails with `error`, or with how the process ended."""
        self._workers.remove(worker)
        worker.pipe.close()  # an idle process ends when its pipe does
        if error is None:
            worker.process.join(1)
        worker.process.kill()
        worker.process.join(_GRACE)  # one that hangs in the system, on a lost network drive say, cannot even be killed
        if worker.process.exitcode == _UNGUARDED and not worker.begun:
            self._killed = self._broken = True
            error = _unguarded()
        if worker.following is not None:
            self._waiting.appendleft(worker.following)
        if worker.call is None or worker.call.future.cancelled():
            return
        if error is None and worker.calls and not worker.begun:  # it died while it was idle: not this call's fault
            self._waiting.appendleft(worker.call)
        else:
            worker.call.future.set_exception(error or _obituary(worker.process.exitcode))


def _send(worker: _Worker, call: _WaitingCall) -> None:
    with suppress(OSError):  # it has died; its pipe now reads as ended, and `_take` sees to it
        worker.pipe.send_bytes(call.pickled)


def alone(fn: Callable[..., T], *args: Any, timeout: float | None, memory: int | None, **kwargs: Any) -> T:
    """Return what `fn` returns, called in a process of its own; arguments and limits as for `Workers`.

    Raises:
        WorkerError: the process was lost, or stopped at a limit.
    """
    with Workers(1, timeout=timeout, memory=memory) as workers:
        answer: T = workers.submit(fn, *args, **kwargs).result()
    return answer


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods() or len(os.fsencode(tempfile.gettempdir())) > _SOCKET:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__name__.partition('.')[0]}.pipeline"])  # by name: what calls it is above it
    return context


def _shield() -> None:
    """Keep Ctrl-C, which reaches the whole group, from what this thread starts.

    The server ignores it once it has imported everything; before, it would end with a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # unblocks the signal as it starts, so it comes first
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _unguarded() -> BrokenExecutor:
    return BrokenExecutor(
        "a script that starts worker processes is run again in each of them, and would start more: put what it does"
        ' under `if __name__ == "__main__":`'
    )


def _is_wanted(call: _WaitingCall) -> bool:
    return call.future.running() or call.future.set_running_or_notify_cancel()


def _obituary(exitcode: int | None) -> WorkerError:
    if exitcode is None or exitcode >= 0:
        return WorkerError("crashed", f"its process ended itself with exit code {exitcode}")
    name = signal.Signals(-exitcode).name if -exitcode in set(signal.Signals) else f"signal {-exitcode}"
    if name == "SIGALRM":
        return WorkerError("timeout", "not answered in time")
    cause = ", perhaps by the system when memory ran out" if name == "SIGKILL" else ""
    return WorkerError("crashed", f"its process was ended by {name}{cause}")


def _serve(pipe: Connection, alarm: float | None, memory: int | None) -> None:
    """Answer calls until the pipe ends; the body of a process.

    Args:
        pipe: to the parent.
        alarm: seconds after which the system ends this process, should the parent be gone and the call hang.
        memory: bytes that this process may allocate.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    while True:
        try:
            call = pipe.recv_bytes()
            if alarm is not None:
                signal.setitimer(signal.ITIMER_REAL, alarm)
            pipe.send_bytes(_BEGUN)
            pipe.send_bytes(_answer(call, memory))
        except (EOFError, OSError):  # the parent is gone; `_answer` raises nothing
            return
        if alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(call: bytes, memory: int | None) -> bytes:
    try:
        function, args, kwargs = pickle.loads(call)  # noqa: S301 - our own parent wrote it
        return pickle.dumps((True, function(*args, **kwargs)))
    except BaseException as error:  # noqa: BLE001 - even sys.exit is only an answer here
        if _ran_out(error):
            limit = f" under the limit of {memory:,} bytes" if memory is not None else ""
            return pickle.dumps((False, WorkerError("memory", f"memory ran out{limit}")))
        if isinstance(error, Exception):
            with suppress(Exception):  # a foreign exception may not pickle
                return pickle.dumps((False, error))
        return pickle.dumps((False, WorkerError("crashed", f"{type(error).__name__}: {error}"[:500])))


def _ran_out(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__
    return error is not None
