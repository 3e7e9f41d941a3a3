"""repeated: two norms with the same values that should differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..record import Finding
from .subject import ReadNorm, Subject

_FEWEST = (
    16  # distinct values of a scale: two of independent training are equal by chance in fewer than 1 of 2^(8 · 16)
)


def find(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for every set of norms that are equal to the bit."""
    equal: dict[tuple[str, bytes], list[ReadNorm]] = {}
    for one in subject.norms:
        if one.stored is not None and one.stored.size >= _FEWEST and np.unique(one.stored).size >= _FEWEST:
            equal.setdefault((one.site.component, one.stored.tobytes()), []).append(one)
    for (component, _), found in equal.items():
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
            reason=f"{len(found)} scales of {size} values are equal to the bit"
            f"{', two of them in one block' if within else ''};"
            " training leaves no two alike",
            cure="compare with the original: a key was mapped twice"
            if within
            else "none, if blocks were repeated on purpose (up-scaling, merges); else compare with the original",
        )
