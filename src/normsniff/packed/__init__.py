"""Logical matrices in place of packed ones: GPTQ, AWQ, FP8 and others."""

from __future__ import annotations

from ..checkpoint import Checkpoint
from ..formats import by_name
from ..limits import Limits
from .marks import PACKED_MARKS


def unpacked(checkpoint: Checkpoint, limits: Limits) -> Checkpoint:
    """Return the checkpoint with logical weights in place of packed ones (GPTQ, AWQ, FP8 and others), if it has any."""
    row = by_name(checkpoint.format)
    if row is None or not row.packed or checkpoint.graph is not None:
        return checkpoint
    if not any(name.endswith(PACKED_MARKS) for name in checkpoint.tensors):
        return checkpoint
    from .schemes import unpack

    return unpack(checkpoint, limits)
