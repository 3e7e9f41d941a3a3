"""Small networks of every kind in torch, with random weights: what runs in them is known, as they are written here.

A network is a handful of modules and a function that runs them, so that a new kind is a few lines. Its truth is the
norm of its stream; LayerNorm and RMSNorm are modules of torch or spelled out, everything else is what these labels do
not mean: batch, group, instance, graph and response norms, unit lengths, weight norm, the dynamic tanh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

D, WORDS, LENGTH = 24, 40, 7
Run = Callable[[Any, Tensor], Tensor]


class Network(NamedTuple):
    """A network to make a file of.

    Attributes:
        name: what it is, in words.
        kind: what it is tabled under.
        truth: label of its stream.
        module: the network.
        example: its input.
    """

    name: str
    kind: str
    truth: str
    module: Any
    example: Tensor


class Made(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """Named modules and parameters, and what runs them."""

    def __init__(self, parts: Mapping[str, Any], run: Run) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.add_module(name, part)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.run(self, x)


class RmsNorm(nn.Module):  # type: ignore[misc]
    """RMSNorm as Llama spells it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Tanh(nn.Module):  # type: ignore[misc]
    """The dynamic tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.weight, self.bias = (nn.Parameter(torch.ones(n)) for n in (1, width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Squash."""
        return torch.tanh(self.alpha * x) * self.weight + self.bias


NORMS: dict[str, Callable[[int], Any]] = {
    "ln": nn.LayerNorm, "rms": RmsNorm, "none": lambda _: nn.Identity(), "dyt": Tanh,
    "bare ln": lambda d: nn.LayerNorm(d, elementwise_affine=False),
}  # fmt: skip


def _image(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size)


def _ids() -> Tensor:
    return torch.randint(0, WORDS, (2, LENGTH))


def _series() -> Tensor:
    return torch.randn(2, 4, 32)


def _table() -> Tensor:
    return torch.randn(5, 10)


def _sequential(*parts: Any) -> Made:
    return Made({"net": nn.Sequential(*parts)}, lambda m, x: m.net(x))


# --- convolutional -------------------------------------------------------------------------------------------------


def _residual(norm: Callable[[int], Any], activation: Callable[[], Any] = nn.ReLU) -> Made:
    def block() -> Made:
        parts = {"conv1": nn.Conv2d(D, D, 3, padding=1, bias=False), "bn1": norm(D), "act1": activation(),
                 "conv2": nn.Conv2d(D, D, 3, padding=1, bias=False), "bn2": norm(D)}  # fmt: skip
        return Made(parts, lambda m, x: F.relu(x + m.bn2(m.conv2(m.act1(m.bn1(m.conv1(x)))))))

    parts = {"conv1": nn.Conv2d(3, D, 3, 2, 1), "bn1": norm(D), "layer1": nn.Sequential(block(), block()),
             "fc": nn.Linear(D, 10)}  # fmt: skip
    return Made(parts, lambda m, x: m.fc(m.layer1(m.bn1(m.conv1(x))).mean((2, 3))))


