"""Time and peak memory of reading a GGUF header: normsniff against gguf.GGUFReader, in one run.

    python benchmarks/gguf_header.py [--repeat N] [FILE ...]

Without files it writes one with 150,000 tokens, 280,000 merges and 300 tensors. Each reading is a process
of its own, so that peak memory means something; CPU time is that of the reading alone, without imports, and
the median of N runs (gguf.GGUFReader takes many seconds a run, so it gets one).
"""

from __future__ import annotations

import argparse
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TOKENS, MERGES, TENSORS = 150_000, 280_000, 300

CHILD = """
import sys, time
from pathlib import Path
reader, path = sys.argv[1], Path(sys.argv[2])
if reader == "normsniff":
    from normsniff.formats import gguf
    from normsniff.limits import Limits
    from normsniff.source import FileSource
    read = lambda: gguf.read(FileSource(path), Limits())
else:
    from gguf import GGUFReader
    read = lambda: GGUFReader(path)
start = time.process_time()
result = read()
seconds = time.process_time() - start
status = Path("/proc/self/status").read_text()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
print(seconds, peak, len(result.tensors))
"""


def write_synthetic(path: Path, vocabulary: int = TOKENS) -> None:
    """Write a file whose header is as heavy as those of large vocabularies, with tiny tensors."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def array(key: str, kind: int, count: int, body: bytes) -> bytes:
        return text(key) + struct.pack("<IIQ", 9, kind, count) + body

    tokens = b"".join(text(f"tok{i:x}") for i in range(vocabulary))
    merges = b"".join(text(f"a{i:x} b{i % 977:x}") for i in range(MERGES))
    infos = b"".join(text(f"blk.{i}.attn_norm.weight") + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(TENSORS))
    header = b"GGUF" + struct.pack("<IQQ", 3, TENSORS, 4)
    header += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    header += array("tokenizer.ggml.tokens", 8, vocabulary, tokens)
    header += array("tokenizer.ggml.token_type", 5, vocabulary, bytes(4 * vocabulary))
    header += array("tokenizer.ggml.merges", 8, MERGES, merges)
    header += infos
    path.write_bytes(header + bytes(-len(header) % 32 + 32 * TENSORS))


def measure(reader: str, path: Path) -> tuple[float, float, int]:
    """Return CPU milliseconds, peak RSS in MiB and the number of tensors found."""
    done = subprocess.run([sys.executable, "-c", CHILD, reader, str(path)], capture_output=True, text=True, check=True)
    seconds, peak, tensors = done.stdout.split()
    return float(seconds) * 1000, int(peak) / 1024, int(tensors)


def report(path: Path, repeat: int) -> None:
    """Print one file's figures."""
    ours = [measure("normsniff", path) for _ in range(repeat)]
    theirs = measure("gguf", path)
    if ours[0][2] != theirs[2]:
        raise SystemExit(f"{path.name}: {ours[0][2]} tensors found, gguf finds {theirs[2]}")
    milliseconds, peak = statistics.median(run[0] for run in ours), max(run[1] for run in ours)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {theirs[2]} tensors")
    print(f"  normsniff        {milliseconds:10.1f} ms CPU {peak:8.1f} MiB peak RSS")
    print(f"  gguf.GGUFReader  {theirs[0]:10.1f} ms CPU {theirs[1]:8.1f} MiB peak RSS")
    print(f"  ratio            {theirs[0] / milliseconds:10.1f} x      {theirs[1] / peak:8.1f} x")


def main() -> None:
    """Measure the given files, or a synthetic one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = options.files
        if not files:
            files = [Path(folder) / "synthetic.gguf"]
            write_synthetic(files[0])
        for path in files:
            report(path, options.repeat)


if __name__ == "__main__":
    main()
