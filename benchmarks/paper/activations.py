"""What touches torch: scales of norms, seeded perturbation, one forward pass with its activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Norm = Literal["LayerNorm", "RMSNorm"]

BATCH = 8  # sequences at once: the logits and attention maps of more would cost more memory than time saved


def scale_vectors(model: Any) -> list[tuple[Any, bool]]:
    """Return every norm of the model that has a scale, with whether it stores γ - 1.

    Whether it does is asked of the module itself: see `effective_scale`.
    """
    found = []
    for module in model.modules():
        scale = getattr(module, "weight", None)
        if "Norm" in type(module).__name__ and scale is not None and scale.ndim == 1:
            found.append((module, _stores_offset(module)))
    return found


def effective_scale(norm: Any) -> NDArray[np.float64]:
    """Return γ as the norm applies it, from its stored scale; checked against what the module computes."""
    stored: NDArray[np.float64] = norm.weight.detach().double().numpy()
    return stored + 1.0 if _stores_offset(norm) else stored


def behaviour(norm: Any) -> Norm:
    """Return what the module does to a constant vector: LayerNorm removes it, RMSNorm does not."""
    constant = torch.ones(norm.weight.shape[0], dtype=norm.weight.dtype)
    with torch.no_grad():
        moved = norm(constant) - norm(constant * 0)
    return "RMSNorm" if float(moved.abs().max()) > 1e-3 else "LayerNorm"


def _stores_offset(norm: Any) -> bool:
    """Whether γ = 1 + w, seen on an input of mean 0 and mean square 1, which LayerNorm and RMSNorm treat alike."""
    d = norm.weight.shape[0]
    probe = torch.ones(d, dtype=norm.weight.dtype)
    probe[1::2] = -1
    if d % 2:
        probe[-1] = 0
    with torch.no_grad():
        applied = (norm(probe) - norm(probe * 0)) * probe
        kept = probe != 0
        stored = (applied - norm.weight)[kept].abs().mean()
        offset = (applied - norm.weight - 1)[kept].abs().mean()
    if float(min(stored, offset)) > 0.05:
        raise ValueError(f"{type(norm).__name__} applies neither w nor 1 + w")
    return bool(offset < stored)


def perturb(model: Any, generator: torch.Generator) -> int:
    """Move every scale to γ ~ U(0.5, 1.5) and every shift to β ~ N(0, 0.5²); return how many scales were moved."""
    norms = scale_vectors(model)
    with torch.no_grad():
        for norm, offset in norms:
            norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator) + (-0.5 if offset else 0.5))
            if getattr(norm, "bias", None) is not None:
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.5)
    return len(norms)


@dataclass(frozen=True)
class Activations:
    """Of one forward pass over all inputs, rows = tokens.

    Attributes:
        normed: output of the final norm.
        final: its input, the residual stream.
        stream: input of the first block, then the output of every block; empty unless asked for.
    """

    normed: NDArray[np.float64]
    final: NDArray[np.float64]
    stream: tuple[NDArray[np.float64], ...]


def run(model: Any, inputs: dict[str, Any], norm: str, blocks: str | None = None) -> Activations:
    """Run the model over the inputs, batch by batch, and collect activations.

    Args:
        model: in the precision that the pass shall have.
        inputs: arguments of its forward, the first axis is the batch.
        norm: path of the final norm.
        blocks: path of the list of blocks, where the stream is wanted.
    """
    caught: dict[str, list[NDArray[np.float64]]] = {}

    def keep(name: str, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        caught.setdefault(name, []).append(value.detach().double().reshape(-1, value.shape[-1]).numpy())

    def after(name: str) -> Any:
        return lambda _module, _args, output: keep(name, output)

    def before(name: str) -> Any:
        return lambda _module, args, kwargs: keep(name, args[0] if args else kwargs["hidden_states"])

    site = model.get_submodule(norm)
    hooks = [
        site.register_forward_hook(after("normed")),
        site.register_forward_pre_hook(before("final"), with_kwargs=True),
    ]
    layers = list(model.get_submodule(blocks)) if blocks else []
    if layers:
        hooks.append(layers[0].register_forward_pre_hook(before("stream0"), with_kwargs=True))
    hooks += [layer.register_forward_hook(after(f"stream{i}")) for i, layer in enumerate(layers, 1)]
    try:
        with torch.no_grad():
            count = len(next(iter(inputs.values())))
            for start in range(0, count, BATCH):
                model(**{key: value[start : start + BATCH] for key, value in inputs.items()})
    finally:
        for hook in hooks:
            hook.remove()
    whole = {name: np.concatenate(parts) for name, parts in caught.items()}
    places = range(len(layers) + 1) if layers else ()
    return Activations(whole["normed"], whole["final"], tuple(whole[f"stream{i}"] for i in places))
