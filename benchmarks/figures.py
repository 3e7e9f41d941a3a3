"""The figures: each function measures one thing side by side with its reference, in one run, and returns rows."""

from __future__ import annotations

import cProfile
import math
import pstats
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import normsniff

from . import synthetic
from .costs import Cost, command, inside, whole

ROOT = Path(__file__).parent.parent
RUNS = 5
_BASE = "import numpy, ml_dtypes, click, msgspec"
_OURS = """
from pathlib import Path
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import FileSource
import importlib; importlib.import_module({module!r})
"""


class Row(NamedTuple):
    """One figure against its target; `better` is the ratio that the target speaks of, or None without one."""

    what: str
    ours: str
    reference: str
    ratio: str
    target: str
    met: bool | None


def start_up() -> Iterator[Row]:
    """Help and version against importing click."""
    arguments = {name: command(f"--{name}") for name in ("help", "version")}
    found = whole({"click": "import click", **arguments}, 3 * RUNS)
    for name in arguments:
        yield _at_most(f"`normsniff --{name}`", found[name], found["click"], "`import click`", 1.3)


def labels(models: dict[str, Path]) -> Iterator[Row]:
    """Labelling real files, cached, against importing what it needs."""
    found = whole({"base": _BASE, **{name: command(str(path)) for name, path in models.items()}}, 3 * RUNS)
    for name in models:
        yield _at_most(f"label of {name}", found[name], found["base"], f"`{_BASE}`", 2)


def arithmetic() -> Iterator[Row]:
    """The kernel over 64 MB of stored numbers against numpy's sum over the same bytes, both in memory and by blocks."""
    setup = """
import numpy as np, ml_dtypes
from normsniff import decode, kernel
from normsniff.checkpoint import TensorInfo
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
kind = np.dtype({kind!r}) if {kind!r} == "f4" else np.dtype(ml_dtypes.bfloat16)
n, d = (1 << 26) // kind.itemsize // 4096, 4096
values = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32).astype(kind)
shape = (n, d) if {axis} else (d, n)
data = values.tobytes()
tensor = TensorInfo("w", {dtype!r}, shape, Extent(BytesSource(data), 0, len(data)))
direction = np.full(d, d**-0.5)
def ours():
    total = None
    for rows in decode.vectors(tensor, {axis}, Limits()):
        part = kernel.shadow(rows, 1, direction)
        total = part if total is None else total + part
def theirs():
    np.frombuffer(data, kind).sum(dtype=np.float32)
ours(), theirs()
"""
    for dtype, kind in (("F32", "f4"), ("BF16", "bf16")):
        for axis, words, least in ((1, "rows (n × d)", 0.5), (0, "columns (d × f)", 0.25)):
            text = setup.format(kind=kind, dtype=dtype, axis=axis)
            found = inside({"ours": (text, "ours()"), "sum": (text, "theirs()")}, RUNS)
            share = found["sum"].cpu / found["ours"].cpu
            yield Row(
                f"arithmetic, {dtype}, {words}", f"{0.0671 / found['ours'].cpu:.1f} GB/s",
                f"{0.0671 / found['sum'].cpu:.1f} GB/s (`numpy.sum`)", f"{share:.0%}", f"≥ {least:.0%}", share >= least,
            )  # fmt: skip


def headers(folder: Path) -> Iterator[Row]:
    """Headers against the reference readers."""
    gguf, onnx, tensors = folder / "vocabulary.gguf", folder / "inline.onnx", folder / "many.safetensors"
    synthetic.write_gguf(gguf)
    synthetic.write_onnx(onnx)
    synthetic.write_safetensors(tensors, {f"model.layers.{i}.norm.weight": (8,) for i in range(1000)})
    keras = ROOT / "fixtures" / "gpt2-ln.f16.h5"
    ours = {
        "gguf": _header("gguf", gguf), "onnx": _header("onnx.reader", onnx, "onnx"),
        "safetensors": _header("safetensors", tensors), "h5": _header("keras.reader", keras),
    }  # fmt: skip
    found = inside(ours, RUNS)
    reader = inside({"gguf": ("import gguf", f"gguf.GGUFReader({str(gguf)!r})")}, 1)["gguf"]
    what = f"header of a GGUF with {synthetic.TOKENS:,} tokens"
    yield _at_least(what, found["gguf"], reader, "`gguf.GGUFReader`", 150)
    lean = reader.peak / found["gguf"].peak
    yield Row(
        f"{what}, peak memory", f"{found['gguf'].peak:.0f} MiB", f"{reader.peak:.0f} MiB (`gguf.GGUFReader`)",
        f"{lean:.1f}×", "≥ 15×", lean >= 15,
    )  # fmt: skip
    load = inside({"onnx": ("import onnx", f"onnx.load({str(onnx)!r})")}, RUNS)["onnx"]
    yield _at_least("header of an inline ONNX of 201 MB", found["onnx"], load, "`onnx.load`", 20)
    others = inside(
        {
            "safe_open": ("import numpy; from safetensors import safe_open", _SAFE_OPEN.format(path=str(tensors))),
            "h5py": ("import h5py", f"h5py.File({str(keras)!r}).visititems(lambda name, item: None)"),
        },
        RUNS,
    )
    what = "header of 1,000 safetensors tensors"
    yield _plain(what, found["safetensors"], others["safe_open"], "`safe_open`, keys, shapes, dtypes")
    yield _plain("header of a Keras .h5 (fixture)", found["h5"], others["h5py"], "`h5py`, `visititems`")


