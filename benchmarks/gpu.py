"""On a machine with an NVIDIA GPU: the kernel on real device arrays, labels against the CPU's, whole models timed.

    python -m benchmarks.gpu [--install] [--out FILE] [--size "8 GB"]

From the root of the repository. --install installs CuPy for CUDA 12 first. It takes less than eight minutes and 8 GB of
disk, and stops before a step that the time left would not carry. The results are one JSON object: what ran, what
differed and by how much, and seconds on the GPU beside seconds on one CPU core. The exit status is 1 if anything
differs by more than its tolerance. With --stand-in the "device" is the CPU and its arrays are torch's, so that the
script itself can be tried where there is no GPU; its timings then mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core, said before numpy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from .synthetic import LLAMAS, llama, write_safetensors

_LIMIT = 460.0
"""Seconds for all steps."""
_TOLERANCE = 2e-3
"""Largest relative difference of ρ, ρ_L and ν: products are float32, and iterations end a little apart."""
_SHAPES = ((256, 64), (64, 256), (128, 768), (2048, 512), (128, 4096))
_REAL = ("minilm", "smollm2")


def main() -> None:
    """Run the steps and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="The kernel on an NVIDIA GPU.")
    parser.add_argument("--install", action="store_true", help="pip install cupy-cuda12x first")
    parser.add_argument("--stand-in", action="store_true", help="torch on the CPU in the GPU's place")
    parser.add_argument("--size", choices=LLAMAS, default="8 GB", help="of the synthetic model")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    given = parser.parse_args()
    if given.install:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "cupy-cuda12x"], check=True)
    found = run(given.size, stand_in=given.stand_in)
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    sys.exit(0 if found["agrees"] else 1)


def run(size: str, *, stand_in: bool) -> dict[str, Any]:
    """Return the results of all steps.

    Args:
        size: key of `synthetic.LLAMAS`.
        stand_in: whether the CPU stands in for the GPU.
    """
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": platform.machine(), "device": _device_name(stand_in), "stand_in": stand_in}
    device = "cpu" if stand_in else "cuda"
    steps: list[tuple[str, float, Callable[[], Any]]] = [
        ("arrays", 20, lambda: list(_arrays(stand_in))),
        ("labels", 30, lambda: list(_labels(device))),
        ("whole", 200, lambda: _whole(size, device)),
    ]
    for name, seconds, step in steps:
        left = _LIMIT - (time.perf_counter() - started)
        found[name] = step() if left > seconds else f"left out: {left:.0f} s were left, and it may take {seconds:.0f}"
    rows = [row for name in ("arrays", "labels") if isinstance(found[name], list) for row in found[name]]
    whole = [found["whole"]] if isinstance(found["whole"], dict) else []
    found["agrees"] = all(row["agrees"] for row in (*rows, *whole))
    found["seconds"] = round(time.perf_counter() - started, 1)
    return found


def _device_name(stand_in: bool) -> str:
    if stand_in:
        return "none: the CPU stands in"
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


def _namespaces(stand_in: bool) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield a name, and what moves a numpy array to the device."""
    if not stand_in:
        import cupy

        yield "cupy", cupy.asarray
    try:
        import torch
    except ImportError:
        return
    if stand_in or torch.cuda.is_available():
        yield "torch", lambda array: torch.asarray(array, device="cpu" if stand_in else "cuda")


def _arrays(stand_in: bool) -> Iterator[dict[str, Any]]:
    """Yield how far the kernel's numbers on device arrays are from numpy's."""
    from normsniff import kernel

    rng = np.random.default_rng(0)
    for name, move in _namespaces(stand_in):
        for n, d in _SHAPES:
            learned = rng.standard_normal((n, 4)) @ rng.standard_normal((4, d)) * 0.7
            matrix = (rng.standard_normal((n, d)) + learned).astype(np.float32)
            v = kernel.dead_direction(rng.uniform(0.5, 2.0, d)).vector
            ours = (kernel.shadow(matrix, 1, v), kernel.learned_shadow(matrix, v))
            there, along = move(matrix), move(v)
            theirs = (kernel.shadow(there, 1, along), kernel.learned_shadow(there, along))
            pairs = [(one[0].rho, one[0].z, one[1].rho, one[1].nu) for one in (ours, theirs)]
            apart = max(_apart(a, b) for a, b in zip(*pairs, strict=True))
            yield {"library": name, "shape": [n, d], "apart": apart, "agrees": apart <= _TOLERANCE}


def _labels(device: Any) -> Iterator[dict[str, Any]]:
    """Yield how far labels and ρ of real models are from the CPU's."""
    from tests.helpers.real_models import find_real_model

    for name in _REAL:
        path = find_real_model(name)
        if path is None:
            yield {"model": name, "left_out": "its package is not installed (group `models`)", "agrees": True}
        else:
            yield {"model": name, **_compared(path, device)}


def _compared(path: Path, device: Any, **more: Any) -> dict[str, Any]:
    from normsniff import sniff

    sniff(path, device=device)  # the first call loads libraries and compiles what it needs
    seconds, records = [], []
    for where in ("cpu", device):
        started = time.perf_counter()
        records.append(sniff(path, device=where, **more))
        seconds.append(round(time.perf_counter() - started, 3))
    cpu, gpu = records
    apart = max((_apart(a.rho, b.rho) for a, b in zip(cpu.shadows, gpu.shadows, strict=True)), default=0.0)
    return {
        "labels": [cpu.label, gpu.label],
        "matrices": len(cpu.shadows),
        "apart": apart,
        "cpu_seconds": seconds[0],
        "device_seconds": seconds[1],
        "agrees": cpu.label == gpu.label and apart <= _TOLERANCE,
    }


def _whole(size: str, device: Any) -> dict[str, Any]:
    """Read every byte of a synthetic model of noise, on the CPU and on the device."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_safetensors(path, llama(*LLAMAS[size]))
        _fill_with_noise(path)
        return {"size": size, **_compared(path, device, budget=None)}


def _fill_with_noise(path: Path) -> None:
    """Write BF16 noise behind the header: 64 MB of it over and over, which no statistic of one matrix notices."""
    values = np.random.default_rng(1).standard_normal(1 << 25, dtype=np.float32)
    noise = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        stop = path.stat().st_size
        for at in range(start, stop, len(noise)):
            file.seek(at)
            file.write(noise[: stop - at])


def _apart(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return round(abs(a - b) / max(abs(a), abs(b), 1e-9), 6)


if __name__ == "__main__":
    main()
