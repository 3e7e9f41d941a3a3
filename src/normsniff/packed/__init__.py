"""Logical matrices in place of packed ones: GPTQ, AWQ, FP8 and others."""

from __future__ import annotations

from ..checkpoint import Checkpoint
from .marks import PACKED_MARKS

_MAY_BE_PACKED = {"safetensors", "arrays", "PyTorch", "NumPy"}


def unpacked(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with logical weights in place of packed ones (GPTQ, AWQ, FP8 and others), if it has any."""
    if checkpoint.format not in _MAY_BE_PACKED or checkpoint.graph is not None:
        return checkpoint
    if not any(name.endswith(PACKED_MARKS) for name in checkpoint.tensors):
        return checkpoint
    from ..packed.schemes import unpack

    return unpack(checkpoint)
