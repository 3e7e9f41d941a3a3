"""How packed weights are marked."""

from __future__ import annotations

PACKED_MARKS = (
    ".qweight", ".SCB", ".weight_scale_inv", ".weight_packed", ".weight_scale", ".scales", "_blocks", ".weight.absmax",
)  # fmt: skip
"""How the names end that mark a packed weight: of tensors that no plain checkpoint has."""
