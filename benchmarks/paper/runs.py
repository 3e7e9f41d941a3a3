"""The two experiments: untrained networks with moved scales, and trained networks against their untrained twins."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import normsniff
from normsniff.kernel.shadow import dead_direction
from normsniff.record import EvidenceKind

from . import spectrum as sp
from .activations import Activations, behaviour, effective_scale, perturb, run
from .checkpoints import Checkpoint
from .networks import Network, random_inputs

ROWS_PER_WIDTH = 4
KERNEL: tuple[EvidenceKind, ...] = ("kernel",)


@dataclass(frozen=True)
class Label:
    """What normsniff says of a state dict from its parameters alone."""

    label: str
    confidence: float | None
    calibration: str


@dataclass(frozen=True)
class Untrained:
    """One untrained network.

    Attributes:
        name, truth, modality, d, published: of the network.
        rows: tokens seen.
        cosine: |cos| between γ⁻¹/‖γ⁻¹‖ and the bottom singular direction.
        chance: what random signs exceed once in twenty.
        ones: |cos| between **1** and the bottom direction: what ignoring γ would give.
        along, smallest, next: the variance along v, the smallest and the next eigenvalue, over the median eigenvalue.
        label, moved: what normsniff says before and after the scales were moved.
        seconds: for all of this.
    """

    name: str
    truth: str
    modality: str
    d: int
    published: bool
    rows: int
    cosine: float
    chance: float
    ones: float
    along: float
    smallest: float
    next: float
    label: Label
    moved: Label
    seconds: float


def classify(model: Any) -> Label:
    """Label a model from its parameters alone."""
    record = normsniff.sniff(dict(model.state_dict()), evidence=KERNEL)
    return Label(record.label, record.confidence, record.calibration)


def measure_untrained(network: Network, seed: int, width: int | None = None) -> Untrained:
    """Build, move the scales away from 1, run once in float64, compare the directions.

    Args:
        network: the architecture.
        seed: of weights, scales and inputs.
        width: instead of the network's own.

    Raises:
        ValueError: the final norm does not do what the table says.
    """
    began = time.perf_counter()
    d = width or network.width
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = network.build(d).eval()
    label = classify(model)
    if not perturb(model, generator):
        raise ValueError(f"{network.name}: no scale was found")
    moved = classify(model)
    model = model.double()
    site = model.get_submodule(network.norm)
    if behaviour(site) != network.truth:
        raise ValueError(f"{network.name}: its norm is a {behaviour(site)}")
    rows = run(model, random_inputs(network, ROWS_PER_WIDTH * d, generator), network.norm).normed
    found = sp.spectrum(rows)
    v = _dead_direction(site)
    return Untrained(
        network.name, network.truth, network.modality, d, network.published and d == network.width, len(rows),
        sp.cosine(v, found.bottom), sp.chance(v, found.bottom), abs(float(found.bottom.sum())) / math.sqrt(d),
        sp.variance_along(rows, v) / found.median, float(found.eigenvalues[0]) / found.median,
        float(found.eigenvalues[1]) / found.median, label, moved, time.perf_counter() - began,
    )  # fmt: skip


@dataclass(frozen=True)
class State:
    """A network in one state, untrained or trained.

    Attributes:
        cosine: |cos| between v and the bottom direction, or the span of them where several are dead.
        dead: how many are.
        dying: indices of the final norm's scale under a millionth of its median.
        along: variance along v over the median eigenvalue, in a float64 pass.
        along_single: the same in a float32 pass; None where it was not run.
        lower: eigenvalues below the variance along v.
        others: further eigenvalues (all but the kernel itself) below 1/10, 1/100 and 1/1000 of the median.
        smallest: the smallest further eigenvalue over the median.
        stream_ones, stream_spread: variance of the final norm's input along **1** over its mean under random signs,
            and the spread under random signs.
        largest: largest over median eigenvalue.
        steps: of the residual stream.
        label: what normsniff says.
    """

    cosine: float
    dead: int
    dying: tuple[int, ...]
    along: float
    along_single: float | None
    lower: int
    others: tuple[int, ...]
    smallest: float
    stream_ones: float
    stream_spread: float
    largest: float
    steps: sp.Steps
    label: Label


@dataclass(frozen=True)
class Trained:
    """A trained network beside its untrained twin."""

    name: str
    truth: str
    final: str
    post_norm: bool
    d: int
    rows: int
    check: str
    chance: float
    before: State
    after: State
    seconds: float


THRESHOLDS = (1e-1, 1e-2, 1e-3)
DYING = 1e-6


def measure_trained(checkpoint: Checkpoint, seed: int) -> Trained:
    """Measure a checkpoint, and the same class as initialised with the seed."""
    began = time.perf_counter()
    inputs = checkpoint.inputs()
    before, _, _, _ = _state(checkpoint, checkpoint.untrained(seed), inputs)
    model = checkpoint.trained()
    check = checkpoint.check(model)
    after, chance, d, rows = _state(checkpoint, model, inputs)
    return Trained(
        checkpoint.name, checkpoint.truth, checkpoint.final, checkpoint.post_norm, d, rows, check, chance, before,
        after, time.perf_counter() - began,
    )  # fmt: skip


def _state(checkpoint: Checkpoint, model: Any, inputs: dict[str, Any]) -> tuple[State, float, int, int]:
    label = classify(model)
    body = model.get_submodule(checkpoint.body)
    site = body.get_submodule(checkpoint.norm)
    if behaviour(site) != checkpoint.final:
        raise ValueError(f"{checkpoint.name}: its final norm is a {behaviour(site)}")
    v, size = _dead_direction(site), np.abs(effective_scale(site))
    centres = checkpoint.final == "LayerNorm"
    single = run(body, inputs, checkpoint.norm) if centres else None
    seen: Activations = run(body.double(), inputs, checkpoint.norm, checkpoint.blocks)
    found = sp.spectrum(seen.normed)
    others = found.eigenvalues[1:] if centres else found.eigenvalues
    along = sp.variance_along(seen.normed, v)
    state = State(
        sp.cosine_to_span(v, found.kernel),
        int(np.count_nonzero(found.eigenvalues < sp.ROUND_OFF**2 * found.eigenvalues[-1])),
        tuple(int(i) for i in np.nonzero(size < DYING * np.median(size))[0]),
        along / found.median,
        None if single is None else sp.variance_along(single.normed, v) / sp.spectrum(single.normed).median,
        sp.below(others, along),
        tuple(sp.below(others, threshold * found.median) for threshold in THRESHOLDS),
        float(others[0]) / found.median,
        *sp.energy_of_ones(seen.final),
        float(found.eigenvalues[-1]) / found.median,
        sp.steps([sp.singular_values(place) for place in seen.stream]),
        label,
    )
    return state, sp.chance(v, found.bottom), len(v), found.rows


def _dead_direction(site: Any) -> sp.Float64:
    direction = dead_direction(effective_scale(site))
    if direction.vector is None:
        raise ValueError(f"{len(direction.dead)} entries of the scale are zero")
    vector: sp.Float64 = direction.vector
    return vector
