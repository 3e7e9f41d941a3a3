"""Time and peak memory of the largest headers: normsniff against safetensors.safe_open and gguf.GGUFReader, in one run.

    python -m benchmarks.headers [--repeat N] [--tensors N] [--vocabulary N]

A mixture-of-experts safetensors header (60,000 tensors) and a GGUF with a large vocabulary (256,000 tokens) are written
with holes for weights. Every reading is a process of its own, so that peak memory means something; times are CPU time
without imports, medians of the runs taken in turn. `sniff` is the whole street: names, evidence and verdict as well.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .conformance.cases import Case
from .synthetic import write_gguf

_READERS = {
    "normsniff": "from normsniff.inputs.opening import open_source\nread = lambda: len(open_source(path).tensors)",
    "normsniff sniff": "from normsniff import sniff\n"
    "read = lambda: sniff(path, evidence=('declared', 'layout')).tensors",
    "safetensors.safe_open": "from safetensors import safe_open\n"
    "def read():\n"
    "    with safe_open(path, framework='numpy') as file:\n"
    "        return sum(file.get_slice(k).get_shape() is not None and bool(file.get_slice(k).get_dtype())"
    " for k in file.keys())",
    "gguf.GGUFReader": "from gguf import GGUFReader\nread = lambda: len(GGUFReader(path).tensors)",
}
_CHILD = """
import sys, time
path = sys.argv[1]
{reader}
start = time.process_time()
found = read()
seconds = time.process_time() - start
status = open("/proc/self/status").read()
print(seconds, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), found)
"""


def experts(tensors: int, width: int = 64) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of a mixture of experts with about so many tensors."""
    yield "model.embed_tokens.weight", (512, width)
    layers = 60
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}.{norm}.weight", (width,)
        for leaf in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{at}.self_attn.{leaf}.weight", (width, width)
        for expert in range(max(1, (tensors // layers - 6) // 3)):
            for leaf, shape in (("gate_proj", (96, width)), ("up_proj", (96, width)), ("down_proj", (width, 96))):
                yield f"{at}.mlp.experts.{expert}.{leaf}.weight", shape


def measure(reader: str, path: Path) -> tuple[float, float, int]:
    """Return CPU milliseconds, peak RSS in MiB and the number of tensors found."""
    code = _CHILD.format(reader=_READERS[reader])
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    seconds, peak, found = done.stdout.split()
    return float(seconds) * 1000, int(peak) / 1024, int(found)


def report(path: Path, other: str, repeat: int) -> None:
    """Print the figures of one file: ours, the reference reader's, and their ratio."""
    names = ("normsniff", "normsniff sniff", other)
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for turn in range(repeat):
        for name in names:
            if name != "gguf.GGUFReader" or turn == 0:  # it takes many seconds a run
                runs[name].append(measure(name, path))
    found = {run[2] for several in runs.values() for run in several}
    if len(found) != 1:
        raise SystemExit(f"{path.name}: the readers do not agree on the number of tensors: {found}")
    print(f"{path.name}: {found.pop():,} tensors")
    median = {name: statistics.median(run[0] for run in several) for name, several in runs.items()}
    for name, several in runs.items():
        print(f"  {name:<22} {median[name]:>10.1f} ms CPU {max(run[1] for run in several):>8.1f} MiB peak RSS")
    print(f"  ratio                  {median[other] / median['normsniff']:>10.2f} x (whole street"
          f" {median[other] / median['normsniff sniff']:.2f} x)")  # fmt: skip


def main() -> None:
    """Write both files and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tensors", type=int, default=60_000)
    parser.add_argument("--vocabulary", type=int, default=256_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = Case("experts", "transformers", "", "", {}, dict(experts(options.tensors)))
        report(case.write(Path(folder)), "safetensors.safe_open", options.repeat)
        path = Path(folder) / "vocabulary.gguf"
        write_gguf(path, options.vocabulary)
        report(path, "gguf.GGUFReader", options.repeat)


if __name__ == "__main__":
    main()