def _unet(norm: Callable[[int], Any]) -> Made:
    def double(inner: int, outer: int) -> Any:
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), norm(outer), nn.ReLU())

    parts = {"inc": double(3, D), "down1": double(D, 2 * D), "down2": double(2 * D, 2 * D),
             "up1": double(4 * D, D), "up2": double(2 * D, D), "outc": nn.Conv2d(D, 2, 1)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        a = m.inc(x)
        b = m.down1(F.max_pool2d(a, 2))
        c = m.down2(F.max_pool2d(b, 2))
        b = m.up1(torch.cat([F.interpolate(c, scale_factor=2), b], 1))
        return m.outc(m.up2(torch.cat([F.interpolate(b, scale_factor=2), a], 1)))

    return Made(parts, run)


def _dense() -> Made:
    parts: dict[str, Any] = {"stem": nn.Conv2d(3, D, 3, padding=1)}
    for n in range(3):
        parts |= {f"norm{n}": nn.BatchNorm2d(D * (n + 1)), f"conv{n}": nn.Conv2d(D * (n + 1), D, 3, padding=1)}

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        for n in range(3):
            x = torch.cat([x, getattr(m, f"conv{n}")(F.relu(getattr(m, f"norm{n}")(x)))], 1)
        return m.head(x.mean((2, 3)))

    return Made(parts | {"head": nn.Linear(4 * D, 10)}, run)


def _mobile() -> Made:
    parts = {
        "expand": nn.Sequential(nn.Conv2d(3, D, 1, bias=False), nn.BatchNorm2d(D), nn.Hardswish()),
        "depthwise": nn.Sequential(nn.Conv2d(D, D, 3, padding=1, groups=D, bias=False), nn.BatchNorm2d(D)),
        "squeeze": nn.Conv2d(D, 4, 1), "excite": nn.Conv2d(4, D, 1),
        "project": nn.Sequential(nn.Conv2d(D, D, 1, bias=False), nn.BatchNorm2d(D)), "classifier": nn.Linear(D, 10),
    }  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.depthwise(m.expand(x))
        gate = torch.sigmoid(m.excite(F.relu(m.squeeze(x.mean((2, 3), keepdim=True)))))
        return m.classifier(m.project(x * gate).mean((2, 3)))

    return Made(parts, run)


class _Standardised(nn.Conv2d):  # type: ignore[misc]
    """A convolution whose kernels are standardised before use (Qiao et al.; NFNets)."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        w = self.weight
        mean, std = w.mean((1, 2, 3), keepdim=True), w.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (w - mean) / (std + 1e-5), self.bias, padding=1)


def _adaptive() -> Made:
    parts = {"content": nn.Conv2d(3, D, 3, padding=1), "style": nn.Conv2d(3, D, 3, padding=1),
             "decode": nn.Conv2d(D, 3, 3, padding=1)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        c, s = m.content(x), m.style(x.flip(0))
        axes = (2, 3)
        unit = (c - c.mean(axes, keepdim=True)) / (c.var(axes, keepdim=True) + 1e-5).sqrt()
        return m.decode(unit * s.std(axes, keepdim=True) + s.mean(axes, keepdim=True))

    return Made(parts, run)


def _capsules() -> Made:
    parts = {"conv": nn.Conv2d(3, D, 5, 2), "vote": nn.Linear(8, 8)}

    def run(m: Any, x: Tensor) -> Tensor:
        u = m.vote(m.conv(x).flatten(2).transpose(1, 2).reshape(x.shape[0], -1, 8))
        squared = u.pow(2).sum(-1, keepdim=True)
        return (squared / (1 + squared) * u / (squared + 1e-8).sqrt()).sum(1)

    return Made(parts, run)


def _convnext() -> Made:
    parts = {"stem": nn.Conv2d(3, D, 4, 4), "dwconv": nn.Conv2d(D, D, 3, padding=1, groups=D), "norm": nn.LayerNorm(D),
             "pwconv1": nn.Linear(D, 4 * D), "pwconv2": nn.Linear(4 * D, D), "head_norm": nn.LayerNorm(D),
             "head": nn.Linear(D, 10)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.norm(m.dwconv(x).permute(0, 2, 3, 1))
        x = x + m.pwconv2(F.gelu(m.pwconv1(y))).permute(0, 3, 1, 2)
        return m.head(m.head_norm(x.mean((2, 3))))

    return Made(parts, run)


def _group(width: int) -> Any:
    return nn.GroupNorm(4, width)


def convolutional() -> Iterator[Network]:
    """Yield networks on images."""

    def one(name: str, module: Any, truth: str = "none") -> Network:
        return Network(name, "CNN", truth, module, _image())

    conv, pool, flat = nn.Conv2d, nn.MaxPool2d, nn.Flatten
    yield one("LeNet", _sequential(conv(3, 6, 5), nn.Tanh(), nn.AvgPool2d(2), flat(), nn.Linear(216, 10)))
    yield one("VGG", _sequential(conv(3, D, 3, padding=1), nn.ReLU(), pool(2), conv(D, D, 3), nn.ReLU(), flat(),
                                 nn.Linear(36 * D, D), nn.Dropout(), nn.Linear(D, 10)))  # fmt: skip
    yield one("AlexNet, local response norm", _sequential(
        conv(3, D, 3), nn.ReLU(), nn.LocalResponseNorm(5), pool(2), conv(D, D, 3), nn.ReLU(), flat(),
        nn.Linear(25 * D, 10)))  # fmt: skip
    yield one("ResNet, BatchNorm", _residual(nn.BatchNorm2d))
    yield one("ResNet, GroupNorm", _residual(_group))
    yield one("ResNet, one group", _residual(lambda d: nn.GroupNorm(1, d)))
    yield one("IResNet, BatchNorm and PReLU", _residual(nn.BatchNorm2d, lambda: nn.PReLU(D)))
    yield one("ResNet without norms", _residual(lambda _: nn.Identity()))
    yield one("DenseNet", _dense())
    yield one("MobileNet with squeeze and excitation", _mobile())
    yield one("NFNet, standardised kernels", _sequential(
        _Standardised(3, D, 3), nn.GELU(), _Standardised(D, D, 3), nn.AdaptiveAvgPool2d(1), flat(),
        nn.Linear(D, 10)))  # fmt: skip
    yield one("capsules", _capsules())
    yield one("all convolutional, spectral norm", _sequential(
        nn.utils.parametrizations.spectral_norm(conv(3, D, 3, 2)), nn.LeakyReLU(0.2),
        nn.utils.parametrizations.spectral_norm(conv(D, 1, 3, 2))))  # fmt: skip
    yield one("ConvNeXt", _convnext(), "LayerNorm")
    yield one("detector, BatchNorm and upsampling", _sequential(
        conv(3, D, 3, 2, 1), nn.BatchNorm2d(D), nn.LeakyReLU(0.1), nn.Upsample(scale_factor=2), conv(D, 18, 1),
        nn.Sigmoid()))  # fmt: skip

    def generative(name: str, module: Any) -> Network:
        return Network(name, "image to image", "none", module, _image())

    yield generative("U-Net, BatchNorm", _unet(nn.BatchNorm2d))
    yield generative("U-Net, GroupNorm", _unet(_group))
    yield generative("U-Net, InstanceNorm", _unet(lambda d: nn.InstanceNorm2d(d, affine=True)))
    yield generative("style transfer, InstanceNorm", _residual(lambda d: nn.InstanceNorm2d(d, affine=True)))
    yield generative("adaptive InstanceNorm", _adaptive())
    yield generative("super-resolution", _sequential(conv(3, D, 5, padding=2), nn.ReLU(), conv(D, 12, 3, padding=1),
                                                     nn.PixelShuffle(2)))  # fmt: skip
    yield generative("DCGAN, transposed convolutions", _sequential(
        nn.ConvTranspose2d(3, D, 4, 2, 1, bias=False), nn.BatchNorm2d(D), nn.ReLU(), nn.ConvTranspose2d(D, 3, 4, 2, 1),
        nn.Tanh()))  # fmt: skip
    yield generative("autoencoder, GroupNorm and attention of one head", _latent())


def _latent() -> Made:
    parts = {"conv_in": nn.Conv2d(3, D, 3, 2, 1), "norm1": _group(D), "q": nn.Conv2d(D, D, 1), "k": nn.Conv2d(D, D, 1),
             "v": nn.Conv2d(D, D, 1), "proj_out": nn.Conv2d(D, D, 1), "norm_out": _group(D),
             "conv_out": nn.Conv2d(D, 4, 3, 1, 1)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.conv_in(x)
        y = m.norm1(x)
        q, k, v = (part(y).flatten(2) for part in (m.q, m.k, m.v))
        mixed = v @ (q.transpose(1, 2) @ k / D**0.5).softmax(-1).transpose(1, 2)
        x = x + m.proj_out(mixed.view_as(x))
        return m.conv_out(F.silu(m.norm_out(x)))

    return Made(parts, run)


# --- sequences -----------------------------------------------------------------------------------------------------


def _recurrent(cell: Any, norm: str = "none") -> Made:
    parts = {"embedding": nn.Embedding(WORDS, D), "rnn": cell, "norm": NORMS[norm](D), "decoder": nn.Linear(D, WORDS)}
    return Made(parts, lambda m, x: m.decoder(m.norm(m.rnn(m.embedding(x))[0])))


def _pooled(*, additive: bool) -> Made:
    parts = {"embedding": nn.Embedding(WORDS, D), "encoder": nn.GRU(D, D, batch_first=True), "query": nn.Linear(D, D),
             "score": nn.Linear(D, 1), "out": nn.Linear(D, WORDS)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.encoder(m.embedding(x))[0]
        weight = m.score(torch.tanh(m.query(h))) if additive else m.query(h) @ h[:, -1:].transpose(1, 2)
        return m.out((weight.softmax(1) * h).sum(1))

    return Made(parts, run)


def sequential() -> Iterator[Network]:
    """Yield networks on words and on signals."""

    def one(name: str, module: Any, truth: str = "none") -> Network:
        return Network(name, "RNN", truth, module, _ids())

    yield one("Elman network", _recurrent(nn.RNN(D, D, batch_first=True)))
    yield one("LSTM of two layers", _recurrent(nn.LSTM(D, D, 2, batch_first=True)))
    yield one("GRU", _recurrent(nn.GRU(D, D, batch_first=True)))
    yield one("LSTM with LayerNorm", _recurrent(nn.LSTM(D, D, batch_first=True), "ln"), "LayerNorm")
    yield one("GRU with RMSNorm", _recurrent(nn.GRU(D, D, batch_first=True), "rms"), "RMSNorm")
    yield one("GRU with additive attention", _pooled(additive=True))
    yield one("GRU with attention by products", _pooled(additive=False))

    def signal(name: str, *parts: Any) -> Network:
        return Network(name, "signals", "none", _sequential(*parts), _series())

    conv, weight = nn.Conv1d, nn.utils.parametrizations.weight_norm
    yield signal("temporal convolutions, weight norm", weight(conv(4, D, 3, padding=2, dilation=2)), nn.ReLU(),
                 weight(conv(D, 1, 3)))  # fmt: skip
    yield signal("gated convolutions", conv(4, 2 * D, 3), nn.GLU(1), conv(D, 4, 1))
    yield signal("vocoder, transposed and with weight norm", weight(nn.ConvTranspose1d(4, D, 4, 2, 1)),
                 nn.LeakyReLU(0.1), weight(conv(D, 1, 7, padding=3)), nn.Tanh())  # fmt: skip
    yield signal("speaker network, statistics pooling", conv(4, D, 5), nn.ReLU(), nn.BatchNorm1d(D), _Statistics(),
                 nn.Linear(2 * D, 8))  # fmt: skip
    yield signal("linear forecaster, reversible normalisation", _Reversible())


class _Statistics(nn.Module):  # type: ignore[misc]
    """Mean and standard deviation over time, of x-vectors."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        return torch.cat([x.mean(2), (x.var(2) + 1e-5).sqrt()], 1)


class _Reversible(nn.Module):  # type: ignore[misc]
    """A series is standardised over time, forecast by one matrix, and scaled back (NLinear with RevIN)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast."""
        mean, std = x.mean(2, keepdim=True), (x.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return self.linear((x - mean) / std) * std + mean


# --- graphs of nodes -----------------------------------------------------------------------------------------------


def _adjacency() -> Tensor:
    return (torch.rand(6, 6) > 0.5).float() + torch.eye(6)


def _messages(step: Callable[[Any, Tensor, Tensor], Tensor], **parts: Any) -> Made:
    adjacency = _adjacency()

    def run(m: Any, x: Tensor) -> Tensor:
        for _ in range(2):
            x = step(m, x, adjacency)
        return m.out(x)

    return Made({"encode": nn.Linear(D, D), **parts, "out": nn.Linear(D, 3)}, run)


def _graph_norm(m: Any, x: Tensor, a: Tensor) -> Tensor:
    y = a @ m.encode(x)
    y = y - m.mean_scale * y.mean(0, keepdim=True)
    return F.relu(m.weight * y / (y.pow(2).mean(0, keepdim=True) + 1e-5).sqrt() + m.bias)


def _attending(m: Any, x: Tensor, a: Tensor) -> Tensor:
    h = m.encode(x)
    score = F.leaky_relu(m.source(h) + m.target(h).T).masked_fill(a == 0, -1e9)
    return F.elu(score.softmax(-1) @ h)


def graphs() -> Iterator[Network]:
    """Yield networks on graphs of six nodes."""

    def one(name: str, module: Any, truth: str = "none") -> Network:
        return Network(name, "GNN", truth, module, torch.randn(6, D))

    def vector() -> Any:
        return nn.Parameter(torch.ones(D))

    yield one("GCN", _messages(lambda m, x, a: F.relu((a / a.sum(1, keepdim=True)) @ m.encode(x))))
    yield one("GAT", _messages(_attending, source=nn.Linear(D, 1), target=nn.Linear(D, 1)))
    yield one("GraphSAGE, unit lengths", _messages(lambda m, x, a: F.normalize(F.relu(a @ m.encode(x)), dim=-1)))
    yield one("GIN, BatchNorm", _messages(lambda m, x, a: F.relu(m.norm(m.encode(a @ x))), norm=nn.BatchNorm1d(D)))
    yield one("gated graph network", _messages(lambda m, x, a: m.cell(a @ m.encode(x), x), cell=nn.GRUCell(D, D)))
    yield one("GraphNorm", _messages(_graph_norm, weight=vector(), bias=vector(), mean_scale=vector()))
    yield one("PairNorm", _messages(lambda m, x, a: _pair_norm(F.relu(a @ m.encode(x)))))
    yield one("message passing, LayerNorm", _messages(
        lambda m, x, a: m.norm(x + F.relu(a @ m.encode(x))), norm=nn.LayerNorm(D)), "LayerNorm")  # fmt: skip
    yield one("message passing, RMSNorm", _messages(
        lambda m, x, a: x + F.relu(a @ m.encode(m.norm(x))), norm=RmsNorm(D)), "RMSNorm")  # fmt: skip


def _pair_norm(x: Tensor) -> Tensor:
    x = x - x.mean(0, keepdim=True)
    return x / (x.pow(2).sum(1).mean() + 1e-6).sqrt()


# --- rows of a table, mixers ----------------------------------------------------------------------------------------


def _mixer(norm: str) -> Made:
    parts = {"patch": nn.Conv2d(3, D, 4, 4), "norm1": NORMS[norm](D), "norm2": NORMS[norm](D), "norm": NORMS[norm](D),
             "tokens": nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)),
             "channels": nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D)),
             "head": nn.Linear(D, 10)}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patch(x).flatten(2).transpose(1, 2)
        x = x + m.tokens(m.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + m.channels(m.norm2(x))
        return m.head(m.norm(x).mean(1))

    return Made(parts, run)


def _experts() -> Made:
    parts = {"gate": nn.Linear(10, 4), **{f"expert{n}": nn.Linear(10, 3) for n in range(4)}}

    def run(m: Any, x: Tensor) -> Tensor:
        outputs = torch.stack([getattr(m, f"expert{n}")(x) for n in range(4)], 1)
        return (m.gate(x).softmax(-1)[..., None] * outputs).sum(1)

    return Made(parts, run)


def _towers() -> Made:
    parts = {"user": nn.Linear(10, D), "item": nn.Linear(10, D)}
    return Made(parts, lambda m, x: F.normalize(m.user(x), dim=-1) @ F.normalize(m.item(x), dim=-1).T * 20)


def _factorised() -> Made:
    parts = {"linear": nn.Linear(10, 1), "factors": nn.Linear(10, D, bias=False), "deep": nn.Sequential(
        nn.Linear(10, D), nn.ReLU(), nn.Linear(D, 1))}  # fmt: skip

    def run(m: Any, x: Tensor) -> Tensor:
        pairs = (m.factors(x).pow(2) - F.linear(x.pow(2), m.factors.weight.pow(2))).sum(-1, keepdim=True)
        return m.linear(x) + pairs / 2 + m.deep(x)

    return Made(parts, run)


def _radial() -> Made:
    parts = {"centres": nn.Parameter(torch.randn(D, 10)), "out": nn.Linear(D, 3)}

    def run(m: Any, x: Tensor) -> Tensor:
        near = torch.exp(-(x[:, None] - m.centres).pow(2).sum(-1))
        return m.out(near / (near.sum(-1, keepdim=True) + 1e-6))

    return Made(parts, run)


def tabular() -> Iterator[Network]:
    """Yield networks of linear layers."""

    def one(name: str, module: Any, truth: str = "none") -> Network:
        return Network(name, "MLP", truth, module, _table())

    line, relu = nn.Linear, nn.ReLU
    yield one("perceptron", _sequential(line(10, D), relu(), line(D, D), relu(), line(D, 3)))
    yield one("perceptron, BatchNorm", _sequential(line(10, D), nn.BatchNorm1d(D), relu(), line(D, 3)))
    yield one("self-normalising network", _sequential(line(10, D), nn.SELU(), nn.AlphaDropout(0.1), line(D, 3)))
    yield one("autoencoder of a table", _sequential(line(10, 4), nn.Tanh(), line(4, 10)))
    yield one("classifier with softmax", _sequential(line(10, D), nn.Softplus(), line(D, 3), nn.Softmax(-1)))
    yield one("mixture of experts", _experts())
    yield one("two towers of unit length", _towers())
    yield one("factorisation machine", _factorised())
    yield one("radial basis functions", _radial())
    yield one("perceptron with LayerNorm", _sequential(line(10, D), nn.LayerNorm(D), relu(), line(D, 3)), "LayerNorm")
    for norm, truth in (("ln", "LayerNorm"), ("rms", "RMSNorm"), ("none", "none"), ("dyt", "none")):
        yield Network(f"MLP-Mixer, {norm}", "mixer", truth, _mixer(norm), _image())


# --- transformers ---------------------------------------------------------------------------------------------------


def _block(norm1: Any, norm2: Any, *, after: bool = False, attend: Callable[..., Tensor] | None = None) -> Made:
    parts = {"norm1": norm1, "norm2": norm2, "qkv": nn.Linear(D, 3 * D), "proj": nn.Linear(D, D),
             "fc1": nn.Linear(D, 4 * D), "fc2": nn.Linear(4 * D, D)}  # fmt: skip
    mix = attend or _softmax

    def run(m: Any, x: Tensor) -> Tensor:
        if after:
            x = m.norm1(x + m.proj(mix(*m.qkv(x).chunk(3, -1))))
            return m.norm2(x + m.fc2(F.gelu(m.fc1(x))))
        x = x + m.proj(mix(*m.qkv(m.norm1(x)).chunk(3, -1)))
        return x + m.fc2(F.gelu(m.fc1(m.norm2(x))))

    return Made(parts, run)


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / D**0.5).softmax(-1) @ v


