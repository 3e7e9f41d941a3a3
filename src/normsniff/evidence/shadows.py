"""Evidence from the weights themselves: is there a deficit along the dead direction?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median

from ..anatomy.parts import Anatomy
from ..measure import Measured
from ..record import Evidence, Label
from .weights import Weights


def from_shadows(
    anatomy: Anatomy, measured: Sequence[Measured], scale_spread: float | None, weights: Weights
) -> list[Evidence]:
    """Return one piece of kernel evidence for every component that has matrices along its stream.

    Args:
        anatomy: the components.
        measured: the shadows.
        scale_spread: median std/|mean| of the model's scales, a sign of training; None if unknown.
        weights: the table of log-odds.
    """
    return [
        _of_component(name, [m for m in measured if m.matrix.component == name], scale_spread, weights)
        for name in anatomy.widths or ("main",)
    ]


def log_mean(measured: Iterable[Measured], role: str) -> float | None:
    """Return the mean of ln ρ over the matrices of one role, or None if there are none."""
    logs = [_log_rho(m) for m in measured if m.matrix.role == role]
    return fmean(logs) if logs else None


def _of_component(name: str, measured: list[Measured], scale_spread: float | None, weights: Weights) -> Evidence:
    speaking = [m for m in measured if m.matrix.role in ("writer", "reader")] or [
        m for m in measured if m.matrix.role == "unknown"
    ]
    if not speaking:
        return _silent(name, "no matrix along the residual stream could be measured", {})
    dispersion = median(m.shadow.dispersion or 0.0 for m in speaking)
    alignment = median(m.shadow.alignment or 0.0 for m in speaking)
    trained = weights.kernel_common.trained(dispersion, alignment, scale_spread)
    writers, readers = log_mean(speaking, "writer"), log_mean(speaking, "reader")
    roles_known = writers is not None or readers is not None
    if roles_known:
        statistic, ramp = (writers or 0.0) + (readers or 0.0) / 2, weights.kernel_roles
        said = ", ".join(
            f"{word} ρ {math.exp(value):.2f}"
            for word, value in (("writers", writers), ("readers", readers))
            if value is not None
        )
    else:
        statistic, ramp = median(_log_rho(m) for m in speaking), weights.kernel_shapes
        said = f"median ρ {math.exp(statistic):.2f} over {len(speaking)} matrices, roles unknown"
    details: dict[str, object] = {
        "statistic": round(statistic, 4),
        "writers_rho": _exp(writers),
        "readers_rho": _exp(readers),
        "embedding_rho": _exp(log_mean(measured, "embedding")),
        "unembedding_rho": _exp(log_mean(measured, "unembedding")),
        "matrices": len(speaking),
        "dispersion": round(dispersion, 4),
        "alignment": round(alignment, 5),
        "scale_spread": None if scale_spread is None else round(scale_spread, 5),
        "trained": round(trained, 3),
        "roles": "known" if roles_known else "unknown",
    }
    forensic = _forensics(speaking, writers, said, details, weights)
    if forensic is not None:
        return _silent(name, forensic, details)
    if statistic > weights.kernel_common.too_high:
        return _silent(
            name, f"{said}: more energy along the dead direction than chance, which neither norm explains", details
        )
    deficits = [m for m in speaking if (m.shadow.z or 0.0) < -2.5 and (m.shadow.rho or 0.0) < 0.7]
    details["deficits"] = len(deficits)
    if len(deficits) >= weights.kernel_common.deficit_share * len(speaking) and statistic > ramp.threshold:
        return _silent(
            name,
            f"{said}, yet {len(deficits)} of {len(speaking)} matrices clearly lack energy there: no one answer",
            details,
        )
    odds = ramp.at(statistic) * min(1.0, len(speaking) / weights.kernel_common.enough_matrices)
    if odds < 0:
        odds *= trained
        if trained == 0.0:
            return _silent(name, f"{said}: no shadow, but the weights look untrained, so none could be there", details)
    label: Label = "LayerNorm" if odds > 0 else "RMSNorm"
    if abs(odds) < 1:
        reason = f"{said}: too close to call"
        label = "undetermined"
    elif odds > 0:
        reason = f"weights lack energy along the dead direction: {said}"
    else:
        reason = f"weights keep their energy along the dead direction: {said} (LayerNorm models: writers 0.1 to 0.6)"
    return Evidence(kind="kernel", component=name, label=label, log_odds=round(odds, 4), reason=reason, details=details)


def _forensics(
    speaking: list[Measured], writers: float | None, said: str, details: dict[str, object], weights: Weights
) -> str | None:
    """Return why the weights were tampered with, and note it in `details`; None if nothing speaks for that.

    A LayerNorm ignores the mean of what it reads, so anyone may take it out of the writers (which turns LayerNorm into
    an equivalent RMSNorm) or put more of it in (which hides the shadow).
    """
    common = weights.kernel_common
    candidates = [m for m in speaking if m.matrix.role != "reader"]
    centred = [m for m in candidates if (m.shadow.rho or 0.0) < common.rewritten_below]
    # Among writers nearly all must be centred; among matrices of unknown role the readers are not.
    enough = len(candidates) / 2 if writers is not None else max(3, len(candidates) / 5)
    if candidates and len(centred) >= enough:
        details["rewritten_from"] = "LayerNorm"
        return (
            f"{len(centred)} of {len(candidates)} matrices have no energy at all along the mean, which no training "
            "does: the weights were centred afterwards, from a LayerNorm model to an equivalent RMSNorm form"
        )
    if writers is not None and writers > common.too_high:
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


def _log_rho(measured: Measured) -> float:
    # A centred matrix can be exactly zero along v; 1e-12 is below what float32 products resolve.
    return math.log(max(measured.shadow.rho or 0.0, 1e-12))


def _exp(value: float | None) -> float | None:
    return None if value is None else round(math.exp(value), 4)
