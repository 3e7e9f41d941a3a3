"""Evidence from the weights themselves: is there a deficit along the dead direction?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, median

from .. import kernel
from ..anatomy.parts import Anatomy, MatrixRole
from ..measure.pools import pool
from ..measure.shadows import Measured
from ..record import Evidence, Label
from ..words import amount, have
from . import features
from .ratios import Pools
from .weights import Weights, probability

_POOLED: tuple[MatrixRole, ...] = ("writer", "reader", "unknown")

_UNTRAINED = 0.1
"""Below this sign of training the weights look untrained: a reason says so, and what could not be an answer alone
counts nothing. Of 102 untrained networks of the corpus 2 lean by more than 0.3, of 165 files of tiny random
networks (calibration/open_world) 28, one by 1.15."""

_LEAST_UNTRAINED = 0.9
"""Probability that weights which look untrained must give to be heard: an autoencoder of two matrices along its stream,
untrained, leans by 1.42 (0.81), more than the table asks for where roles are unknown."""


def from_shadows(
    anatomy: Anatomy,
    measured: Sequence[Measured],
    scale_spread: float | None,
    weights: Weights,
    unlike: Collection[str] = (),
) -> list[Evidence]:
    """Return one piece of kernel evidence for every component that has matrices along its stream.

    Args:
        anatomy: the components.
        measured: the shadows.
        scale_spread: median std/|mean| of the model's scales, a sign of training; None if unknown.
        weights: the table of log-odds.
        unlike: components whose scales may belong to no norm (`substitutes.find`): they get no answer.
    """
    return [
        _of_component(
            name,
            [m for m in measured if m.matrix.component == name],
            scale_spread,
            weights,
            unlike=name in unlike,
            normed=any(s.component == name and s.role == "stream" for s in anatomy.sites),
        )
        for name in anatomy.widths or ("main",)
    ]


def is_quiet(measured: Sequence[Measured]) -> bool:
    """Whether there is nothing to find: of what was measured every component looks as no training leaves it.

    No matrix has a direction above the noise of its initialisation, and neither the norms of their vectors nor the
    angles between them are other than chance makes them. On the seen half of the calibration corpus no weights that
    looked so in the first matrices of a plan gave kernel evidence of any label with all of them
    (`python -m calibration.stopping`; docs/kernel.md, "When reading stops").
    """
    if any(one.learned is not None and one.learned.rho is not None for one in measured):
        return False
    for component in {one.matrix.component for one in measured}:
        facts = [_fact(one) for one in measured if one.matrix.component == component]
        found = features.with_roles(facts, None) or features.from_shapes(facts, None)
        if found is None or features.trained(found) > 0:
            return False
    return bool(measured)


def _of_component(
    name: str,
    measured: list[Measured],
    scale_spread: float | None,
    weights: Weights,
    *,
    unlike: bool,
    normed: bool,
) -> Evidence:
    facts = [_fact(m) for m in measured]
    pools = _pools(measured)
    view, found = "roles", features.with_roles(facts, scale_spread, pools, normed=normed)
    if found is None:
        view, found = "shapes", features.from_shapes(facts, scale_spread, pools)
    if found is None:
        return _silent(name, "no matrix along the residual stream could be measured", {})
    roles = ("writer", "reader") if view == "roles" else ("unknown",)
    speaking = [m for m in measured if m.matrix.role in roles]
    writers, readers = _log_mean(speaking, "writer"), _log_mean(speaking, "reader")
    said = ", ".join(
        f"{word} ρ {math.exp(value):.2f}{_learned_words(pools, role)}"
        for word, role, value in (("writers", "writer", writers), ("readers", "reader", readers))
        if value is not None
    )
    if view == "shapes":
        middle = math.exp(median(_log_rho(m) for m in speaking))
        over = amount(len(speaking), "matrix", "matrices")
        said = f"median ρ {middle:.2f} over {over}{_learned_words(pools, 'unknown')}, roles unknown"
    fitted = weights.kernel_roles if view == "roles" else weights.kernel_shapes
    trained = features.trained(found)
    details: dict[str, object] = {
        "roles": "known" if view == "roles" else "unknown",
        "writers_rho": _exp(writers),
        "readers_rho": _exp(readers),
        "embedding_rho": _exp(_log_mean(measured, "embedding")),
        "unembedding_rho": _exp(_log_mean(measured, "unembedding")),
        "trained": round(trained, 4),
        "answer_from": fitted.answer_from,
        "learned": {role: _pool_details(one) for role, one in pools.items() if one.rho is not None},
        "features": {key: round(value, 5) for key, value in found.items()},
    }
    why = _forensics(measured, writers, said, details, weights)
    too_high = weights.chosen.too_high.value
    if why is None and writers is None and (readers or 0.0) > too_high:
        why = f"{said}: more energy along the dead direction than chance, which neither norm explains"
    if why is None and (silence := features.silence(found, too_high)) is not None:
        why = f"{said}: {silence}"
    if why is None and unlike:
        why = f"{said}, but single numbers are stored with the scales: maybe no norm at all"
    if why is not None:
        return _silent(name, why, details)
    odds = features.log_odds(view, found, fitted.intercept, fitted.coefficients, fitted.cap)
    untrained = trained < _UNTRAINED
    if untrained and probability(abs(odds)) < max(fitted.answer_from, _LEAST_UNTRAINED):
        odds = 0.0  # chance: of untrained weights it leans one way as often as the other, and must not tip a balance
    label: Label = "LayerNorm" if odds > 0 else "RMSNorm"
    leaning = features.leaning(view, found, fitted.intercept, fitted.coefficients)
    if leaning < -1 and (barred := features.deniable(found)) is not None:
        label, reason = "undetermined", f"{said}: {barred}"
    elif abs(odds) < 1:
        label, reason = "undetermined", f"{said}: too close to call"
        reason += "; the weights look untrained" if untrained else ""
    elif odds > 0:
        reason = f"weights lack energy along the dead direction: {said}"
    else:
        reason = f"weights keep their energy along the dead direction: {said} (LayerNorm models: writers 0.1 to 0.6)"
    return Evidence(kind="kernel", component=name, label=label, log_odds=round(odds, 4), reason=reason, details=details)


def _fact(measured: Measured) -> features.MatrixFact:
    shadow = measured.shadow
    rho, z = shadow.rho or 0.0, shadow.z
    return features.MatrixFact(
        role=measured.matrix.role,
        rho=rho,
        spread=(rho - 1) / z if z else 0.0,
        dispersion=shadow.dispersion or 0.0,
        alignment=shadow.alignment or 0.0,
        d=shadow.d,
        learned=measured.learned,
        tie=measured.tie,
        bias=measured.bias,
        evenness=shadow.evenness,
        shape=measured.matrix.tensor.shape,
    )


def _learned_words(pools: Pools, role: str) -> str:
    pool = pools.get(role)
    return "" if pool is None or pool.rho is None else f" ({pool.rho:.2f} in what was learned)"


def _pool_details(pool: kernel.LearnedShadow) -> dict[str, object]:
    """Return what a report draws: ρ_L, ν and c̄, and of every direction its signal and its overlap over the null's."""
    return {
        "rho": round(pool.rho or 0.0, 4),
        "nu": round(pool.nu, 2),
        "share": round(pool.share, 4),
        "signals": [round(x, 3) for x in pool.signals],
        "ratios": [round(x, 4) for x in pool.ratios],
    }


