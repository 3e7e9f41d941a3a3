"""A call that hangs, crashes or eats memory: its own error, nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from normsniff import sniff
from normsniff.errors import FormatError, WorkerError
from normsniff.workers import Workers
from normsniff.workers import _serve as serve
from tests.helpers.calls import (
    MEMORY,
    close_the_pipe_and_hang,
    eat,
    eat_in_a_reader,
    echo,
    fail,
    hang_in_c,
    hang_in_python,
    kill_itself,
    leave,
    map_a_file,
    pid,
    rendezvous,
    segfault,
    strange,
    unpicklable,
)
from tests.helpers.manifest import FIXTURES, ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory limits need Linux")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1, timeout=2, memory=MEMORY) as workers:
        yield workers


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ((hang_in_python,), "timeout", "not answered within 2 s"),
        ((hang_in_c,), "timeout", "not answered within 2 s"),
        ((eat,), "memory", "under the limit of 400,000,000 bytes"),
        ((eat_in_a_reader,), "memory", "under the limit"),
        ((segfault,), "crashed", "SIGSEGV"),
        ((kill_itself,), "crashed", "SIGKILL"),
        ((leave, 0), "crashed", "exit code 0"),
        ((leave, 3), "crashed", "exit code 3"),
        ((close_the_pipe_and_hang,), "crashed", "SIGKILL"),
        ((strange,), "crashed", "cannot be read"),
        ((sys.exit, 7), "crashed", "SystemExit: 7"),
    ],
    ids=lambda value: value[0].__name__ if isinstance(value, tuple) else None,
)
def test_a_lost_call_is_told_and_its_neighbours_are_answered(
    workers: Workers, call: tuple[Any, ...], code: str, says: str
) -> None:
    before, lost, after = workers.submit(echo, 1), workers.submit(*call), workers.submit(echo, 2)
    error = lost.exception(timeout=60)
    assert isinstance(error, WorkerError)
    assert error.code == code
    assert says in str(error)
    assert (before.result(60), after.result(60)) == (1, 2)


def test_errors_come_back_as_they_are(workers: Workers) -> None:
    error = workers.submit(fail).exception(60)
    assert isinstance(error, FormatError)
    assert error.code == "malformed"
    assert isinstance(workers.submit(unpicklable).exception(60), AttributeError)


def test_a_process_is_kept_until_it_is_lost(workers: Workers) -> None:
    first, second = workers.submit(pid).result(60), workers.submit(pid).result(60)
    assert first == second
    assert workers.submit(leave, 1).exception(60)
    assert workers.submit(pid).result(60) != first


def test_an_idle_process_that_dies_blames_no_call(workers: Workers) -> None:
    for _ in range(5):  # it may die before or after the next call is sent
        os.kill(workers.submit(pid).result(60), signal.SIGKILL)
        assert workers.submit(echo, "fine").result(60) == "fine"


def test_a_mapped_file_is_no_memory(workers: Workers, tmp_path: Path) -> None:
    """Some libraries map files; a limit on addresses (RLIMIT_AS) would refuse every large one."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(20 * MEMORY)
    assert workers.submit(map_a_file, path).result(60) == 20 * MEMORY


def test_all_processes_work(tmp_path: Path) -> None:
    with Workers(2, timeout=60) as workers:
        meet = [workers.submit(rendezvous, tmp_path, n) for n in range(2)]
        assert [future.result(60) for future in meet] == [True, True]


def test_an_exception_in_the_block_kills_the_processes() -> None:
    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:  # noqa: PT012 - the block is the test
        running, waiting = workers.submit(hang_in_python), workers.submit(echo, 1)
        while not running.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert isinstance(running.exception(1), WorkerError)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError):
        workers.submit(echo, 1)


def test_calls_sent_ahead_are_made_once_each_whatever_happens_to_the_one_before(workers: Workers) -> None:
    calls = [workers.submit(echo, 0)]
    for n in range(1, 6):
        calls += [workers.submit(leave, 3), workers.submit(echo, n)]
    cancelled = workers.submit(echo, 6)
    last = workers.submit(echo, 7)
    assert cancelled.cancel()
    assert [call.result(60) for call in calls[::2]] == list(range(6))
    assert all(isinstance(call.exception(60), WorkerError) for call in calls[1::2])
    assert last.result(60) == 7


def test_a_call_that_was_sent_ahead_can_be_cancelled_until_its_turn_comes(tmp_path: Path) -> None:
    with Workers(1, timeout=60) as workers:
        first, second = workers.submit(rendezvous, tmp_path, 0), workers.submit(echo, 1)
        while not first.running():
            time.sleep(0.01)
        time.sleep(0.05)
        assert second.cancel()
        (tmp_path / "1").touch()
        assert first.result(60)
        assert workers.submit(echo, 2).result(60) == 2
        done, _ = wait([first, second], timeout=60)
        assert done == {first, second}


def test_processes_are_replaced_and_no_call_sent_ahead_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.workers._CALLS", 3)
    with Workers(1, timeout=60) as workers:
        assert [call.result(60) for call in [workers.submit(echo, n) for n in range(20)]] == list(range(20))


