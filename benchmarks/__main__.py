"""Measure everything in one run and write docs/benchmarks.md and docs/benchmarks.png.

    python -m benchmarks [--quick]

From the root of the repository, with the group `benchmarks` and, for the real models, the packages of `models`. Needs
0.5 GB of disk (the large models are mostly holes) and some minutes; --quick leaves out what takes longest and writes
nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

from . import figures  # noqa: E402 - costs.py sets the number of threads before numpy is imported
from .figures import Row, Size  # noqa: E402

_MISSES = {
    "label of": "Labels: of what comes on top of numpy and click, about half is importing normsniff's own modules (the "
    "regular expressions of the name conventions first, nearly all of which are used); then come the vocabulary's walk "
    "and the samples.",
    "arithmetic": "Arithmetic: a sum is one pass over the bytes. The kernel squares and sums a piece, and multiplies "
    "it while it is in the cache by the direction and its signs at once; what is left is the products of the buckets "
    "(64² a vector), the angles between some vectors, and, for columns, that a row of them is a strip between others.",
    "header of an inline ONNX": "ONNX: the walk itself takes less than a millisecond; the rest is importing modules of "
    "normsniff.",
}
"""Why a target is missed, by how its row begins."""

_GPU = (
    "## On a GPU",
    "",
    "`python -m benchmarks.gpu --install`, on a machine with an NVIDIA GPU: the kernel on arrays of CuPy and torch,",
    "labels and ρ against the CPU's, whole models timed. It was written where there is none and tried with the CPU in",
    "the GPU's place, so that no figure of a GPU stands here.",
    "",
)

_THREADS = (
    "## Threads of Python",
    "",
    "`python -m benchmarks.threads`: milliseconds a label (and of CPU) where nothing is said of threads, on two CPUs",
    "that others kept busy (load 11). Bounded in the library means one thread of BLAS while anybody labels; before,",
    "each of its threads waited for the others.",
    "",
    "| model | BLAS | one thread | eight threads | eight against one |",
    "|---|---|---|---|---|",
    "| fixture, 170 kB | unbounded | 756 (178) | 4594 (1229) | 0.16× |",
    "| fixture, 170 kB | bounded in the library | 118 (18) | 77 (19) | 1.5× |",
    "| MiniLM-L6 | bounded in the library | 212 (39) | 171 (40) | 1.2× |",
    "",
)
"""Measured apart, as it says nothing on a machine that is idle."""

_ROOFLINE = (
    "## What bounds the arithmetic",
    "",
    "`python -m benchmarks.roofline`: the parts that no implementation can leave out, alone, over 64 MB in pieces of",
    "256 kB (rows of 4,096; least CPU time of nine rounds in turn, on a machine with nothing else to do). What is",
    "converted is squared and multiplied in the cache.",
    "",
    "| dtype | work | GB/s | share of `numpy.sum` |",
    "|---|---|---|---|",
    "| F32 | `numpy.sum` | 26.3 | 100% |",
    "| F32 | conversion to float32 | – | – |",
    "| F32 | and squares, summed a vector | 29.6 | 113% |",
    "| F32 | and the product with two vectors | 18.1 | 69% |",
    "| F32 | and both | 17.5 | 67% |",
    "| F32 | and both, the product in 64 groups | 15.0 | 57% |",
    "| F32 | `kernel.shadow` | 7.6 | 29% |",
    "| BF16 | `numpy.sum` | 5.7 | 100% |",
    "| BF16 | conversion to float32 | 10.7 | 186% |",
    "| BF16 | and squares, summed a vector | 7.6 | 132% |",
    "| BF16 | and the product with two vectors | 7.0 | 122% |",
    "| BF16 | and both | 5.7 | 99% |",
    "| BF16 | and both, the product in 64 groups | 5.1 | 89% |",
    "| BF16 | `kernel.shadow` | 4.3 | 75% |",
    "| F16 | `numpy.sum` | 1.1 | 100% |",
    "| F16 | conversion to float32 | 1.2 | 109% |",
    "| F16 | and squares, summed a vector | 1.1 | 104% |",
    "| F16 | and the product with two vectors | 1.1 | 102% |",
    "| F16 | and both | 1.1 | 98% |",
    "| F16 | and both, the product in 64 groups | 1.1 | 97% |",
    "| F16 | `kernel.shadow` | 1.0 | 88% |",
    "",
    "So the bound of F32 is not memory: squares and one product, in calls of numpy and BLAS, come to 67 % of a",
    "sum, and in the 64 groups that the sign flips need to 57 %. The kernel is at 29 % with blocks of 256",
    "vectors, where what it does once a block counts (of its time 57 % is that pass; 16 % are angles between 16",
    "vectors, 10 % products of the groups, 8 % sums in float64); with blocks of 64 vectors it is at 16 %, with 1,024",
    "at 42 %. Pieces of 512 kB and 1 MB instead of 256 kB bring 35 and 36 %, and lose on a machine that shares its",
    "cache. Of BF16 half of the work is conversion, of F16 nearly all, in numpy's own sum as well.",
    "Columns of F32 come to 21 % of a sum in strips of 512, whose rows lie 16 kB apart and share few sets of a cache,",
    "and to 25 % in strips of 2,048; they are read in strips of 512, as a strip is held in memory whole.",
    "",
)
"""Measured apart, in a minute."""

_COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
_SIZES = ("0.1 GB", "1 GB", "3 GB", "8 GB", "13 GB")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure; write docs/benchmarks.md.")
    parser.add_argument("--quick", action="store_true", help="leave out what takes longest, and write nothing")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        lines = list(_report(Path(name), quick))
    text = "\n".join(lines) + "\n"
    print(text)
    if not quick:
        (ROOT / "docs" / "benchmarks.md").write_text(text)


def _report(folder: Path, quick: bool) -> Iterator[str]:
    from normsniff import __version__
    from tests.helpers.real_models import find_real_model

    started = time.perf_counter()
    found = {
        name: find_real_model(short) for name, short in (("SmolLM2-135M (GGUF)", "smollm2"), ("MiniLM-L6", "minilm"))
    }
    real = {name: path for name, path in found.items() if path is not None}
    if not real:
        real = {"a fixture": ROOT / "fixtures" / "gpt2-ln.Q8_0.gguf"}
    first = next(iter(real.values()))
    yield "# Speed, memory and bytes"
    yield ""
    yield "Written by `python -m benchmarks`; do not edit. CPU time (user and system) of fresh processes, one thread,"
    yield "files cached; the median of several, both sides of a ratio in turn. Peak memory is resident set size."
    yield ""
    yield f"{_processor()}, Python {platform.python_version()}, normsniff {__version__}, {_versions()}."
    yield ""
    yield "## Against the reference readers"
    yield ""
    rows = [*figures.start_up(), *figures.labels(real), *figures.arithmetic()]
    if not quick:
        rows += figures.headers(folder)
    yield from _table(("what", "normsniff", "reference", "ratio", "target", "met"), map(_cells, rows))
    missed = [row.what for row in rows if row.met is False]
    for beginning, why in _MISSES.items():
        if any(what.startswith(beginning) for what in missed):
            yield ""
            yield why
    yield ""
    yield "## Large models"
    yield ""
    yield "Llamas in BF16, mostly holes, with weights that look trained where the first batch of the plan reads."
    yield ""
    sizes = list(figures.sizes(folder, _SIZES[:2] if quick else _SIZES))
    header = ("model", "file", "read", "share", "CPU", "peak", "label")
    yield from _table(header, (_size_cells(one) for one in sizes))
    yield ""
    large = {f"{sizes[-1].name} safetensors": [str(folder / sizes[-1].name.replace(" ", ""))]}
    large |= {f"{sizes[1].name} safetensors, --full": ["--full", str(folder / sizes[1].name.replace(" ", ""))]}
    large |= {name: [str(path)] for name, path in real.items()}
    large |= {f"{name}, --full": ["--full", str(path)] for name, path in real.items()}
    large |= {path.name: [str(path)] for path in (folder / "inline.onnx", folder / "vocabulary.gguf") if path.exists()}
    cells = ((row.what, row.ours, row.target, _verdict(row)) for row in figures.memory(large))
    yield from _table(("what", "normsniff", "target", "met"), cells)
    yield ""
    if not quick:
        yield "## Growth"
        yield ""
        growth = figures.growth(folder, _COUNTS)
        _draw(growth, sizes)
        yield "![growth](benchmarks.png){.chart}"
        yield ""
        yield from _table(
            ("header of", *(f"{count:,} tensors" for count in _COUNTS), "exponent at the end"),
            (
                (name, *(f"{s * 1000:.1f} ms" for s in seconds), f"{figures.exponent(_COUNTS, seconds):.2f}")
                for name, seconds in growth.items()
            ),
        )
        yield ""
        yield "An exponent of 1 is linear, of 2 quadratic."
        yield ""
    yield from _ROOFLINE
    yield from _THREADS
    yield from _GPU
    functions, imports = figures.profile(first)
    yield f"## Where the time goes: a label of {first.name}"
    yield ""
    yield "Functions, with imports done (cProfile, own time; its overhead falls on what is called often):"
    yield ""
    yield from (f"    {line}" for line in functions)
    yield ""
    yield "Imports, by package (`-X importtime`, own time), which take the larger part of the process:"
    yield ""
    yield from (f"    {line}" for line in imports)
    yield ""
    yield f"The whole run took {(time.perf_counter() - started) / 60:.0f} minutes."


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(header)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _cells(row: Row) -> tuple[str, ...]:
    return row.what, row.ours, row.reference, row.ratio, row.target, _verdict(row)


def _verdict(row: Row) -> str:
    return "" if row.met is None else "yes" if row.met else "**no**"


def _size_cells(one: Size) -> tuple[str, ...]:
    return (
        one.name, f"{one.file_size / 1e9:.2f} GB", f"{one.bytes_read / 1e6:.1f} MB",
        f"{one.bytes_read / one.file_size:.2%}", f"{one.cost.cpu * 1000:.0f} ms", f"{one.cost.peak:.0f} MiB", one.label,
    )  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> str:
    names = ("numpy", "ml_dtypes", "click", "msgspec", "gguf", "onnx", "safetensors", "h5py")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _draw(growth: dict[str, list[float]], sizes: list[Size]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, seconds in growth.items():
        left.plot(_COUNTS, [s * 1000 for s in seconds], "o-", label=name)
    left.set(xscale="log", yscale="log", xlabel="tensors", ylabel="CPU ms", title="header")
    left.legend()
    gigabytes: list[Any] = [one.file_size / 1e9 for one in sizes]
    right.plot(gigabytes, [one.bytes_read / 1e6 for one in sizes], "o-", label="MB read")
    right.plot(gigabytes, [one.cost.cpu * 100 for one in sizes], "s-", label="CPU, units of 10 ms")
    right.plot(gigabytes, [one.cost.peak for one in sizes], "^-", label="peak MiB")
    right.set(xlabel="file, GB", title="label", ylim=(0, None))
    right.legend(loc="lower center", ncols=3, fontsize="small")
    figure.savefig(ROOT / "docs" / "benchmarks.png", dpi=110)


if __name__ == "__main__":
    main()