def _pools(measured: list[Measured]) -> dict[str, kernel.LearnedShadow]:
    peaks = {role: pool(measured, role) for role in _POOLED}
    return {role: kernel.learned(one) for role, one in peaks.items() if one is not None}


def _forensics(
    measured: list[Measured], writers: float | None, said: str, details: dict[str, object], weights: Weights
) -> str | None:
    """Return why the weights were tampered with, and note it in `details`; None if nothing speaks for that.

    A LayerNorm ignores the mean of what it reads, so anyone may take it out of the writers (which turns LayerNorm into
    an equivalent RMSNorm) or put more of it in (which hides the shadow).
    """
    chosen = weights.chosen
    # Among known writers nearly all must be centred; among matrices of unknown role the readers are not.
    roles = ("writer",) if writers is not None else ("unknown", "embedding")
    candidates = [m for m in measured if m.matrix.role in roles]
    centred = [m for m in candidates if (m.shadow.rho or 0.0) < chosen.rewritten_below.value]
    enough = len(candidates) / 2 if writers is not None else max(2, len(candidates) / 5)
    if candidates and len(centred) >= enough:
        details["rewritten_from"] = "LayerNorm"
        return (
            f"{len(centred)} of {amount(len(candidates), 'matrix', 'matrices')} {have(len(centred))} no energy at all "
            "along the mean, which training alone does not do: as in a LayerNorm model centred into RMSNorm "
            "form"
        )
    if writers is not None and writers > chosen.too_high.value:
        details["suspicious"] = True
        return (
            f"{said}: the writers have far more energy along the mean than chance gives. Under LayerNorm that changes "
            "nothing, so it may have been added to hide a shadow; or this is no residual transformer"
        )
    return None


def _silent(component: str, reason: str, details: dict[str, object]) -> Evidence:
    return Evidence(
        kind="kernel", component=component, label="undetermined", log_odds=0.0, reason=reason, details=details
    )


def _log_mean(measured: Iterable[Measured], role: str) -> float | None:
    """Return the mean of ln ρ over the matrices of one role, or None if there are none."""
    logs = [_log_rho(m) for m in measured if m.matrix.role == role]
    return fmean(logs) if logs else None


def _log_rho(measured: Measured) -> float:
    # A centred matrix can be exactly zero along v; 1e-12 is below what float32 products resolve.
    return math.log(max(measured.shadow.rho or 0.0, 1e-12))


def _exp(value: float | None) -> float | None:
    return None if value is None else round(math.exp(value), 4)
