"""Kept weights through normsniff's own code path, to the numbers that features are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from normsniff.anatomy import describe
from normsniff.anatomy.parts import MatrixRole
from normsniff.evidence import substitutes
from normsniff.inputs.arrays import from_arrays
from normsniff.kernel import Peaks
from normsniff.limits import Limits
from normsniff.measure.pools import pool
from normsniff.measure.shadows import Measured, measure, read_vectors

from .treatments import NAMES, treat

POOLED: dict[str, tuple[MatrixRole, ...]] = {"roles": ("writer", "reader"), "shapes": ("unknown",)}


def observe(state: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the tool sees in these weights, once with names (and the configuration), once from shapes alone."""
    checkpoint = replace(from_arrays(state), config=config)
    return {view: _look(checkpoint, view) for view in POOLED}


def _look(checkpoint: Any, view: str) -> dict[str, Any]:
    anatomy = describe(checkpoint, parameters_alone=view == "shapes")
    vectors = read_vectors(anatomy, Limits())
    measured, _ = measure(anatomy, vectors.scales, Limits(), candidates=vectors.candidates)
    pools = [
        {"component": component, "role": role, "peaks": _peaks(peaks)}
        for component in anatomy.widths
        for role in POOLED[view]
        if (peaks := pool([m for m in measured if m.matrix.component == component], role)) is not None
    ]
    return {
        "basis": anatomy.basis,
        "widths": dict(anatomy.widths),
        "sites": len(anatomy.sites),
        "scale_spread": _short(vectors.scale_spread),
        "normed": sorted({site.component for site in anatomy.sites if site.role == "stream"}),
        "unlike": sorted(substitutes.find(checkpoint, anatomy)),
        "matrices": [_matrix(one) for one in measured],
        "pools": pools,
    }


def _matrix(one: Measured) -> dict[str, Any]:
    shadow, matrix = one.shadow, one.matrix
    return {
        "component": matrix.component,
        "role": matrix.role,
        "layer": matrix.layer,
        "axis": matrix.axis,
        "tensor": matrix.tensor.name,
        "direction": one.direction,
        "shape": list(matrix.tensor.shape),
        "tie": _short(one.tie),
        "bias": _short(one.bias),
        "d": shadow.d,
        "vectors": shadow.vectors,
        "rho": _short(shadow.rho),
        "z": _short(shadow.z),
        "relative_error": _short(shadow.relative_error, 2),
        "dispersion": _short(shadow.dispersion),
        "alignment": _short(shadow.alignment),
        "evenness": _short(shadow.evenness),
        "peaks": None if one.peaks is None else _peaks(one.peaks),
    }


def _peaks(peaks: Peaks) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(peaks)
    digits = {"concentration": 2}  # it only tells directions of few coordinates from others
    return {
        name: [_short(x, digits.get(name, 3)) for x in value] if isinstance(value, list | tuple) else value
        for name, value in found.items()
    }


def _short(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def work(kept: Path, out: Path, part: int = 0, parts: int = 1) -> None:
    """Look at every kept run that `out` does not hold, one JSON line a snapshot or treated copy."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(kept.glob("run*.pt"))[part::parts]:
        done = out / f"{file.stem}.jsonl"
        if done.exists():
            continue
        run = torch.load(file, weights_only=True)
        partial = done.with_suffix(".partial")
        with partial.open("w") as lines:
            print(json.dumps({"plan": run["plan"]}), file=lines)
            config = run["config"] and json.loads(run["config"])
            for copy in _copies(run["plan"], run["snapshots"]):
                state = copy.pop("state")
                seen = {} if state is None else observe(state, config)
                print(
                    json.dumps({"run": run["plan"]["index"], "truth": run["plan"]["truth"], **copy, **seen}), file=lines
                )
        partial.rename(done)


def _copies(plan: Mapping[str, Any], snapshots: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the snapshots, and three treated copies of the last one that training itself made."""
    yield from (dict(one) for one in snapshots)
    trained = [one for one in snapshots if one["treatment"] in ("none", "bf16-trained")]
    if snapshots[-1]["treatment"] == "diverged" or not trained:
        return
    last = max(trained, key=lambda one: int(one["step"]))
    for offset in range(3):
        name = NAMES[(plan["index"] * 3 + offset * 5) % len(NAMES)]
        yield {
            "step": last["step"],
            "treatment": name,
            "loss": None,
            "state": treat(last["state"], name, plan["index"]),
        }
