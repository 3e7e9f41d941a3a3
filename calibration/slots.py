"""Whether it helps to test readers without names along γ⁻¹ of the scale that numbers find beside them: it does not.

    python -m calibration.slots KEPT

Of the runs that choices may see, and the last snapshot of each, every place of a block (a matrix that recurs block by
block) is assigned a slot of scales by `ties.own`. The matrices' ratios along **1**, along γ⁻¹ of that slot and along
the true γ⁻¹, which only names tell, are averaged over a run, and the AUC says how well each average tells the norms
apart. docs/kernel.md, section 6, has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from normsniff import kernel
from normsniff.anatomy import describe
from normsniff.anatomy.parts import Anatomy
from normsniff.inputs.arrays import from_arrays
from normsniff.kernel import log_ratio
from normsniff.limits import Limits
from normsniff.measure import ties
from normsniff.measure.samples import Sample, select
from normsniff.measure.shadows import _LEAST_COORDINATES, _learned, _shadow, read_vectors

from .split import held
from .validate import TRAINED

Float64 = NDArray[np.float64]
_CLIP = 3.0
_CHOSEN = (4.0, 3.0)
"""Least t² of a slot, and over the next, for it to be chosen."""


class Case(NamedTuple):
    """One matrix: its run, the run's truth, its role, its place, and whether a slot was chosen for that.

    `right` tells whether it is the true one (readers only); then its ratios along **1**, γ⁻¹ of the best slot and of
    the true site, None where there is none.
    """

    run: int
    layer_norm: bool
    role: str
    place: str
    chosen: bool
    right: bool | None
    ones: float
    slot: float | None
    site: float | None


def _same(array: Any) -> Any:
    return array


def _ratio(sample: Sample, direction: Float64 | None) -> float | None:
    if direction is None:
        return None
    _, found, _ = _learned(_shadow(sample, sample.matrix.axis, direction, _same)[1], direction)
    ratio = 0.0 if found is None else log_ratio(found.rho, found.nu, found.share, "unknown")
    return min(max(ratio, -_CLIP), _CLIP)


def _inverse(scale: Float64 | None) -> Float64 | None:
    if scale is None:
        return None
    dead = kernel.dead_direction(scale)
    usable = dead.vector is not None and dead.power * len(scale) >= _LEAST_COORDINATES
    return dead.vector if usable else None


def _place(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _slots(anatomy: Anatomy, scales: dict[int, Float64], component: str) -> dict[str, dict[int, int]]:
    """Return the sites of every place of a block, by layer, of those places that all blocks have."""
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for index, site in enumerate(anatomy.sites):
        scale = scales.get(index)
        if (
            site.component == component
            and site.role == "stream"
            and site.layer is not None
            and scale is not None
            and scale.std() > 0
            and np.all(scale != 0)
        ):
            found[_place(site.name)][site.layer] = index
    layers = {layer for by in found.values() for layer in by}
    return {name: by for name, by in found.items() if by.keys() == layers}


def cases(run: dict[str, Any]) -> Iterator[Case]:
    """Yield the readers and writers of the last snapshot of a run."""
    plan = run["plan"]
    trained = [one for one in run["snapshots"] if one["treatment"] in ("none", "bf16-trained") and one["state"]]
    if not trained or max(one["step"] for one in trained) < TRAINED:
        return
    last = max(trained, key=lambda one: int(one["step"]))
    config = run["config"] and json.loads(run["config"])
    anatomy = describe(replace(from_arrays(last["state"]), config=config))
    vectors = read_vectors(anatomy, Limits())
    component, d = next(iter(anatomy.widths.items()), ("main", 0))
    slots = _slots(anatomy, dict(vectors.scales), component)
    layers = sorted(next(iter(slots.values()), {}))
    if len(layers) < 2 or len(slots) * len(layers) >= d - 1:
        return
    scored = [[ties.scores(np.log(np.abs(vectors.scales[by[one]]))) for one in layers] for by in slots.values()]
    places: dict[tuple[str, str], dict[int, Sample]] = defaultdict(dict)
    for sample in (one for batch in select(anatomy, None, Limits(), None)[0] for one in batch):
        matrix = sample.matrix
        if matrix.component == component and matrix.role in ("reader", "writer") and matrix.layer in layers:
            places[_place(matrix.tensor.name), matrix.role][matrix.layer] = sample
    ones = np.full(d, 1 / math.sqrt(d))
    for (place, role), by in places.items():
        if by.keys() != set(layers):
            continue
        energies = [ties.energy(_shadow(by[one], by[one].matrix.axis, ones, _same)[1]) for one in layers]
        squares = ties.own(energies, scored)
        best, *rest = sorted(range(len(squares)), key=lambda at: -squares[at])
        chosen = squares[best] >= _CHOSEN[0] and (not rest or squares[best] >= _CHOSEN[1] * squares[rest[0]])
        slot = list(slots)[best]
        for layer in layers:
            site = by[layer].matrix.site
            right = None if site is None else _place(anatomy.sites[site].name) == slot
            along = _ratio(by[layer], ones) or 0.0
            beside = _ratio(by[layer], _inverse(vectors.scales[slots[slot][layer]]))
            true = _ratio(by[layer], _inverse(None if site is None else vectors.scales.get(site)))
            yield Case(
                plan["index"], plan["truth"] == "LayerNorm", role, place, chosen, right, along, beside, true
            )  # fmt: skip


_WAYS: dict[str, Callable[[Case], float]] = {
    "along 1": lambda one: one.ones,
    "along the chosen slot": lambda one: one.slot if one.chosen and one.slot is not None else one.ones,
    "along the best slot": lambda one: one.ones if one.slot is None else one.slot,
    "readers along the true one": lambda one: one.ones if one.site is None else one.site,
}


def main() -> None:
    """Print the AUC of every way, and how often a slot is chosen, and rightly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kept", type=Path, help="folder of weights, as `python -m calibration train` keeps them")
    torch.set_num_threads(1)
    found: list[Case] = []
    for file in sorted(parser.parse_args().kept.glob("run*.pt")):
        run = torch.load(file, weights_only=True)
        plan = run["plan"]
        if plan["truth"] != "neither" and plan["source"] != "other" and not held({**plan, "run": plan["index"]}):
            found += cases(run)
    for role in ("reader", "writer"):
        places = {(one.run, one.place): one for one in found if one.role == role}.values()
        chosen = [one for one in places if one.chosen]
        right = sum(one.right is True for one in chosen)
        print(f"{role}s: {len(places)} places, {len(chosen)} chosen, of these {right} are the true site")
    for roles in (("reader", "writer"), ("reader",)):
        mine = [one for one in found if one.role in roles]
        runs = sorted({one.run for one in mine})
        truth = [next(one.layer_norm for one in mine if one.run == run) for run in runs]
        for name, way in _WAYS.items():
            means = [np.mean([way(one) for one in mine if one.run == run]) for run in runs]
            print(f"{' and '.join(roles)}, {len(runs)} runs, {name}: AUC {roc_auc_score(truth, means):.4f}")


if __name__ == "__main__":
    main()
