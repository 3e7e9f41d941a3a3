"""What a label of a remote model costs: requests, bytes and seconds, from a server on loopback with latency added.

    python -m benchmarks.remote [--latency MS] [--runs N]

Large models are sparse files whose holes the server fills with noise; real ones are taken where their packages are
installed. Beside each single file stands what the same label costs through a file object of fsspec with its default
read-ahead, which is how a reader that knows no ranges would do it. Times are medians of N runs after one to warm up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np

from benchmarks.synthetic import write_gguf
from normsniff import sniff
from tests.helpers.real_models import find_real_model
from tests.helpers.servers import RangeServer
from tests.helpers.sparse import llama, write_safetensors, write_sharded

ROOT = Path(__file__).parent.parent
TOLD = ("declared", "layout")
REAL = {"minilm": "MiniLM, safetensors", "smollm2": "SmolLM2, GGUF", "flan-t5-encoder": "Flan-T5 encoder, ONNX"}


def enlarge_keras(source: Path, target: Path, times: int) -> None:
    """Write a .keras archive like `source` whose axes are `times` as long; its weights are holes."""
    with zipfile.ZipFile(source) as small, tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.weights.h5"
        with h5py.File(small.open("model.weights.h5")) as old, h5py.File(weights, "w") as new:

            def copy(name: str, entry: Any) -> None:
                if isinstance(entry, h5py.Group):
                    made = new.require_group(name)
                else:
                    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    space = h5py.h5s.create_simple(tuple(n * times for n in entry.shape))
                    made = h5py.Dataset(
                        h5py.h5d.create(new.require_group(str(Path(name).parent)).id, Path(name).name.encode(),
                                        entry.id.get_type(), space, layout)
                    )  # fmt: skip
                for key, value in entry.attrs.items():
                    made.attrs[key] = value

            old.visititems(copy)
        with zipfile.ZipFile(target, "w") as large:
            large.write(weights, "model.weights.h5")
            for name in ("config.json", "metadata.json"):
                large.writestr(name, small.read(name))


def measure(server: RangeServer, label: Callable[[], Any], runs: int) -> tuple[int, int, float]:
    """Return requests, bytes and seconds of a label."""
    latency, seconds = server.latency, []
    for _ in range(runs + 1):
        server.requests = []
        started = time.perf_counter()
        label()
        seconds.append(time.perf_counter() - started)
    server.latency = latency
    return len(server.requests), server.sent, statistics.median(seconds[1:])


def cases(folder: Path) -> Sequence[tuple[str, str, tuple[str, ...] | None]]:
    """Write or find the models; return words, paths below the folder, and the evidence to ask for (None: all)."""
    (folder / "sharded").mkdir()
    write_sharded(folder / "sharded", llama(19), 5)
    write_safetensors(folder / "single.safetensors", llama(2))
    write_gguf(folder / "vocabulary.gguf")
    enlarge_keras(ROOT / "fixtures" / "gpt2-ln.f16.keras", folder / "large.keras", 16)
    index = "sharded/model.safetensors.index.json"
    found = [
        ("8.2 GB safetensors in 5 shards, header and scales", index, TOLD),
        ("8.2 GB safetensors in 5 shards", index, None),
        ("1.3 GB safetensors, header and scales", "single.safetensors", TOLD),
        ("1.3 GB safetensors", "single.safetensors", None),
        ("GGUF header of 150,000 tokens and 280,000 merges", "vocabulary.gguf", TOLD),
        ("Keras archive, header and scales", "large.keras", TOLD),
        ("Keras archive", "large.keras", None),
    ]
    for name, words in REAL.items():
        path = find_real_model(name)
        if path is not None:
            (folder / path.name).symlink_to(path)
            found += [(f"{words}, header and scales", path.name, TOLD), (words, path.name, None)]
    return found


def main() -> None:
    """Print a table in Markdown."""
    options = argparse.ArgumentParser()
    options.add_argument("--latency", type=float, default=30, help="milliseconds before every answer")
    options.add_argument("--runs", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name, RangeServer(Path(name)) as server:
        server.latency = given.latency / 1000
        noise = np.random.default_rng(0).normal(0, 0.02, 999_983).astype(np.float32)
        server.noise = (noise.view(np.uint32) >> 16).astype("<u2").view(np.uint8)
        print(f"latency {given.latency:g} ms a request, median of {given.runs} runs\n")
        print("| model | of MB | requests | MB | s | fsspec file: requests | MB | s |")
        print("|---|---|---|---|---|---|---|---|")
        for words, path, evidence in cases(Path(name)):
            url = server.url(path)
            kinds: dict[str, Any] = {} if evidence is None else {"evidence": evidence}
            size = (sniff(url, **kinds).file_size or 0) / 1e6
            ours = measure(server, lambda: sniff(url, **kinds), given.runs)  # noqa: B023 - called at once
            row = f"| {words} | {size:,.1f} | {ours[0]} | {ours[1] / 1e6:.2f} | {ours[2]:.2f} |"
            if path.startswith("sharded"):
                print(f"{row} | | |", flush=True)
                continue

            def naive() -> None:
                with fsspec.open(url) as file:  # noqa: B023
                    sniff(file, **kinds)  # noqa: B023

            theirs = measure(server, naive, 1)
            print(f"{row} {theirs[0]} | {theirs[1] / 1e6:.2f} | {theirs[2]:.2f} |", flush=True)
        server.shutdown()


if __name__ == "__main__":
    main()
