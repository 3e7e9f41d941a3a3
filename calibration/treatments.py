"""What happens to weights after training: casts, quantisation, pruning, noise. State dict in, state dict out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

State = Mapping[str, torch.Tensor]
Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def _int8(w: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    """Symmetric, one scale an output row."""
    step = w.abs().amax(tuple(range(1, w.ndim)), keepdim=True).clamp_min(1e-12) / 127
    return (w / step).round() * step


def _blocks(bits: int, size: int, minimum: bool) -> Change:
    """Blocks of the last axis with a scale of half precision, and a minimum of their own (Q4_K, Q2_K) or none."""

    def change(w: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        flat = w.reshape(-1)
        padded = torch.nn.functional.pad(flat, (0, -len(flat) % size)).view(-1, size)
        top = 2**bits - 1
        if minimum:
            low = padded.amin(1, keepdim=True).half().float()
            step = ((padded.amax(1, keepdim=True) - low) / top).clamp_min(1e-12)
            step = step.half().float().clamp_min(1e-7)
            found = ((padded - low) / step).round().clamp(0, top) * step + low
        else:
            largest = padded.gather(1, padded.abs().argmax(1, keepdim=True))
            half = 2 ** (bits - 1)
            step = largest / -half if bits < 8 else padded.abs().amax(1, keepdim=True) / 127
            step = step.half().float()
            inverse = torch.where(step == 0, step, 1 / torch.where(step == 0, 1, step))
            found = (padded * inverse).round().clamp(-half, half - 1 if bits < 8 else half) * step
        return found.reshape(-1)[: len(flat)].view_as(w)

    return change


def _prune(share: float) -> Change:
    def change(w: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        size = w.abs().flatten()
        return torch.where(w.abs() <= size.kthvalue(max(1, int(share * len(size)))).values, torch.zeros_like(w), w)

    return change


def _noise(share: float) -> Change:
    def change(w: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return w + share * w.std() * torch.randn(w.shape, generator=generator)

    return change


MATRICES: dict[str, Change] = {
    "int8": _int8,
    "q8_0": _blocks(8, 32, False),
    "q4_0": _blocks(4, 32, False),
    "q4_k": _blocks(4, 32, True),
    "q2_k": _blocks(2, 16, True),
    "prune30": _prune(0.3),
    "prune50": _prune(0.5),
    "prune70": _prune(0.7),
    "noise3": _noise(0.03),
    "noise10": _noise(0.1),
    "noise30": _noise(0.3),
}
"""Changes of the matrices alone."""
CASTS = {"f16": torch.float16, "bf16": torch.bfloat16}
NAMES = (*MATRICES, *CASTS)


def treat(state: State, name: str, seed: int) -> dict[str, torch.Tensor]:
    """Return the treated weights."""
    if name in CASTS:
        return {k: v.to(CASTS[name]) if v.is_floating_point() else v for k, v in state.items()}
    generator = torch.Generator().manual_seed(seed)
    change = MATRICES[name]
    return {k: change(v.float(), generator) if v.ndim > 1 else v for k, v in state.items()}
