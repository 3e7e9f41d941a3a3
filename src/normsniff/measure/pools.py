"""Matrices of one role, as one: what all of them learned lies along the same few directions of the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .. import kernel
from ..anatomy.parts import MatrixRole
from ..kernel.namespaces import namespace
from .shadows import POOLED, Measured


def pool(measured: Sequence[Measured], role: MatrixRole) -> kernel.Peaks | None:
    """Return the peaks of the whitened vectors of all matrices of a role along **1**; None without any.

    Of a network in stages, whose stream grows wider, those of the width that most matrices have: streams of different
    widths share no direction.
    """
    every = [m.whitened for m in measured if m.matrix.role == role and m.whitened is not None]
    if not every:
        return None
    width, _ = Counter(one.shape[1] for one in every).most_common(1)[0]
    rows = [one for one in every if one.shape[1] == width][:POOLED]
    ones = namespace(*rows).asarray(np.ones(width), device=rows[0].device)
    return kernel.peaks(rows, ones)
