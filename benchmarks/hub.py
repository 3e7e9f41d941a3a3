"""Measure what a label costs behind a network: requests, bytes, CPU and waiting, over loopback with latency added.

    python -m benchmarks.hub [--latency 0.03]

A server in this process counts; a process of its own asks. The models: a 7-billion-parameter Llama in three shards
(real shapes, matrices of zeros: no sample of them is sharp, so that more is read than of trained ones), and SmolLM2 and
MiniLM where their packages are installed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core

from normsniff import Workers, sniff
from tests.helpers.real_models import find_real_model
from tests.helpers.servers import RangeServer
from tests.helpers.sparse import llama, write_sharded

WAYS = {"header and scales": ("declared", "layout"), "with the kernel": ("declared", "layout", "kernel")}


def probe(url: str, evidence: tuple[str, ...]) -> tuple[str, float, float]:
    """Label one model; return the label, CPU seconds and seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    label = sniff(url, evidence=evidence).label  # type: ignore[arg-type]  # the words above
    return label, time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Serve, ask and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before every answer")
    latency = parser.parse_args().latency
    with tempfile.TemporaryDirectory() as folder, Workers(1) as workers:
        root = Path(folder)
        (root / "llama-7b").mkdir()
        write_sharded(root / "llama-7b", llama(32), 3)
        paths = ["llama-7b/model.safetensors.index.json"]
        for name in ("smollm2", "minilm"):
            real = find_real_model(name)
            if real is not None:
                (root / name).mkdir()
                (root / name / real.name).symlink_to(real)
                paths.append(f"{name}/{real.name}")
        server = RangeServer(root)
        print("| model | evidence | label | requests | MB | CPU s | s |\n|---|---|---|---|---|---|---|")
        for path in paths:
            workers.submit(probe, server.url(path), WAYS["with the kernel"]).result()  # libraries imported
            for way, evidence in WAYS.items():
                server.reset()
                server.latency = latency
                label, cpu, wall = workers.submit(probe, server.url(path), evidence).result()
                cost = f"{len(server.requests)} | {server.sent / 1e6:.2f} | {cpu:.2f} | {wall:.2f}"
                print(f"| {path.partition('/')[0]} | {way} | {label} | {cost} |", flush=True)


if __name__ == "__main__":
    main()