_SAFE_OPEN = """
file = safe_open({path!r}, "np")
for key in file.keys():
    part = file.get_slice(key)
    part.get_shape(), part.get_dtype()
"""


class Size(NamedTuple):
    """One label of a large model: bytes of the file and read, cost, label."""

    name: str
    file_size: int
    bytes_read: int
    cost: Cost
    label: str


def sizes(folder: Path, names: tuple[str, ...]) -> Iterator[Size]:
    """Label sparse models of growing size, cached."""
    for name in names:
        path = synthetic.write_llama(folder / name.replace(" ", ""), *synthetic.LLAMAS[name])
        record = normsniff.sniff(path)
        cost = whole({"ours": command(str(path))}, RUNS)["ours"]
        label = f"{record.label} {record.confidence or 0:.1%}"
        yield Size(name, record.file_size or 0, record.bytes_read or 0, cost, label)


def memory(models: dict[str, list[str]]) -> Iterator[Row]:
    """Peak memory of whole labels."""
    for name, cost in whole({name: command(*arguments) for name, arguments in models.items()}, 1).items():
        yield Row(f"peak memory, {name}", f"{cost.peak:.0f} MiB", "", "", "< 143 MiB (150 MB)", cost.peak < 143)


def growth(folder: Path, counts: tuple[int, ...]) -> dict[str, list[float]]:
    """Return CPU seconds for headers of so many tensors, by format."""
    found: dict[str, list[float]] = defaultdict(list)
    for count in counts:
        tensors, gguf = folder / f"{count}.safetensors", folder / f"{count}.gguf"
        synthetic.write_safetensors(tensors, {f"model.layers.{i}.norm.weight": (8,) for i in range(count)})
        synthetic.write_gguf(gguf, 10, 10, count)
        for name, path in (("safetensors", tensors), ("gguf", gguf)):
            found[name].append(inside({name: _header(name, path)}, 3)[name].cpu)
    return found


def _header(module: str, path: Path, needs: str = "sys") -> tuple[str, str]:
    setup = _OURS.format(module=f"normsniff.formats.{module}") + f"import {needs}"
    return setup, f"read_checkpoint(FileSource(Path({str(path)!r})), Limits())"


def exponent(counts: tuple[int, ...], seconds: list[float]) -> float:
    """Return the slope between the last two points on logarithmic axes: 1 is linear, 2 quadratic."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(counts[-1] / counts[-2])


def profile(path: Path, lines: int = 12) -> tuple[list[str], list[str]]:
    """Return where a label's time goes: the functions with most of it, and the imports with most of it."""
    normsniff.sniff(path)
    profiler = cProfile.Profile()
    profiler.enable()
    normsniff.sniff(path)
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # not in its stub
    total = sum(entry[2] for entry in stats.values())
    worst = sorted(stats.items(), key=lambda item: -item[1][2])[:lines]
    functions = [
        f"{entry[2] / total:6.1%}  {entry[0]:>7,} calls  {Path(file).name if line else ''}{':' if line else ''}{name}"
        for (file, line, name), entry in worst
    ]
    traced = [sys.executable, "-X", "importtime", "-m", "normsniff", str(path)]
    told = subprocess.run(traced, capture_output=True, text=True, check=True).stderr.splitlines()
    groups: dict[str, int] = defaultdict(int)
    for line in told:
        own, _, module = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():
            groups[module.strip().partition(".")[0]] += int(own)
    spent = sum(groups.values())
    ours = sorted(groups.items(), key=lambda item: -item[1])[:lines]
    return functions, [
        f"{microseconds / spent:6.1%}  {microseconds / 1000:7.1f} ms  {name}" for name, microseconds in ours
    ]


def _words(cost: Cost) -> str:
    return f"{cost.cpu * 1000:.1f} ms, {cost.peak:.0f} MiB"


def _at_most(what: str, ours: Cost, reference: Cost, name: str, most: float) -> Row:
    ratio = ours.cpu / reference.cpu
    return Row(what, _words(ours), f"{_words(reference)} ({name})", f"{ratio:.2f}×", f"≤ {most}×", ratio <= most)


def _at_least(what: str, ours: Cost, reference: Cost, name: str, least: float) -> Row:
    ratio = reference.cpu / ours.cpu
    return Row(
        what, _words(ours), f"{_words(reference)} ({name})", f"{ratio:.0f}× faster", f"≥ {least}×", ratio >= least
    )


def _plain(what: str, ours: Cost, reference: Cost, name: str) -> Row:
    ratio = reference.cpu / ours.cpu
    return Row(what, _words(ours), f"{_words(reference)} ({name})", f"{ratio:.2g}× as fast", "", None)
