"""Labels of one Python thread against eight, with BLAS as it comes: what bounding it in the library is worth.

    python -m benchmarks.threads [FILE ...] [--labels N] [--source DIRECTORY]

Every figure is of a process of its own that was told nothing of threads (no OMP_NUM_THREADS); the two ways and the
sources take turns. `--source` names the `src` of another commit to compare with in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from normsniff.threads import VARIABLES

ROOT = Path(__file__).parent.parent
_CHILD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import normsniff
path, labels, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
normsniff.sniff(path)
wall, cpu = time.perf_counter(), time.process_time()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(normsniff.sniff, [path] * labels))
print((time.perf_counter() - wall) / labels, (time.process_time() - cpu) / labels)
"""


def measure(source: Path, path: Path, labels: int, threads: int) -> tuple[float, float]:
    """Return milliseconds of wall clock and of CPU a label."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    command = [sys.executable, "-c", _CHILD, str(path), str(labels), str(threads)]
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    wall, cpu = done.stdout.split()
    return 1000 * float(wall), 1000 * float(cpu)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, default=[ROOT / "fixtures" / "bert-ln.bf16.safetensors"])
    parser.add_argument("--labels", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--source", type=Path, action="append", default=[])
    options = parser.parse_args()
    print("| model | sources | one thread: ms, CPU ms | eight threads: ms, CPU ms | eight against one |")
    print("|---|---|---|---|---|")
    for path in options.files:
        runs: dict[tuple[Path, int], list[tuple[float, float]]] = {}
        for _ in range(options.repeat):
            for source in (*options.source, ROOT / "src"):
                for threads in (1, 8):
                    runs.setdefault((source, threads), []).append(measure(source, path, options.labels, threads))
        for source in (*options.source, ROOT / "src"):
            (one, one_cpu), (eight, eight_cpu) = (
                tuple(statistics.median(column) for column in zip(*runs[source, threads], strict=True))
                for threads in (1, 8)
            )
            print(
                f"| {path.name} | {'here' if source == ROOT / 'src' else source} | {one:.1f}, {one_cpu:.1f} |"
                f" {eight:.1f}, {eight_cpu:.1f} | {one / eight:.2f}× |",
                flush=True,
            )


if __name__ == "__main__":
    main()
