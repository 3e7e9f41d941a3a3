"""A scan keeps one row an input while its workers, the server that forks them, and the scan itself are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.harnesses import HARNESSES, corpus, mutated
from fuzz.killing import descendants, killing

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


def test_one_row_an_input_whoever_is_killed(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    for name in HARNESSES:
        for run in range(2 if corpus(name) else 0):
            tree, changed = mutated(name, random.Random(f"killing {name} {run}"))  # noqa: S311 - no secret
            (folder := lake / f"{name}-{run}").mkdir(parents=True)
            for file, data in {**tree, **changed}.items():
                (folder / file).write_bytes(data)
    outcome = killing(
        lake, tmp_path / "out.jsonl", every=1, deaths=2, kills=3, seed=3, options=["-j", "2", "--no-dedupe"]
    )
    assert outcome.missing == outcome.surplus == outcome.complaints == []
    assert outcome.inputs > 25
    assert outcome.deaths == 2
    assert outcome.killed > 2
    # Every kill costs one answer at most, and there are no more than eleven.
    assert {"RMSNorm", "LayerNorm"} <= set(outcome.ends)


def test_processes_are_found_below_others() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            while not descendants(process.pid):
                time.sleep(0.01)
            assert len(descendants(process.pid)) == 1
        finally:
            for one in (*descendants(process.pid), process.pid):
                subprocess.run(["/bin/kill", "-9", str(one)], check=False)
