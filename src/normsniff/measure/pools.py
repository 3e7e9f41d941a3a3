"""Matrices of one role, as one: what all of them learned lies along the same few directions of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import kernel
from ..anatomy.parts import MatrixRole
from ..kernel.namespaces import namespace
from .shadows import POOLED, Measured


def pool(measured: Sequence[Measured], role: MatrixRole) -> kernel.Peaks | None:
    """Return the peaks of the whitened vectors of all matrices of a role along **1**; None without any."""
    rows = [m.whitened for m in measured if m.matrix.role == role and m.whitened is not None][:POOLED]
    if not rows:
        return None
    ones = namespace(*rows).asarray(np.ones(rows[0].shape[1]), device=rows[0].device)
    return kernel.peaks(rows, ones)
