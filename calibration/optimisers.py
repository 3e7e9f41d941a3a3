"""Optimisers by name, and two that torch does not have in the form wanted: Lion and Muon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

RATES = {"sgd": 0.15, "adam": 2e-3, "adamw": 2e-3, "lion": 4e-4, "muon": 1.5e-2, "adafactor": 2e-2,
         "nadam": 2e-3, "rmsprop": 5e-4}  # fmt: skip
"""A middling rate for each; the plan multiplies it."""


class Lion(torch.optim.Optimizer):  # type: ignore[misc]  # torch is Any for mypy
    """Sign of an interpolated momentum."""

    def __init__(self, params: Any, lr: float, beta2: float) -> None:
        super().__init__(params, {"lr": lr, "beta2": beta2, "weight_decay": 0.0})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:  # noqa: ARG002  # torch's signature
        """Make one step."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (0.9 * m + 0.1 * p.grad).sign())
                m.mul_(group["beta2"]).add_(p.grad, alpha=1 - group["beta2"])


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum, orthogonalised by five Newton-Schulz steps. For matrices inside the network only."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:  # noqa: ARG002  # torch's signature
        """Make one step."""
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(0.95).add_(p.grad)
                g = p.grad + 0.95 * m
                x = g / (g.norm() + 1e-7)
                x = x.T if x.shape[0] > x.shape[1] else x
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = x.T if g.shape[0] > g.shape[1] else x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(x, alpha=group["lr"] * max(1.0, g.shape[0] / g.shape[1]) ** 0.5)


def build(name: str, model: nn.Module, lr: float, decay: float, decay_all: bool, beta2: float, mup: bool) -> list[Any]:
    """Return the optimisers that together train all parameters.

    With `mup`, AdamW's rate for a matrix inside falls with its width, as in μP (Yang et al., arXiv 2203.03466).
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if name == "muon":
        inner = [p for n, p in named if p.ndim == 2 and not _outer(n)]
        rest = [(n, p) for n, p in named if p.ndim != 2 or _outer(n)]
        muon = Muon(inner, lr)
        muon.param_groups[0]["weight_decay"] = decay
        return [muon, torch.optim.AdamW(_groups(rest, decay, decay_all), lr=lr / 8, betas=(0.9, beta2))]
    groups = _groups(named, decay, decay_all)
    if name == "sgd":
        return [torch.optim.SGD(groups, lr=lr, momentum=0.9)]
    if name == "lion":
        return [Lion(groups, lr, beta2)]
    if name == "rmsprop":
        return [torch.optim.RMSprop(groups, lr=lr, alpha=beta2)]
    if name == "adafactor":
        return [torch.optim.Adafactor(groups, lr=lr)]
    kind = {"adam": torch.optim.Adam, "nadam": torch.optim.NAdam}.get(name, torch.optim.AdamW)
    if mup and name == "adamw":
        inside = {n for n, p in named if p.ndim == 2 and not _outer(n)}
        groups = _groups(((n, p) for n, p in named if n not in inside), decay, decay_all)
        groups += [{"params": [p], "weight_decay": decay, "lr": lr * 64 / p.shape[1]} for n, p in named if n in inside]
    return [kind(groups, lr=lr, betas=(0.9, beta2))]


def _outer(name: str) -> bool:
    return any(word in name for word in ("embed", "lm_head", "wte", "wpe", "shared", "head"))


def _groups(named: Iterable[tuple[str, torch.Tensor]], decay: float, decay_all: bool) -> list[dict[str, Any]]:
    named = list(named)
    decayed = [p for _, p in named if decay_all or p.ndim > 1]
    others = [p for _, p in named if not (decay_all or p.ndim > 1)]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]
