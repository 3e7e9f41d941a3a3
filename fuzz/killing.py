"""``python -m fuzz.killing LAKE [--every SECONDS] [--deaths N] [--seed N]``: a scan whose processes are killed.

Every so often one of the processes below the scan (its workers, the server that forks them) gets a SIGKILL, and N times
the scan itself does, at a random moment; it is then resumed. At the end there must be one row for every input. What is
lost with its process says so. Needs ``/proc``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normsniff.batch.scan import find_inputs
from normsniff.record import spelled

_SETTLE = 0.3  # seconds that a scan has to itself before it is killed, or it would never get anywhere
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


def killing(lake: Path, output: Path, *, every: float, deaths: int, seed: int, options: Sequence[str] = ()) -> Outcome:
    """Scan a directory into a JSON Lines file while its processes are killed.

    Args:
        lake: the directory.
        output: the table to write.
        every: seconds between two kills below the scan, on average.
        deaths: kills of the scan itself.
        seed: of the moments.
        options: further ones of the scan.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    killed, complaints, died = 0, [], 0
    while True:
        resume = ["--resume"] if died else []
        command = [sys.executable, "-m", "normsniff", "scan", str(lake), "-o", str(output), *options, *resume]
        with tempfile.TemporaryFile("w+") as said:
            scan = subprocess.Popen(command, stderr=said, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
            end = time.monotonic() + _SETTLE + rng.expovariate(1 / (8 * every)) if died < deaths else None
            while scan.poll() is None:
                time.sleep(rng.expovariate(1 / every))
                if end is not None and time.monotonic() > end:
                    with contextlib.suppress(ProcessLookupError):
                        scan.kill()
                    break
                below = descendants(scan.pid)
                if below:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(below), signal.SIGKILL)
                        killed += 1
            scan.wait()
            said.seek(0)
            complaints += [line for line in said.read().splitlines() if any(word in line for word in _COMPLAINTS)]
        if scan.returncode != -signal.SIGKILL:
            break
        died += 1
    return _compared(lake, output, killed, died, complaints)


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
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two kills, on average")
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
