"""Run both experiments and write their tables into docs/paper.md.

    python -m benchmarks.paper [--only untrained|trained] [--keep]

From the root of the repository, with the group `calibration` (torch, transformers) and the packages of `models`.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "paper.md"
SEED = 0


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description="Reproduce the paper's checks.")
    parser.add_argument("--only", choices=("untrained", "trained"), help="one of the two experiments")
    parser.add_argument("--keep", action="store_true", help="print the tables, leave docs/paper.md as it is")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: figures are for one thread

    import numpy as np
    import torch
    import transformers

    import normsniff

    from .checkpoints import checkpoints
    from .networks import NETWORKS
    from .report import fill, trained_tables, untrained_tables
    from .runs import measure_trained, measure_untrained

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    wall, cpu = time.perf_counter(), time.process_time()
    tables: dict[str, str] = {}
    calibration = ""
    if options.only != "trained":
        untrained = []
        for i, network in enumerate(NETWORKS):
            untrained.append(measure_untrained(network, SEED + i))
            _say(network.name, untrained[-1].seconds)
        tables |= untrained_tables(untrained)
        calibration = untrained[-1].label.calibration
    if options.only != "untrained":
        trained = []
        for i, checkpoint in enumerate(checkpoints()):
            trained.append(measure_trained(checkpoint, SEED + i))
            _say(checkpoint.name, trained[-1].seconds)
        tables |= trained_tables(trained)
        calibration = trained[-1].after.label.calibration
    if not options.only:
        tables["run"] = (
            f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
            f"numpy {np.__version__}, normsniff {normsniff.__version__} with calibration {calibration}; seeds from "
            f"{SEED}; one thread of a shared CPU: {time.process_time() - cpu:.0f} s of CPU, "
            f"{time.perf_counter() - wall:.0f} s of wall time."
        )
    print("\n\n".join(f"{name}\n\n{text}" for name, text in tables.items()))
    if not options.keep:
        DOCUMENT.write_text(fill(DOCUMENT.read_text("utf-8"), tables), "utf-8")


def _say(name: str, seconds: float) -> None:
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
