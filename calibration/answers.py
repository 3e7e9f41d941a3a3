"""What a user gets: kept weights through the whole pipeline, as `normsniff --evidence kernel` looks at them.

    python -m calibration.answers KEPT [--held] [--truth neither]

The tables of docs/calibration.md are made from features; this asks `sniff` itself of every snapshot of 300 steps and
more and of every treated copy. Of the half that no choice has seen only with `--held`, and once.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

import torch

from normsniff import sniff

from .heldout import SURE
from .raw import _copies
from .split import held
from .validate import TRAINED


def main() -> None:
    """Print what is answered, by kind of network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kept", type=Path, help="folder of weights, as `python -m calibration train` keeps them")
    parser.add_argument("--held", action="store_true", help="the half that no choice has seen instead of the other")
    parser.add_argument("--truth", default="neither", choices=("neither", "LayerNorm", "RMSNorm"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for file in sorted(given.kept.glob("run*.pt")):
        run = torch.load(file, weights_only=True)
        plan = run["plan"]
        if plan["truth"] != given.truth or held({**plan, "run": plan["index"]}) != given.held:
            continue
        kind = plan["norm"] if plan["source"] == "own" else plan["name"]
        for copy in _copies(plan, run["snapshots"]):
            if copy["state"] is None or copy["step"] < TRAINED:
                continue
            said = sniff(copy["state"], evidence="kernel")
            found[kind][said.label] += 1
            if said.label != "undetermined" and (said.confidence or 0) >= SURE:
                found[kind][f"sure of {said.label}"] += 1
    for kind, counts in sorted(found.items()):
        print(f"{kind}: {', '.join(f'{label} {n}' for label, n in counts.most_common())}")


if __name__ == "__main__":
    main()
