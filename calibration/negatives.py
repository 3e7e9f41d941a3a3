"""Networks that are no transformers, with and without LayerNorm: the test must abstain on them or be right."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from .networks import Norm


class _ConvNet(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A small residual CNN with BatchNorm or GroupNorm, on images."""

    def __init__(self, d: int, layers: int, kind: str) -> None:
        super().__init__()
        groups = {"cnn-group": 4, "cnn-group1": 1}.get(kind)
        self.stem = nn.Conv2d(1, d, 3, padding=1, stride=2)
        self.convs = nn.ModuleList(nn.Conv2d(d, d, 3, padding=1) for _ in range(layers))
        self.norms = nn.ModuleList(nn.GroupNorm(groups, d) if groups else nn.BatchNorm2d(d) for _ in range(layers))
        self.head = nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.relu(norm(conv(x)))
        return self.head(x.mean((2, 3)))


class _Recurrent(nn.Module):  # type: ignore[misc]
    """LSTM or GRU layers with a norm after each and a residual connection, on ids."""

    def __init__(self, d: int, layers: int, vocabulary: int, kind: str) -> None:
        super().__init__()
        make = nn.LSTM if kind.startswith("lstm") else nn.GRU
        self.embedding = nn.Embedding(vocabulary, d)
        self.cells = nn.ModuleList(make(d, d, batch_first=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.out = nn.Linear(d, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for cell, norm in zip(self.cells, self.norms, strict=True):
            x = norm(x + cell(x)[0])
        return self.out(x)


class _Mixer(nn.Module):  # type: ignore[misc]
    """MLP-Mixer on 16 patches, pre-norm."""

    def __init__(self, d: int, layers: int, kind: str) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, d, 4, 4)
        self.token_norms = nn.ModuleList(Norm(kind, d) for _ in range(layers))
        self.channel_norms = nn.ModuleList(Norm(kind, d) for _ in range(layers))
        self.token_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16)) for _ in range(layers)
        )
        self.channel_mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 3 * d), nn.GELU(), nn.Linear(3 * d, d)) for _ in range(layers)
        )
        self.final_norm, self.head = Norm(kind, d), nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        parts = zip(self.token_norms, self.token_mlps, self.channel_norms, self.channel_mlps, strict=True)
        for n1, m1, n2, m2 in parts:
            x = x + m1(n1(x).transpose(1, 2)).transpose(1, 2)
            x = x + m2(n2(x))
        return self.head(self.final_norm(x).mean(1))


class _Graph(nn.Module):  # type: ignore[misc]
    """Message passing between the patches of an image on a ring, ReLU, LayerNorm after each step."""

    def __init__(self, d: int, layers: int) -> None:
        super().__init__()
        self.encode = nn.Linear(16, d)
        self.messages = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(layers))
        self.updates = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.head = nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.encode(F.unfold(x, 4, stride=4).transpose(1, 2)))
        for message, update, norm in zip(self.messages, self.updates, self.norms, strict=True):
            m = F.relu(message(torch.cat([x, x.roll(1, 1)], -1))) + F.relu(message(torch.cat([x, x.roll(4, 1)], -1)))
            x = norm(F.relu(update(torch.cat([x, m], -1))))
        return self.head(x.mean(1))


class _Fourier(nn.Module):  # type: ignore[misc]
    """A Fourier neural operator on the rows of an image, LayerNorm over the channels."""

    def __init__(self, d: int, layers: int) -> None:
        super().__init__()
        self.lift = nn.Linear(1, d)
        self.spectral = nn.ParameterList(nn.Parameter(torch.randn(2, d, 2 * d) * d**-0.5) for _ in range(layers))
        self.local = nn.ModuleList(nn.Linear(d, 2 * d) for _ in range(layers))
        self.project = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(layers))
        self.head = nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lift(x.mean(2).transpose(1, 2))
        for w, local, project, norm in zip(self.spectral, self.local, self.project, self.norms, strict=True):
            f = torch.fft.rfft(x, dim=1)[:, :6] @ torch.complex(w[0], w[1])
            x = x + project(F.gelu(torch.fft.irfft(f, n=x.shape[1], dim=1) + local(norm(x))))
        return self.head(x.mean(1))


class _StateSpace(nn.Module):  # type: ignore[misc]
    """Blocks of a diagonal linear recurrence (run as a convolution) and a gate, pre-norm, on ids."""

    def __init__(self, d: int, layers: int, vocabulary: int, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d)
        self.norms = nn.ModuleList(Norm(kind, d) for _ in range(layers))
        self.into = nn.ModuleList(nn.Linear(d, 4 * d) for _ in range(layers))
        self.back = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(layers))
        self.decay = nn.ParameterList(nn.Parameter(torch.linspace(-3, 3, 2 * d)) for _ in range(layers))
        self.final_norm, self.out = Norm(kind, d), nn.Linear(d, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        n = x.shape[1]
        for norm, into, back, decay in zip(self.norms, self.into, self.back, self.decay, strict=True):
            u, gate = into(norm(x)).chunk(2, -1)
            kernel = torch.exp(-F.softplus(decay) * torch.arange(n)[:, None])
            f = torch.fft.rfft(u, n=2 * n, dim=1) * torch.fft.rfft(kernel, n=2 * n, dim=0)
            x = x + back(torch.fft.irfft(f, n=2 * n, dim=1)[:, :n] * F.silu(gate))
        return self.out(self.final_norm(x))


class _Perceptron(nn.Module):  # type: ignore[misc]
    """A plain MLP on images, without any norm."""

    def __init__(self, d: int, layers: int) -> None:
        super().__init__()
        sizes = [256, *[d] * (layers + 1), 10]
        self.net = nn.Sequential(*[m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())][:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.flatten(1))


NEGATIVES: dict[str, tuple[str, str]] = {
    "lstm": ("LayerNorm", "causal"), "cnn-batch": ("neither", "vision"), "mixer-ln": ("LayerNorm", "vision"),
    "ssm-rms": ("RMSNorm", "causal"), "cnn-group": ("neither", "vision"), "graph": ("LayerNorm", "vision"),
    "ssm-ln": ("LayerNorm", "causal"), "mlp": ("neither", "vision"), "gru": ("LayerNorm", "causal"),
    "mixer-rms": ("RMSNorm", "vision"), "fourier": ("LayerNorm", "vision"),
    # From here on: the third part of the plan.
    "mixer-none": ("neither", "vision"), "mixer-dyt": ("neither", "vision"), "mixer-group": ("neither", "vision"),
    "ssm-none": ("neither", "causal"), "ssm-derf": ("neither", "causal"), "cnn-group1": ("neither", "vision"),
}  # fmt: skip
"""Truth and objective by name."""
FIRST_NEGATIVES = tuple(NEGATIVES)[:11]
"""Those that there were."""


def build(name: str, d: int, layers: int, vocabulary: int) -> Any:
    """Return the untrained network."""
    if name.startswith("cnn"):
        return _ConvNet(d // 2, layers, name)  # convolutions cost eight times a linear layer
    if name in ("lstm", "gru"):
        return _Recurrent(d, layers, vocabulary, name)
    if name.startswith("mixer"):
        return _Mixer(d, layers, name.partition("-")[2])
    if name.startswith("ssm"):
        return _StateSpace(d, layers, vocabulary, name.partition("-")[2])
    return {"graph": _Graph, "fourier": _Fourier, "mlp": _Perceptron}[name](d, layers)
