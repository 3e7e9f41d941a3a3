"""How often an addition to stored scales is found from their values alone, and how often one that was not made.

    python -m benchmarks.scale_offset

The scales of the trained fixtures and of the installed real models, pooled as `normsniff check` pools them, are
rounded to a type as if they had been trained in it, stored as they are or minus one, and then shifted in the same type
or in float32. Nothing of `normsniff.checks.history` was fitted to them: its threshold is a likelihood ratio that was
chosen before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import normsniff
from normsniff.checks.history import history
from tests.helpers.manifest import models
from tests.helpers.real_models import REAL_MODELS, find_real_model

TYPES: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
JITTER = 0.02  # relative: scales minus one that were trained so lie on no grid of full scales; bfloat16 rounds by 0.004


def groups(path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield the effective scales of a model, pooled over its blocks, if they were trained."""
    found: dict[tuple[str, str], list[NDArray[Any]]] = {}
    with normsniff.norms(path, dtype=np.float64) as norms:
        for one in norms:
            if one.scale is not None:
                found.setdefault((one.component, re.sub(r"\d+", "#", one.name)), []).append(one.scale.reshape(-1))
    for parts in found.values():
        pooled = np.concatenate(parts)
        if np.isfinite(pooled).all() and np.ptp(pooled) > 0:
            yield pooled


def shifted(values: NDArray[Any], number: int, kind: Any) -> NDArray[np.float64]:
    """Add 1 as often as `number` says (or subtract it), rounding to `kind` each time."""
    for _ in range(abs(number)):
        values = (values.astype(kind) + kind(np.sign(number))).astype(kind)
    return values.astype(kind).astype(np.float64)


def main() -> None:
    """Print the table, as Markdown."""
    paths = [one.path for one in models() if one.model.partition("-")[0] not in ("random", "batchnorm", "groupnorm")]
    paths += [path for short in REAL_MODELS if (path := find_real_model(short)) is not None]
    pooled = [group for path in paths for group in groups(path)]
    random = np.random.default_rng(0)
    found: dict[tuple[str, str, str, int], Counter[str]] = {}
    for gamma in pooled:
        w = (gamma - 1) * (1 + random.uniform(-JITTER, JITTER, gamma.shape))
        for trained, kind in TYPES.items():
            for stored, values in (("γ", gamma), ("γ − 1", w)):
                base = values.astype(kind)
                for wide in dict.fromkeys((trained, "float32")):
                    for number in (0, 1, 2, -1):
                        told = history(shifted(base, number, TYPES[wide]))
                        said = 0 if told is None else told.added
                        count = found.setdefault((trained, stored, wide, number), Counter())
                        count["all"] += 1
                        count["right" if said == number else "wrong" if said else "silent"] += 1
                        count["strong"] += bool(told and said and told.strong)
    print(f"{len(pooled)} groups of norms of {len(paths)} models\n")
    print(
        "| trained in | stored | shifted in | by | right | strong | silent | wrong |\n|---|---|---|---|---|---|---|---|"
    )
    for (trained, stored, wide, number), n in found.items():
        by = f"{number:+d}" if number else "nothing"
        share = {key: f"{n[key] / n['all']:.0%}" for key in ("right", "strong", "silent", "wrong")}
        print(f"| {trained} | {stored} | {wide} | {by} | {' | '.join(share.values())} |")


if __name__ == "__main__":
    main()
