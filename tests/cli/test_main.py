"""The process as a shell sees it: encodings, threads, closed pipes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.manifest import FIXTURES

LN = str(FIXTURES / "gpt2-ln.Q8_0.gguf")
COMMAND = [sys.executable, "-m", "normsniff"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1", "utf-8"])
@pytest.mark.parametrize("options", [["--norms"], ["--help"], ["gone.gguf"]])
def test_output_fails_on_no_encoding(encoding: str, options: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, LN, *options], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == (2 if "gone.gguf" in options else 0)
    utf8 = encoding in ("utf-8", "ascii")  # click takes ASCII for a locale that nobody set, and writes UTF-8
    said = done.stdout.decode("utf-8" if utf8 else encoding)
    if options == ["--norms"]:
        assert ("writers ρ" if utf8 else "writers rho") in said


@pytest.mark.parametrize(
    "args",
    [[LN, LN], ["--json", LN], ["--brief", LN, LN], ["check", LN], ["norms", LN], ["direction", LN], ["plan", LN],
     ["track", LN], ["schema"], ["explain"], ["--help"]],
    ids=" ".join,
)  # fmt: skip
def test_a_closed_pipe_is_no_failure(args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *args], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_an_interrupt_is_told_by_the_exit_code(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")  # nobody writes: the command waits
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*COMMAND, "scan", str(tmp_path / "list.txt"), "-o", str(tmp_path / "o.csv")]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in said


@pytest.mark.parametrize("args", [["-"], ["check", "-"], ["report", "-", "-o", "x.html"], ["norms", "-"]], ids=" ".join)
def test_an_interrupt_while_a_pipe_is_read_leaves_nothing(args: list[str], tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, *args], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()):  # the copy has begun
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_one_thread_of_blas_unless_a_user_says_so() -> None:
    code = (
        "import sys, os; sys.argv[1:] = ['--version']\nfrom normsniff.cli import main\n"
        "try: main()\nexcept SystemExit: print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    plain = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    for extra, count in (({}, b"1"), ({"OPENBLAS_NUM_THREADS": "3"}, b"3")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**plain, **extra}, check=True)
        assert done.stdout.split()[-1] == count
