"""Evidence from what is stored: which norms have a shift, and which have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..anatomy.parts import Anatomy, Site
from ..measure import Float64
from ..record import Evidence
from .weights import Weights

_MIXED_SHARE = 0.15
"""Smallest share of the minority among a stream's norms that makes it mixed; below, odd norms are exceptions
(a final norm, an embedding norm, one projector)."""


def from_layout(anatomy: Anatomy, shifts: Mapping[int, Float64], weights: Weights) -> list[Evidence]:
    """Return layout evidence for every component that has stored norm parameters.

    Args:
        anatomy: the norm sites.
        shifts: values of the shifts by site index, where they were read.
        weights: log-odds of a shift, and of the lack of one.
    """
    found = []
    for component in anatomy.widths or {"main": 0}:
        stream = [(i, s) for i, s in enumerate(anatomy.sites) if s.component == component and s.role == "stream"]
        stored = [(i, s) for i, s in stream if s.scale is not None or s.shift is not None]
        if stored:
            found.append(_of_stream(component, stored, shifts, weights))
    return found


def _of_stream(
    component: str, stored: Sequence[tuple[int, Site]], shifts: Mapping[int, Float64], weights: Weights
) -> Evidence:
    shifted = [(i, s) for i, s in stored if s.shift is not None]
    details = {"norms": len(stored), "with_shift": len(shifted)}
    if not shifted:
        return Evidence(
            kind="layout", component=component, label="RMSNorm", log_odds=weights.shift.absent,
            reason=f"none of the {len(stored)} norms of the stream has a shift", details=details,
        )  # fmt: skip
    share = min(len(shifted), len(stored) - len(shifted)) / len(stored)
    if share >= _MIXED_SHARE:
        return Evidence(
            kind="layout", component=component, label="mixed", log_odds=0.0, details=details,
            reason=f"{len(shifted)} of the {len(stored)} norms of one stream have a shift, the others have none",
        )  # fmt: skip
    if len(shifted) * 2 < len(stored):
        return Evidence(
            kind="layout", component=component, label="RMSNorm", log_odds=weights.shift.absent / 2, details=details,
            reason=f"only {len(shifted)} of the {len(stored)} norms of the stream have a shift",
        )  # fmt: skip
    read = [shifts[i] for i, _ in shifted if i in shifts]
    if read and not any(values.any() for values in read):
        return Evidence(
            kind="layout", component=component, label="LayerNorm", log_odds=weights.shift.zero,
            reason=f"{len(shifted)} norms of the stream have a shift, all exactly zero: untrained, or added later",
            details={**details, "all_zero": True},
        )  # fmt: skip
    return Evidence(
        kind="layout", component=component, label="LayerNorm", log_odds=weights.shift.present, details=details,
        reason=f"{len(shifted)} of the {len(stored)} norms of the stream have a shift",
    )  # fmt: skip
