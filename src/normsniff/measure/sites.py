"""The record of every norm site: statistics of γ and β, and what γ says of the dead direction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from .. import kernel, meter
from ..anatomy.parts import Anatomy, Site
from ..record import DeadDirection, NormSite, Statistics
from .shadows import Float64, Measured, Vectors, moments

_RECORD, _RECORD_BYTES = 80, 1500
"""Steps and bytes of one record: some twenty reductions of numpy, and the objects with their numbers and text."""


def norm_records(anatomy: Anatomy, vectors: Vectors, measured: Sequence[Measured]) -> list[NormSite]:
    """Return one record a site, in the order of the anatomy."""
    meter.charge(_RECORD * len(anatomy.sites), "writing records of norms")
    meter.hold(_RECORD_BYTES * len(anatomy.sites), "writing records of norms")
    readers: dict[int, list[float]] = defaultdict(list)
    writers: dict[tuple[str, int | None], list[float]] = defaultdict(list)
    for one in measured:
        rho = max(one.shadow.rho or 0.0, 1e-12)
        if one.matrix.role == "reader" and one.matrix.site is not None:
            readers[one.matrix.site].append(rho)
        elif one.matrix.role == "writer" and one.matrix.layer is not None:
            writers[one.matrix.component, one.matrix.layer].append(rho)
    return [
        _record(
            site,
            vectors.scales.get(index),
            vectors.shifts.get(index),
            readers[index],
            writers[site.component, site.layer] if site.role == "stream" else [],
        )
        for index, site in enumerate(anatomy.sites)
    ]


def _record(
    site: Site, scale: Float64 | None, shift: Float64 | None, readers: list[float], writers: list[float]
) -> NormSite:
    return NormSite(
        name=site.name,
        component=site.component,
        layer=site.layer,
        role=site.role,
        kind=site.kind,
        d=site.width,
        has_scale=site.scale is not None,
        has_shift=site.shift is not None,
        scale=_statistics(scale),
        shift=_statistics(shift),
        zero_centred=zero_centred(site),
        caveat=site.why if site.offset else "",
        dead_direction=_dead_direction(scale),
        readers_rho=_geometric_mean(readers),
        writers_rho=_geometric_mean(writers),
    )


def zero_centred(site: Site) -> bool | None:
    """Say whether a site stores γ - 1; None where it stores no scale, or where no family is known."""
    if site.scale is None or (site.offset == 0.0 and not site.why and site.kind is None):
        return None  # no family is known, and values alone do not tell
    return site.offset != 0.0


def _statistics(values: Float64 | None) -> Statistics | None:
    if values is None or not values.size or not np.all(np.isfinite(values)):
        return None
    mean, std = moments(values)
    return Statistics(min=float(values.min()), max=float(values.max()), mean=mean, std=std)


def _dead_direction(scale: Float64 | None) -> DeadDirection | None:
    if scale is None or not scale.size or not np.all(np.isfinite(scale)):
        return None
    dead = kernel.dead_direction(scale)
    return DeadDirection(
        degenerate=bool(dead.dead),
        dead_dimensions=len(dead.dead),
        condition=dead.condition if math.isfinite(dead.condition) else None,
        cosine_to_ones=dead.cosine,
        power=dead.power if dead.vector is not None else None,
    )


def _geometric_mean(values: list[float]) -> float | None:
    return float(f"{math.exp(fmean(math.log(v) for v in values)):.6g}") if values else None