def _linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(1, keepdim=True).transpose(-1, -2) + 1e-6)


def _cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * 10).softmax(-1) @ v


def _stack(blocks: list[Any], final: Any) -> Made:
    parts = {"embed": nn.Embedding(WORDS, D), "blocks": nn.Sequential(*blocks), "norm": final,
             "head": nn.Linear(D, WORDS, bias=False)}  # fmt: skip
    return Made(parts, lambda m, x: m.head(m.norm(m.blocks(m.embed(x)))))


def _alike(norm: str, **options: Any) -> Made:
    return _stack([_block(NORMS[norm](D), NORMS[norm](D), **options) for _ in range(2)], NORMS[norm](D))


def _unit(m: Any, x: Tensor) -> Tensor:
    x = F.normalize(m.embed(x), dim=-1)
    return m.head(F.normalize(x + m.fc2(F.gelu(m.fc1(x))) * m.rate, dim=-1))


def _side_by_side(left: Any, right: Any) -> Made:
    parts = {"embed": nn.Embedding(WORDS, D), "encoder": nn.Sequential(*left), "decoder": nn.Sequential(*right),
             "head": nn.Linear(D, WORDS)}  # fmt: skip
    return Made(parts, lambda m, x: m.head(m.decoder(m.embed(x) + m.encoder(m.embed(x)))))


