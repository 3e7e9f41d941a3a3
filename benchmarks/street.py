"""What one label costs, as ratios measured in one run: time and memory against bare imports and the reference readers.

    python -m benchmarks.street [MODEL...]

Without arguments it takes the fixtures and, where their packages are installed, SmolLM2 and MiniLM. Every figure is the
median of several fresh processes: CPU seconds (user + system) and peak resident memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

RUNS = 5


@dataclass(frozen=True)
class Cost:
    """Median cost of a process."""

    cpu: float
    peak: float


def cost(*command: str) -> Cost:
    """Run a command several times; the first run only warms the cache."""
    cpu, peak = [], []
    for run in range(RUNS + 1):
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        if run:
            cpu.append(usage.ru_utime + usage.ru_stime)
            peak.append(usage.ru_maxrss / 1024)
    return Cost(statistics.median(cpu), statistics.median(peak))


def reference(path: Path) -> list[str] | None:
    """Return a command that merely opens the file with the reference reader of its format."""
    code = {
        ".gguf": f"import gguf; gguf.GGUFReader({str(path)!r})",
        ".safetensors": f"from safetensors import safe_open; list(safe_open({str(path)!r}, 'np').keys())",
        ".onnx": f"import onnx; onnx.load({str(path)!r})",
        ".h5": f"import h5py; h5py.File({str(path)!r}).visit(print)",
    }.get(path.suffix)
    return None if code is None else ["-c", code]


def models(given: list[str]) -> list[Path]:
    """Return the models to measure."""
    if given:
        return [Path(name) for name in given]
    from conftest import find_real_model

    real = [find_real_model(name) for name in ("smollm2", "minilm", "flan-t5-encoder")]
    return [path for path in real if path is not None] or [ROOT / "fixtures" / "gpt2-ln.Q8_0.gguf"]


def row(name: str, one: Cost, base: Cost) -> None:
    """Print one line of the table."""
    print(f"{name:<58} {one.cpu * 1000:7.0f} ms CPU  {one.cpu / base.cpu:6.2f}x  {one.peak:7.1f} MiB")


def main() -> None:
    """Measure and print."""
    base = cost("-c", "import numpy, click")
    row("python -c 'import numpy, click'", base, base)
    row("python -c 'import click'", cost("-c", "import click"), base)
    row("python -c pass", cost("-c", "pass"), base)
    row("import normsniff", cost("-c", "import normsniff"), base)
    row("normsniff --help", cost("-m", "normsniff", "--help"), base)
    for path in models(sys.argv[1:]):
        print(f"\n{path.name}")
        row("  normsniff", cost("-m", "normsniff", str(path)), base)
        row(
            "  normsniff, header and scales only",
            cost("-m", "normsniff", "--evidence", "declared,layout", str(path)),
            base,
        )
        if (command := reference(path)) is not None:
            row("  reference reader, merely opening", cost(*command), base)
        done = subprocess.run(
            [sys.executable, "-m", "normsniff", "--json", str(path)], capture_output=True, text=True, check=True
        )
        record = json.loads(done.stdout)
        read, size = record["bytes_read"], record["file_size"]
        print(f"  bytes read {read:,} of {size:,} ({read / size:.1%}); label {record['label']}")


if __name__ == "__main__":
    main()
