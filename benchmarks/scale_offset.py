"""How often an addition to stored scales is found from their values alone, and how often one that was not made.

    python -m benchmarks.scale_offset

The scales of the trained fixtures and of the installed real models, pooled as `normsniff check` pools them, are
rounded to a type as if they had been trained in it, stored as they are or minus one, and then shifted in the same type
or in float32. Nothing of `normsniff.checks.history` was fitted to them: its threshold is a likelihood ratio that was
chosen before.

A second table asks what one place alone tells where its last bits tell nothing: at which odds of its values it would
have to be believed to find a shift, and how many clean places would be believed, too. The places are those of the
models of `calibration.scales` in bfloat16; the largest odds of a clean place of the first models stand below it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import normsniff
from calibration.scales import corpus
from normsniff.checks.history import CERTAIN, STEPS, history
from normsniff.checks.stored import log_odds
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


def odds(values: NDArray[np.float64], native: int, number: int) -> tuple[float, bool]:
    """Return the log odds that a number was added, and whether the last bits tell it."""
    told = history(values)
    ratios = dict.fromkeys(STEPS, 0.0) if told is None else told.ratios
    return log_odds(values, ratios, (native,), number, 0), ratios[number] >= CERTAIN


def alone(pooled: Sequence[NDArray[np.float64]]) -> None:
    """Print the second table."""
    kind = TYPES["bfloat16"]
    places = [(native, one.astype(kind)) for model in corpus() for native, some in model.native.items() for one in some]
    print("\n| by | places | the last bits tell | believed from odds of | found | clean places believed |")
    print("|---|---|---|---|---|---|")
    for number in (1, -1):
        clean = np.array([odds(shifted(base, 0, kind), native, number)[0] for native, base in places])
        moved = [odds(shifted(base, number, kind), native, number) for native, base in places]
        told = np.array([one[1] for one in moved])
        for least in (1, 19, 1000):
            found = told | np.array([one[0] >= np.log(least) for one in moved])
            print(
                f"| {number:+d} | {len(places)} | {told.mean():.0%} | {least:,} | {found.mean():.0%}"
                f" | {np.mean(clean >= np.log(least)):.1%} |"
            )
    for number in (1, -1):
        most = max(odds(shifted(gamma, 0, np.float32), 0, number)[0] for gamma in pooled)
        print(f"\nclean places of the models above: odds of at most {np.exp(most):.1f} for {number:+d}")


def main() -> None:
    """Print the tables, as Markdown."""
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
    alone(pooled)


if __name__ == "__main__":
    main()
