"""What a process costs: CPU time (user and system) and peak resident memory, the median of several fresh ones."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = "1"  # one thread, here and in every child
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has bytecode; the first run writes it here

_INSIDE = """
import json, sys, time
{setup}
start = time.process_time()
{work}
seconds = time.process_time() - start
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak / 1024]))
"""


@dataclass(frozen=True)
class Cost:
    """Medians.

    Attributes:
        cpu: seconds.
        peak: MiB.
    """

    cpu: float
    peak: float


_PEAK = """
import atexit, sys
line = lambda: next(one for one in open("/proc/self/status") if one.startswith("VmHWM"))
atexit.register(lambda: sys.stderr.write(line()))
"""  # by the process itself: what the system reports of a child includes what its parent had before


def whole(codes: dict[str, str], runs: int) -> dict[str, Cost]:
    """Run Python on each code, in turn, `runs` times after one that warms the cache; cost of whole processes."""
    found: dict[str, list[Cost]] = {name: [] for name in codes}
    for run in range(runs + 1):
        for name, code in codes.items():
            process = subprocess.Popen(
                [sys.executable, "-c", _PEAK + code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            assert process.stderr is not None
            told = process.stderr.read().splitlines()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{name} failed: {told}")
            if run:
                found[name].append(Cost(usage.ru_utime + usage.ru_stime, int(told[-1].split()[1]) / 1024))
    return {name: _median(costs) for name, costs in found.items()}


def command(*arguments: str) -> str:
    """Return code that runs normsniff with these arguments, as its script does."""
    return f"sys.argv = {['normsniff', *arguments]!r}\nfrom normsniff.cli import main\nmain()"


def inside(works: dict[str, tuple[str, str]], runs: int) -> dict[str, Cost]:
    """Run each (setup, work) in processes of its own, in turn; CPU time of the work alone, peak of the process."""
    found: dict[str, list[Cost]] = {name: [] for name in works}
    warm = runs > 1  # what takes many seconds is run once
    for run in range(runs + warm):
        for name, (setup, work) in works.items():
            code = _INSIDE.format(setup=setup, work=work)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            if run or not warm:
                found[name].append(Cost(*json.loads(done.stdout)))
    return {name: _median(costs) for name, costs in found.items()}


def _median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.cpu for c in costs), statistics.median(c.peak for c in costs))
