"""Measure what a scan adds to the labels: CPU time a file, from plain reading to the finished table, in one run.

    python -m benchmarks.scan [FILE|DIRECTORY ...] [--repeat N]

Without inputs, the models of `fixtures/`. Every step does the same files; CPU time counts this process and its worker,
so that the figures hold on a busy machine too. Steps that start a process include its start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core a process

import normsniff.workers
from normsniff import Workers, sniff, sniff_many
from normsniff.batch.content import content_id
from normsniff.batch.journal import Journal
from normsniff.batch.scan import answer_all, find_inputs, finish

normsniff.workers._CALLS = 1 << 60  # one process for all, whose CPU time can then be asked for
FIXTURES = Path(__file__).parent.parent / "fixtures"


def read(paths: Sequence[str]) -> float:
    """Read the files and do nothing with them: the floor."""
    for path in paths:
        for file in sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]:
            file.read_bytes()
    return 0.0


def bare(paths: Sequence[str]) -> float:
    """Call `sniff` in a loop."""
    for path in paths:
        sniff(path)
    return 0.0


def identified(paths: Sequence[str]) -> float:
    """Compute the content id alone, which a scan does before it answers."""
    for path in paths:
        content_id(path)
    return 0.0


def pooled(paths: Sequence[str]) -> float:
    """Have one process under limits do it."""
    with Workers(1, timeout=300) as workers:
        for _ in sniff_many(paths, workers):
            pass
        return float(workers.submit(time.process_time).result())


def _scanned(paths: Sequence[str], dedupe: bool, ending: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", "")
        with Workers(1, timeout=300) as workers:
            for _ in answer_all(paths, journal, workers, dedupe=dedupe, options={}):
                pass
            spent = float(workers.submit(time.process_time).result())
        finish(journal, Path(folder) / f"out.{ending}")
    return spent


def scanned(paths: Sequence[str]) -> float:
    """Keep the answers in a journal and write JSON Lines."""
    return _scanned(paths, dedupe=False, ending="jsonl")


def tabled(paths: Sequence[str]) -> float:
    """Write Parquet instead."""
    return _scanned(paths, dedupe=False, ending="parquet")


def deduped(paths: Sequence[str]) -> float:
    """Compare the content too, as `normsniff scan` does by default; repeated files are then answered once."""
    return _scanned(paths, dedupe=True, ending="parquet")


STEPS: tuple[Callable[[Sequence[str]], float], ...] = (read, identified, bare, pooled, scanned, tabled, deduped)


def main() -> None:
    """Run every step on the same files; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", default=[str(FIXTURES)])
    parser.add_argument("--repeat", type=int, default=5, help="answer every file so often")
    args = parser.parse_args()
    found = list(find_inputs(args.inputs, lambda _path, _reason: None))
    with tempfile.TemporaryDirectory() as folder:  # a link has a path of its own, so that no row is taken for done
        paths = list(found)
        for number in range(1, args.repeat):
            links = Path(folder) / str(number)
            links.symlink_to(Path.cwd())
            paths += [str(links / os.path.relpath(path)) for path in found]
        bare(found)  # every library imported, every file cached
        print(f"{len(found)} models, {len(paths)} inputs\n")
        print("| step | CPU ms a file | files/s/core | wall s |\n|---|---|---|---|")
        for step in STEPS:
            wall, cpu = time.perf_counter(), time.process_time()
            elsewhere = step(paths)
            spent = time.process_time() - cpu + elsewhere
            lasted = time.perf_counter() - wall
            rate = len(paths) / spent
            print(f"| {step.__name__} | {1000 * spent / len(paths):.2f} | {rate:.1f} | {lasted:.1f} |", flush=True)


if __name__ == "__main__":
    main()
