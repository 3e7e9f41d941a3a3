"""What bounds the kernel's arithmetic: `python -m benchmarks.roofline`, for docs/benchmarks.md.

The parts that no implementation can leave out are timed alone, over the same 64 MB as the whole: numpy's sum, the
conversion to float32, squares of what is converted, and a product with two vectors (the direction, and its signs).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeAlias

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: one thread, as the package works

import ml_dtypes  # noqa: E402 - so are the other imports of numpy
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from normsniff import kernel  # noqa: E402

Float32: TypeAlias = NDArray[np.float32]

_BYTES = 1 << 26
_WIDTH, _PIECE = 4096, 1 << 16  # of a vector, and numbers worked on at a time, as `kernel.projections` does
_ROUNDS, _GROUPS, _BLOCKS = 9, 64, 16
_SUM = "`numpy.sum`"
_KINDS = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}


def parts(dtype: str) -> dict[str, Callable[[], object]]:
    """Return what is timed, by what it is called."""
    kind = _KINDS[dtype]
    values = np.random.default_rng(0).normal(size=_BYTES // kind.itemsize).astype(np.float32)
    stored = values.astype(kind)
    del values
    rows = stored.reshape(-1, _WIDTH)
    step = _PIECE // _WIDTH
    two = np.random.default_rng(1).normal(size=(_WIDTH, 2)).astype(np.float32)
    groups = np.random.default_rng(2).normal(size=(_GROUPS, 2, _WIDTH // _GROUPS)).astype(np.float32)
    direction = np.full(_WIDTH, _WIDTH**-0.5)
    pieces = [rows[at : at + step] for at in range(0, len(rows), step)]

    def each(*works: Callable[[Float32], object]) -> Callable[[], None]:
        def run() -> None:
            for piece in pieces:
                numbers = piece.astype(np.float32, copy=False)
                for work in works:
                    work(numbers)

        return run

    def squares(piece: Float32) -> object:
        return np.vecdot(piece, piece)

    def grouped(piece: Float32) -> object:
        return groups @ piece.reshape(step, _GROUPS, -1).transpose(1, 2, 0)

    return {
        _SUM: lambda: stored.sum(dtype=np.float32),
        "conversion to float32": each(),
        "and squares, summed a vector": each(squares),
        "and the product with two vectors": each(lambda piece: piece @ two),
        "and both": each(squares, lambda piece: piece @ two),
        "and both, the product in 64 groups": each(squares, grouped),
        "`kernel.shadow`": lambda: _shadows(rows, direction),
    }


def _shadows(rows: NDArray[Any], direction: NDArray[np.float64]) -> None:
    for block in np.array_split(rows, _BLOCKS):
        kernel.shadow(block.astype(np.float32, copy=False), 1, direction)


def main() -> None:
    """Print a table: GB/s, and the share of numpy's sum; the least CPU time of several rounds in turn."""
    print(f"| dtype | work | GB/s | share of {_SUM} |\n|---|---|---|---|")
    for dtype in _KINDS:
        works = parts(dtype)
        least = dict.fromkeys(works, float("inf"))
        for _ in range(_ROUNDS):
            for name, work in works.items():
                begun = time.process_time()
                work()
                least[name] = min(least[name], time.process_time() - begun)
        for name, seconds in least.items():
            share = least[_SUM] / seconds
            print(f"| {dtype} | {name} | {_BYTES / seconds / 1e9:.1f} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
