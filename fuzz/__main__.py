"""``python -m fuzz [FORMAT...] [--minutes 10] [--seed N] [--keep DIRECTORY]``: ten minutes, or a night by choice.

Every execution is a model of the corpus, mutated up to three times, and answered by `normsniff.sniff` in this process.
A finding is an exception that is not ours, a warning, a record that does not encode and decode, or more CPU time or
memory than a file of its size may take; it is written to ``--keep``, with its seed. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import msgspec

import normsniff
from normsniff.record import Classification

from .harnesses import HARNESSES, corpus, mutated
from .seeds import Tree

_SECONDS = 3.0
"""CPU time of a mutated file; twice what the meter allows for its size, as it counts steps and not seconds."""

_KILOBYTES = 200_000
"""By which one answer may raise what this process has ever held; 150 MB are promised, and pools grow in steps."""


class Trial:
    """A directory in which trees lie, so that only what was mutated is written."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - memory, where there is such a directory
        self._folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self._places: dict[int, Path] = {}
        self.ends: Counter[str] = Counter()
        self._most = 0

    def __call__(self, tree: Tree, changed: dict[str, bytes]) -> str | None:
        """Answer a tree with these changes, and return what was wrong about how that went; count how it ended."""
        if len(tree) == 1:
            (only,) = tree
            return self.answer(changed.get(only, tree[only]))
        place = self._placed(tree)
        for name, data in changed.items():
            (place / name).write_bytes(data)
        try:
            return self.answer(place / next(iter(tree)))
        finally:
            for name in changed:
                (place / name).write_bytes(tree[name])

    def answer(self, source: bytes | Path) -> str | None:
        """Answer one source, and return what was wrong."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            record = normsniff.sniff(source)
            self.ends["answered"] += 1
            if msgspec.json.decode(record.to_json(), type=Classification) != record:
                return "the record is another one when it is read back"
        except normsniff.NormsniffError:
            self.ends["refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"[:300]
        after = resource.getrusage(resource.RUSAGE_SELF)
        if after.ru_utime - before.ru_utime > _SECONDS:
            return f"{after.ru_utime - before.ru_utime:.1f} s of CPU time"
        if self.ends.total() > 1 and after.ru_maxrss - before.ru_maxrss > _KILOBYTES:  # the first loads libraries
            return f"{(after.ru_maxrss - before.ru_maxrss) / 1000:.0f} MB"
        return None

    def _placed(self, tree: Tree) -> Path:
        if id(tree) not in self._places:
            self._places[id(tree)] = place = Path(self._folder.name) / str(len(self._places))
            place.mkdir()
            for name, data in tree.items():
                (place / name).write_bytes(data)
        return self._places[id(tree)]

    def close(self) -> None:
        """Remove the directory."""
        self._folder.cleanup()


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> tuple[Counter[str], Counter[str]]:
    """Fuzz one format; return how the executions ended, and what was found."""
    found: Counter[str] = Counter()
    end, runs = time.monotonic() + seconds, 0
    with contextlib.closing(Trial()) as trial:
        while time.monotonic() < end:
            rng = random.Random(f"{name} {seed} {runs}")  # noqa: S311 - no secret
            tree, changed = mutated(name, rng)
            runs += 1
            said = trial(tree, changed)
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    if not set(arguments.formats) <= set(HARNESSES):
        parser.error(f"formats are {', '.join(HARNESSES)}")
    warnings.simplefilter("error")
    names = [name for name in arguments.formats or HARNESSES if corpus(name)]
    total: Counter[str] = Counter()
    for name in names:
        ends, found = fuzz(name, 60 * arguments.minutes / len(names), arguments.seed, arguments.keep)
        said = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
        print(f"{name:<12} {said}, {found.total():,} findings", flush=True)
        total += found
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
