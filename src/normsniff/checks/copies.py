"""repeated: two norms with the same values that should differ."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..record import Finding
from ..words import amount
from .subject import Float64, ReadNorm, Subject

_CHANCE = 1e-9
"""Chance of two scales of a tower that are alike without a reason. It is counted from the scale's own values: two
values drawn from them are alike with probability q = Σ p², a scale of n values with q to the n. So 16 values of which
ten differ are told, and none that are nearly all still where training began."""


def find(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for every set of norms that are equal to the bit."""
    equal: dict[tuple[str, bytes], list[ReadNorm]] = {}
    for one in subject.norms:
        if one.stored is not None and one.stored.size:
            equal.setdefault((one.site.component, one.stored.tobytes()), []).append(one)
    pairs = math.comb(len(subject.norms), 2)
    for (component, _), found in equal.items():
        if len(found) < 2 or pairs * _alike(found[0].stored) > _CHANCE:
            continue
        stored = {one.site.scale.name for one in found if one.site.scale is not None}
        if len(stored) < 2:  # one tensor that several sites share is one parameter
            continue
        layers = {one.site.layer for one in found}
        size = 0 if found[0].stored is None else found[0].stored.size
        within = len(layers) < len(found) and None not in layers
        yield Finding(
            code="repeated",
            severity="error" if within else "warning",
            component=component,
            norms=tuple(one.name for one in found),
            reason=f"{amount(len(found), 'scale')} of {amount(size, 'value')} are equal to the bit"
            f"{', two of them in one block' if within else ''};"
            " training leaves no two alike",
            cure="compare with the original: a key was mapped twice"
            if within
            else "none, if blocks were repeated on purpose (up-scaling, merges); else compare with the original",
        )


def _alike(values: Float64 | None) -> float:
    """Return the probability that another scale with values as frequent as these is the same."""
    if values is None:
        return 1.0
    shares = np.unique(values, return_counts=True)[1] / values.size
    return float(np.sum(shares**2) ** values.size)