ORPHANS = """
import os, signal
import normsniff.workers
from tests.helpers.calls import echo, hang_in_c, pid

if __name__ == "__main__":
    normsniff.workers._GRACE = 0.5
    workers = normsniff.workers.Workers(2, timeout=0.5)
    meet = [workers.submit(pid) for _ in range(8)]
    print(*{future.result() for future in meet}, flush=True)
    hangs = workers.submit(hang_in_c)
    while not hangs.running():
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_whose_parent_is_gone_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send_bytes(pickle.dumps((len, ([],), {})))
    ours.close()
    serve(theirs, None, None)


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """One that waits for a call sees its pipe end; one that hangs is ended by its alarm."""
    (tmp_path / "orphans.py").write_text(ORPHANS)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, env = [sys.executable, str(tmp_path / "orphans.py")], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr
    processes = [Path("/proc") / number for number in done.stdout.split()]
    assert processes
    deadline = time.monotonic() + 30
    while any(process.exists() for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "limits", [{"jobs": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"timeout": 1e12}, {"memory": -1}]
)
def test_limits_are_positive(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a"):
        Workers(**limits)


def test_a_limit_of_years_is_kept_like_any_other() -> None:
    with Workers(1, timeout=1e9) as workers:
        assert workers.submit(len, "abc").result() == 3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_server_that_still_imports_is_spared_by_an_interrupt() -> None:
    with Workers(1) as workers:
        server = workers.submit(os.getppid).result()
        status = Path(f"/proc/{server}/status").read_text()
    blocked = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk"))
    assert blocked >> (signal.SIGINT - 1) & 1  # from its first moment: whoever starts it hands its mask on


ALONE = """
import normsniff, sys

if __name__ == "__main__":
    for path in sys.argv[1:]:
        try:
            print(normsniff.sniff(path, isolate=True, timeout=10, memory=400_000_000).label)
        except normsniff.WorkerError as error:
            print(error.code)
"""


def test_a_file_that_kills_its_reader_kills_no_caller(hostile: Path, tmp_path: Path) -> None:
    programs = {"crash": "os.kill(os.getpid(), signal.SIGSEGV)", "fill": "bytearray(1 << 30)"}
    paths = [tmp_path / f"{name}.hostile" for name in programs]
    for path, program in zip(paths, programs.values(), strict=True):
        path.write_text(f"HOSTILE{program}")
    (script := tmp_path / "alone.py").write_text(ALONE)
    good = ROOT / "fixtures" / "llama-rms.bf16.safetensors"
    done = subprocess.run([sys.executable, script, *paths, good], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["crashed", "memory" if sys.platform == "linux" else "crashed", "RMSNorm"]


def test_the_command_ends_a_file_that_never_ends(hostile: Path, tmp_path: Path) -> None:
    (hang := tmp_path / "hang.hostile").write_text("HOSTILEtime.sleep(1000)")
    good = ROOT / "fixtures" / "llama-rms.bf16.safetensors"
    command = [sys.executable, "-m", "normsniff", "--timeout", "4", str(hang), str(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"error: {hang}: not answered within 4 s [timeout]" in done.stderr
    assert done.stdout.startswith("RMSNorm")


@pytest.mark.parametrize("command", [["check"], ["norms"], ["plan"], ["direction"], ["report", "-o", "page.html"]])
def test_every_command_that_reads_a_model_has_the_limits(
    command: list[str], hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (hang := tmp_path / "hang.hostile").write_text("HOSTILEtime.sleep(1000)")
    good = ROOT / "fixtures" / "llama-rms.bf16.safetensors"
    run = [sys.executable, "-m", "normsniff", *command]
    done = subprocess.run([*run, "--timeout", "4", str(hang)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{hang}: not answered within 4 s [timeout]" in done.stderr
    assert "Traceback" not in done.stderr
    told = [
        subprocess.run([*run, str(good), *limits], capture_output=True, text=True, check=True).stdout
        for limits in ([], ["--timeout", "60", "--memory", "1GB"])
    ]
    assert told[0] == told[1], "what is told is the same"


def test_what_another_process_cannot_have_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="not dict"):
        sniff({}, isolate=True)
    with pytest.raises(ValueError, match="isolate=True"):
        sniff(b"", timeout=1)


UNGUARDED = """
import normsniff, sys
print("a line of the script", flush=True)
try:
    {}
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(3)
"""


@pytest.mark.parametrize(
    "what",
    [
        "normsniff.Workers(2).submit(len, 'ab').result()",
        "normsniff.sniff(sys.argv[1], isolate=True)",
        "list(normsniff.sniff_many([sys.argv[1]] * 9, normsniff.Workers(3, timeout=60)))",
        "list(normsniff.scan([sys.argv[1]] * 3))",
    ],
)
def test_a_script_without_a_guard_is_told_so_once_and_at_once(what: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED.format(what))
    model = ROOT / "fixtures" / "gpt2-ln.Q8_0.gguf"
    done = subprocess.run(
        [sys.executable, str(script), str(model)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("BrokenExecutor a script that starts worker processes is run again")
    assert done.stderr.count("\n") == 1
    assert '`if __name__ == "__main__":`' in done.stderr


def test_a_script_with_a_guard_works(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import normsniff, sys\n"
        "if __name__ == '__main__':\n"
        "    print(normsniff.sniff(sys.argv[1], isolate=True, memory='1GB').label)\n"
    )
    model = ROOT / "fixtures" / "gpt2-ln.Q8_0.gguf"
    done = subprocess.run([sys.executable, str(script), str(model)], capture_output=True, text=True, check=True)
    assert done.stdout == "LayerNorm\n"


def test_a_temporary_directory_with_a_long_path_has_room_for_no_socket_and_needs_none(tmp_path: Path) -> None:
    """Of 104 bytes at most, on some systems: the fork server's is in this directory."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    command = [sys.executable, "-m", "normsniff", "--timeout", "100", "--json", str(FIXTURES / "gpt2-ln.Q8_0.gguf")]
    found = subprocess.run(command, capture_output=True, env={**os.environ, "TMPDIR": str(folder)}, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    assert b'"LayerNorm"' in found.stdout
