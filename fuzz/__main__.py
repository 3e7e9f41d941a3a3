"""``python -m fuzz [FORMAT...] [--minutes 10] [--seed N] [--keep DIRECTORY]``: ten minutes, or a night by choice.

Every execution is a file of the corpus, mutated up to three times, and answered by `normsniff.sniff` in this process.
A finding is an exception that is not ours, a warning, a record that does not encode and decode, or more CPU time than
a file of its size may take; it is written to ``--keep``, with its seed. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

import normsniff
from normsniff.record import Classification

from .mutations import Mutation, json_head, members, plain, protobuf

FIXTURES = Path(__file__).parents[1] / "fixtures"
_SECONDS = 3.0
"""CPU time of a mutated file; twice what the meter allows for its size, as it counts steps and not seconds."""


class Harness(NamedTuple):
    """How a format is fuzzed.

    Attributes:
        corpus: patterns of fixtures to begin with.
        mutations: taken by chance.
    """

    corpus: tuple[str, ...]
    mutations: tuple[Mutation, ...]


HARNESSES = {
    "safetensors": Harness(("*-none.safetensors", "gpt2-ln.*.safetensors"), (plain, json_head)),
    "gguf": Harness(("*.Q8_0.gguf", "*.Q4_K.gguf"), (plain,)),
    "onnx": Harness(("*.onnx",), (plain, protobuf, protobuf)),
    "hdf5": Harness(("*.h5",), (plain,)),
    "keras": Harness(("*.keras",), (plain, members(plain))),
    "pytorch": Harness((), (plain, members(plain), members(plain))),
    "numpy": Harness((), (plain, members(plain))),
}  # fmt: skip


def corpus(name: str) -> list[bytes]:
    """Return the files that a format is mutated from."""
    found = [path.read_bytes() for pattern in HARNESSES[name].corpus for path in sorted(FIXTURES.glob(pattern))]
    return [data for data in found if len(data) <= 400_000] or _made(name)


def _made(name: str) -> list[bytes]:
    import io

    shapes = {f"h.{i}.{part}": shape for i in range(3) for part, shape in
              (("ln_1.weight", (16,)), ("ln_1.bias", (16,)), ("attn.c_proj.weight", (16, 16)))}  # fmt: skip
    arrays = {key: np.random.default_rng(0).normal(size=shape).astype("f4") for key, shape in shapes.items()}
    out = io.BytesIO()
    if name == "numpy":
        np.savez(out, allow_pickle=False, **arrays)
        return [out.getvalue()]
    import torch

    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    torch.save(state, out)
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    return [out.getvalue(), old.getvalue()]


def trouble(data: bytes, ends: Counter[str]) -> str | None:
    """Answer a file, and return what was wrong about how that went; count in `ends` how it ended."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    try:
        record = normsniff.sniff(data)
        ends["answered"] += 1
        if msgspec.json.decode(record.to_json(), type=Classification) != record:
            return "the record is another one when it is read back"
    except normsniff.NormsniffError:
        ends["refused"] += 1
    except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
        return f"{type(error).__name__}: {error}"[:300]
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    return f"{spent:.1f} s of CPU time" if spent > _SECONDS else None


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> tuple[Counter[str], Counter[str]]:
    """Fuzz one format; return how the executions ended, and what was found."""
    seeds, harness = corpus(name), HARNESSES[name]
    found: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rng = random.Random(f"{name} {seed} {runs}")  # noqa: S311 - no secret
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 3))):
            data = rng.choice(harness.mutations)(data, rng)
            data = data[:1_000_000]
        runs += 1
        said = trouble(data, ends)
        if said is not None:
            found[said] += 1
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name}-{seed}-{runs}.bin").write_bytes(data)
            print(f"{name} {seed} {runs}: {said}", flush=True)
    return ends, found


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
    names = arguments.formats or list(HARNESSES)
    total: Counter[str] = Counter()
    for name in names:
        ends, found = fuzz(name, 60 * arguments.minutes / len(names), arguments.seed, arguments.keep)
        said = ", ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
        print(f"{name:<12} {said}, {found.total():,} findings", flush=True)
        total += found
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
