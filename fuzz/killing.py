"""``python -m fuzz.killing LAKE [--every ANSWERS] [--deaths N] [--seed N]``: a scan whose processes are killed.

Whenever a scan has kept a few more answers, one of the processes below it (its workers, the server that forks them)
gets a SIGKILL, and N times the scan itself does; it is then resumed. At the end there must be one row for every input.
What is lost with its process says so. Needs ``/proc``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from normsniff.batch.scan import find_inputs, journal_of
from normsniff.record import spelled

_KILLS = 4  # processes killed below a scan, at most, before it is killed itself
_MOMENT = 0.01  # seconds from an answer to a kill, on average: any moment may be hit, and nothing depends on which
_LOOK = 0.005  # seconds between two looks
_COMPLAINTS = ("Traceback", "RuntimeWarning", "BrokenPipe", "Error:")
"""What no scan prints. That its tracker of resources was killed, multiprocessing may say."""


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        inputs: how many there were.
        missing: inputs without a row.
        surplus: rows without an input, or second ones.
        ends: rows by label, or by what failed.
        killed: workers and fork servers that were killed.
        deaths: how often the scan itself was.
        complaints: what scans printed that they should not: tracebacks, warnings.
    """

    inputs: int
    missing: list[str]
    surplus: list[str]
    ends: Counter[str]
    killed: int = 0
    deaths: int = 0
    complaints: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether every input has one row, and nobody complained."""
        return not (self.missing or self.surplus or self.complaints)


def killing(
    lake: Path,
    output: Path,
    *,
    every: int,
    deaths: int,
    seed: int,
    kills: float = math.inf,
    options: Sequence[str] = (),
) -> Outcome:
    """Scan a directory into a JSON Lines file while its processes are killed.

    Args:
        lake: the directory.
        output: the table to write.
        every: answers between two kills, on average.
        deaths: kills of the scan itself.
        seed: of the order of events.
        kills: kills below the scan that is left to end, at most; the rest is answered in peace.
        options: further ones of the scan.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    killed, complaints, died = 0, [], 0
    while True:
        resume = ["--resume"] if died else []
        command = [sys.executable, "-m", "normsniff", "scan", str(lake), "-o", str(output), *options, *resume]
        doomed = died < deaths
        left = rng.randint(1, _KILLS) if doomed else kills
        with tempfile.TemporaryFile("w+") as said:
            scan = subprocess.Popen(command, stderr=said, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
            _await(scan, partial(_has_descendants, scan.pid))  # so that its journal is open
            while left and _await_answers(scan, journal_of(output), 1 + int(rng.expovariate(1 / every))):
                time.sleep(rng.expovariate(1 / _MOMENT))
                killed += _kill_below(scan, rng)
                left -= 1
            if doomed:
                scan.kill()
            scan.wait()
            said.seek(0)
            complaints += [line for line in said.read().splitlines() if any(word in line for word in _COMPLAINTS)]
        if scan.returncode != -signal.SIGKILL:
            break
        died += 1
    return _compared(lake, output, killed, died, complaints)


def _await(scan: subprocess.Popen[bytes], event: Callable[[], bool]) -> bool:
    """Wait for an event; False if the scan ended first."""
    while not event():
        if scan.poll() is not None:
            return False
        time.sleep(_LOOK)
    return True


def _await_answers(scan: subprocess.Popen[bytes], journal: Path, count: int) -> bool:
    """Wait until something was written to a journal so many times; False if the scan ended first."""
    for _ in range(count):
        before = _written(journal)
        if not _await(scan, lambda before=before: _written(journal) != before):  # type: ignore[misc]  # a lambda has no types
            return False
    return True


def _written(journal: Path) -> list[tuple[int, int]]:
    """Return size and time of a journal's files: no other process may look into it."""
    found = []
    for path in (journal, journal.with_name(f"{journal.name}-wal")):
        with contextlib.suppress(OSError):
            found.append(((status := path.stat()).st_size, status.st_mtime_ns))
    return found


def _kill_below(scan: subprocess.Popen[bytes], rng: random.Random) -> int:
    """Kill one of the processes below a scan and wait for its end; return how many were killed."""
    below = descendants(scan.pid)
    if not below:
        return 0
    victim = rng.choice(below)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    _await(scan, lambda: _is_dead(victim))
    return 1


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _has_descendants(pid: int) -> bool:
    return descendants(pid) != []


def descendants(pid: int) -> list[int]:
    """Return the processes below one, as ``/proc`` tells."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        for listed in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                waiting += (below := [int(word) for word in listed.read_text().split()])
                found += below
    return found


def _compared(lake: Path, output: Path, killed: int, deaths: int, complaints: list[str]) -> Outcome:
    expected = Counter(spelled(one) for one in find_inputs([str(lake)], lambda *_: None))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    told = Counter(str(row["path"]) for row in rows)
    ends = Counter(
        str(
            row.get("label") or ("duplicate" if "duplicate_of" in row else row["error"]["code"] or row["error"]["type"])
        )
        for row in rows
    )
    return Outcome(
        expected.total(), sorted((expected - told).elements()), sorted((told - expected).elements()), ends, killed,
        deaths, complaints,
    )  # fmt: skip


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.killing", description=__doc__)
    parser.add_argument("lake", type=Path)
    parser.add_argument("--every", type=int, default=20, help="answers between two kills, on average")
    parser.add_argument("--deaths", type=int, default=5, help="kills of the scan itself")
    parser.add_argument("--seed", type=int, default=0)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = killing(
            arguments.lake, Path(folder) / "out.jsonl", every=arguments.every, deaths=arguments.deaths,
            seed=arguments.seed, options=options,
        )  # fmt: skip
    print(f"{outcome.inputs:,} inputs, {outcome.ends.total():,} rows: {len(outcome.missing)} missing, "
          f"{len(outcome.surplus)} too many; {outcome.killed} processes and {outcome.deaths} scans killed")  # fmt: skip
    for end, count in outcome.ends.most_common():
        print(f"  {end:<20}{count:>8,}")
    for one in (*outcome.missing, *outcome.surplus, *outcome.complaints):
        print(f"  ! {one[:200]}")
    return 0 if outcome.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
