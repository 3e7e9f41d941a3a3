"""``python -m fuzz [FORMAT...] [--minutes 10] [--seed N] [--keep DIRECTORY]``: ten minutes, or a night by choice.

Every execution is a model of the corpus, mutated up to three times, and read in this process, tensors' values as well.
One of 32 is answered by `normsniff.sniff` (``--whole``: each), which takes ten to thirty times as long. A finding is an
exception that is not ours, a warning, a record that does not encode and decode, or more CPU time or memory than a file
of its size may take; it is written to ``--keep``, with its seed. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from .harnesses import HARNESSES, corpus, mutated
from .trial import Trial

_WHOLE = 32
"""One of so many executions is answered whole: what stands behind a reader sees little of what is mutated."""


def fuzz(
    name: str, seconds: float, seed: int, keep: Path, *, most: int | None = None, whole: bool = False
) -> tuple[Counter[str], Counter[str]]:
    """Fuzz one format for so long, or so often; return how the executions ended, and what was found."""
    found: Counter[str] = Counter()
    end, runs = time.monotonic() + seconds, 0
    with contextlib.closing(Trial()) as trial:
        while time.monotonic() < end and runs != most:
            rng = random.Random(f"{name} {seed} {runs}")  # noqa: S311 - no secret
            tree, changed = mutated(name, rng)
            runs += 1
            said = trial(tree, changed, whole=whole or not runs % _WHOLE)
            if said is not None:
                found[said] += 1
                for file, data in changed.items():
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{seed}-{runs}-{file}").write_bytes(data)
                print(f"{name} {seed} {runs}: {said}", flush=True)
        return trial.ends, found


def main() -> int:
    """Run the formats that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(HARNESSES)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all formats together")
    parser.add_argument("--most", type=int, help="executions of a format, if they are done before")
    parser.add_argument("--whole", action="store_true", help="answer each, not one of 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    if not set(arguments.formats) <= set(HARNESSES):
        parser.error(f"formats are {', '.join(HARNESSES)}")
    warnings.simplefilter("error")
    names = [name for name in arguments.formats or HARNESSES if corpus(name)]
    total: Counter[str] = Counter()
    for name in names:
        ends, found = fuzz(
            name,
            60 * arguments.minutes / len(names),
            arguments.seed,
            arguments.keep,
            most=arguments.most,
            whole=arguments.whole,
        )
        said = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
        print(f"{name:<12} {said}, {found.total():,} findings", flush=True)
        total += found
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