def transformers() -> Iterator[Network]:
    """Yield transformers: with one norm, with another, with both, with none."""

    def one(name: str, module: Any, truth: str) -> Network:
        return Network(name, "mixed stream" if truth == "mixed" else "transformer", truth, module, _ids())

    ln, rms = nn.LayerNorm, RmsNorm
    yield one("LayerNorm before", _alike("ln"), "LayerNorm")
    yield one("LayerNorm after", _alike("ln", after=True), "LayerNorm")
    yield one("LayerNorm without parameters", _alike("bare ln"), "LayerNorm")
    yield one("RMSNorm before", _alike("rms"), "RMSNorm")
    yield one("RMSNorm after", _alike("rms", after=True), "RMSNorm")
    yield one("no norm", _alike("none"), "none")
    yield one("dynamic tanh", _alike("dyt"), "none")
    yield one("no norm, linear attention", _alike("none", attend=_linear), "none")
    yield one("no norm, attention by angles", _alike("none", attend=_cosine), "none")
    parts = {"embed": nn.Embedding(WORDS, D), "fc1": nn.Linear(D, 2 * D), "fc2": nn.Linear(2 * D, D),
             "head": nn.Linear(D, WORDS), "rate": nn.Parameter(torch.ones(D))}  # fmt: skip
    yield one("unit lengths", Made(parts, _unit), "none")
    yield one("RMSNorm, then LayerNorm in MLPs", _stack([_block(rms(D), ln(D)) for _ in range(2)], rms(D)), "mixed")
    yield one("LayerNorm, then RMSNorm in MLPs", _stack([_block(ln(D), rms(D)) for _ in range(2)], ln(D)), "mixed")
    yield one(
        "blocks of either norm by turns",
        _stack([_block(ln(D), ln(D)), _block(rms(D), rms(D)), _block(ln(D), ln(D)), _block(rms(D), rms(D))], rms(D)),
        "mixed",
    )
    yield one(
        "LayerNorm in the first half",
        _stack([_block(ln(D), ln(D)), _block(ln(D), ln(D)), _block(rms(D), rms(D)), _block(rms(D), rms(D))], rms(D)),
        "mixed",
    )
    yield one(
        "encoder of LayerNorm, decoder of RMSNorm",
        _side_by_side([_block(ln(D), ln(D)), _block(ln(D), ln(D))], [_block(rms(D), rms(D)), _block(rms(D), rms(D))]),
        "mixed",
    )
    yield one(
        "encoder of RMSNorm, decoder of LayerNorm",
        _side_by_side([_block(rms(D), rms(D)), _block(rms(D), rms(D))], [_block(ln(D), ln(D)), _block(ln(D), ln(D))]),
        "mixed",
    )
    yield one(
        "one LayerNorm at the end of RMSNorms", _stack([_block(rms(D), rms(D)) for _ in range(4)], ln(D)), "RMSNorm"
    )
    yield one(
        "one RMSNorm at the end of LayerNorms", _stack([_block(ln(D), ln(D)) for _ in range(4)], rms(D)), "LayerNorm"
    )


def networks() -> Iterator[Network]:
    """Yield every network; weights are the same in every run."""
    torch.manual_seed(0)
    for kind in (convolutional, sequential, graphs, tabular, transformers):
        yield from kind()
