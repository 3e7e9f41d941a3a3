"""Tiny torch networks whose norms are known, for the ONNX matrix: every way that people write a norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .truth import Truth

WIDTH, HIDDEN, HEADS, VOCABULARY, LENGTH, BLOCKS = 32, 96, 4, 80, 8, 2
STREAM_NORMS = 2 * BLOCKS + 1  # before attention, before the MLP, after the last block


@dataclass(frozen=True)
class Network:
    """A network to export.

    Attributes:
        build: makes it.
        example: its inputs.
        truth: what normsniff has to find.
        skipped: exporters and rewriters that cannot process it, or that make of it what it is not.
    """

    build: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    truth: Truth
    skipped: tuple[str, ...] = ()


# --- norms -------------------------------------------------------------------------------------------------------


class _Scaled(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A norm with a scale."""

    def __init__(self, width: int, eps: float = 1e-5, initial: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), initial))
        self.eps = eps


class LlamaNorm(_Scaled):
    """transformers' LlamaRMSNorm."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class T5Norm(_Scaled):
    """transformers' T5LayerNorm: squares in float32, no cast back where the weight is float32."""

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.eps))


class GemmaNorm(_Scaled):
    """Zero-centred: multiplies with 1 + w."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1e-6, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * (1.0 + self.weight.float())).type_as(x)


class DividedNorm(_Scaled):
    """x / sqrt(mean(x²) + ε), as llama's predecessors divide."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class LengthNorm(_Scaled):
    """lucidrains' RMSNorm: a vector of length 1, times the root of the width, times γ."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1) * self.weight.numel() ** 0.5 * self.weight


class VectorNorm(_Scaled):
    """x / (‖x‖ / √d + ε) · γ, as in the RMSNorm paper's code and RWKV."""

    def forward(self, x: Tensor) -> Tensor:
        rms = x.norm(2, dim=-1, keepdim=True) * self.weight.numel() ** -0.5
        return self.weight * x / (rms + self.eps)


class CentredRms(_Scaled):
    """Subtracts the mean, then calls nn.RMSNorm: a LayerNorm in two steps."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.inner = nn.RMSNorm(width, eps=self.eps)
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - x.mean(-1, keepdim=True))


class CentredLlama(_Scaled):
    """Subtracts the mean, then does what LlamaRMSNorm does."""

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class CohereNorm(_Scaled):
    """transformers' CohereLayerNorm: spelled out, no shift."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        mean = y.mean(-1, keepdim=True)
        variance = (y - mean).pow(2).mean(-1, keepdim=True)
        return (self.weight.to(torch.float32) * ((y - mean) * torch.rsqrt(variance + self.eps))).to(x.dtype)


class _Affine(_Scaled):
    """A norm with scale and shift."""

    def __init__(self, width: int, eps: float = 1e-5, initial: float = 1.0) -> None:
        super().__init__(width, eps, initial)
        self.bias = nn.Parameter(torch.zeros(width))


class AnnotatedNorm(_Affine):
    """The annotated transformer's: γ·(x - mean) / (std + ε) + β, with the unbiased deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.bias


class VarianceNorm(_Affine):
    """Spelled out with Tensor.var."""

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(-1, keepdim=True, unbiased=False)
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class MomentsNorm(_Affine):
    """Var[x] as E[x²] - E[x]²."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x * x).mean(-1, keepdim=True) - mean * mean
        return (x - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class ShiftedLayerNorm(_Affine):
    """Nemotron's LayerNorm1P: nn.LayerNorm with 1 + w."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1e-5, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (x.shape[-1],), self.weight + 1, self.bias, self.eps)


class ShiftOnly(_Affine):
    """A LayerNorm without scale."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        del self.weight

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + self.eps) + self.bias


class NoNorm(_Affine):
    """MobileBERT's: a scale and a shift, and no norm."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class UnitLength(_Scaled):
    """Length 1: no RMSNorm, since nothing brings it back to the root of the width."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1)


class DynamicTanh(_Affine):
    """DyT: γ·tanh(αx) + β in place of a norm."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.alpha * x) + self.bias


class OverTime(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A normaliser along the other axis: channels first, and back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class RevIn(_Affine):
    """Standardises every channel over time, as RevIN does."""

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + self.eps) * self.weight + self.bias


# --- transformers ------------------------------------------------------------------------------------------------


class _Attention(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    def __init__(self, inner: Callable[[int], nn.Module] | None) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        size = WIDTH // HEADS
        self.q_norm, self.k_norm = (inner(size) if inner else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[:2]
        split = (batch, length, HEADS, WIDTH // HEADS)
        q, k = self.q_norm(self.q(x).view(split)), self.k_norm(self.k(x).view(split))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), self.v(x).view(split).transpose(1, 2)
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(split[3]), -1)
        return self.o((weights @ v).transpose(1, 2).reshape(batch, length, WIDTH))


class Transformer(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """Embeddings, blocks of attention and MLP with a norm before or after each, a last norm, a head.

    Args:
        norms: makes the norm number i of the stream.
        inner: makes the norms of queries and keys.
        order: ``pre``, ``post``, or ``sandwich`` for both.
    """

    def __init__(
        self, norms: Callable[[int], nn.Module], inner: Callable[[int], nn.Module] | None = None, order: str = "pre"
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.order = order
        self.before = nn.ModuleList(norms(i) for i in range(2 * BLOCKS)) if order != "post" else None
        self.after = nn.ModuleList(norms(i) for i in range(2 * BLOCKS)) if order != "pre" else None
        self.parts = nn.ModuleList()
        for _ in range(BLOCKS):
            mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
            self.parts.extend([_Attention(inner), mlp])
        self.last = norms(2 * BLOCKS)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(LENGTH))
        for i, part in enumerate(self.parts):
            y = part(x if self.before is None else self.before[i](x))
            if self.order == "post":
                assert self.after is not None
                x = self.after[i](x + y)
            else:
                x = x + (y if self.after is None else self.after[i](y))
        return self.head(self.last(x))


class Modulated(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A DiT-like block stack: every norm is scaled and shifted by what a condition says (adaptive norms)."""

    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm() for _ in range(2 * BLOCKS))
        self.conditions = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2 * BLOCKS))
        self.parts = nn.ModuleList()
        for _ in range(BLOCKS):
            mlp = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
            self.parts.extend([_Attention(None), mlp])
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for norm, linear, part in zip(self.norms, self.conditions, self.parts, strict=True):
            shift, scale, gate = linear(functional.silu(condition))[:, None].chunk(3, dim=-1)
            x = x + gate * part(norm(x) * (1 + scale) + shift)
        return self.head(x)


# --- convolutions ------------------------------------------------------------------------------------------------


class ChannelsFirst(_Affine):
    """ConvNeXt's LayerNorm over the channels of an image, spelled out."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        y = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + self.eps)
        return self.weight[:, None, None] * y + self.bias[:, None, None]


class ResponseNorm(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """ConvNeXt V2's global response norm: lengths over the image, divided by their mean over the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.sqrt((x * x).sum((2, 3), keepdim=True))
        return self.gamma * (x * (length / (length.mean(1, keepdim=True) + 1e-6))) + self.beta + x


class FilterResponse(ResponseNorm):
    """FRN: mean squares over the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6) * self.gamma + self.beta


class AdaptiveInstance(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """AdaIN: an instance norm scaled and shifted by a style."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.style = nn.InstanceNorm2d(width), nn.Linear(WIDTH, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.style(x.mean((2, 3)))[:, :, None, None].chunk(2, 1)
        return (1 + scale) * self.norm(x) + shift


class StandardisedConv(nn.Conv2d):  # type: ignore[misc]  # torch is Any for mypy
    """Weight standardisation: the kernel is normalised, not the data."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = (self.weight - mean).pow(2).mean((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(deviation + 1e-5)
        return functional.conv2d(x, weight, self.bias, padding=1)


class Convolutional(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """Two residual blocks of a normalised convolution, and a classifier."""

    def __init__(self, norm: Callable[[int], nn.Module], conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.convs = nn.ModuleList(conv(WIDTH, WIDTH, 3, padding=1) for _ in range(BLOCKS))
        self.norms = nn.ModuleList(norm(WIDTH) for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + torch.relu(norm(conv(x)))
        return self.head(x.mean((2, 3)))


# --- the table ---------------------------------------------------------------------------------------------------


def _stream(kind: type[nn.Module] | Callable[[int], nn.Module], **options: Any) -> Callable[[], nn.Module]:
    return lambda: Transformer(lambda _i: kind(WIDTH), **options)


def _mixed() -> nn.Module:
    return Transformer(lambda i: nn.LayerNorm(WIDTH) if i % 4 < 2 else LlamaNorm(WIDTH))


def _shared() -> nn.Module:
    norm = nn.LayerNorm(WIDTH)
    return Transformer(lambda _i: norm)


def trained(network: nn.Module) -> nn.Module:
    """Give every parameter a value of its own, as training does; nothing stays exactly 0 or 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def _truth(label: str, scale: bool = False, shift: bool = False, sites: int = STREAM_NORMS) -> Truth:
    return Truth(label, sites, sites * scale, sites * shift)


LN, RMS = "LayerNorm", "RMSNorm"
_IDS = (torch.arange(LENGTH)[None] % VOCABULARY,)
_IMAGE = (torch.randn(2, 3, 8, 8),)
_MODULATED = (torch.randn(2, LENGTH, WIDTH), torch.randn(2, WIDTH))
_LEGACY = ("torchscript11", "torchscript14", "torchscript17")
_NONE = Truth("none", 0, 0, 0)

NETWORKS: Mapping[str, Network] = {
    "LayerNorm": Network(_stream(nn.LayerNorm), _IDS, _truth(LN, True, True)),
    "LayerNorm, no shift": Network(_stream(lambda d: nn.LayerNorm(d, bias=False)), _IDS, _truth(LN, True)),
    "LayerNorm, no scale, no shift": Network(
        _stream(lambda d: nn.LayerNorm(d, elementwise_affine=False)), _IDS, _truth(LN)
    ),
    "LayerNorm, shift only": Network(_stream(ShiftOnly), _IDS, _truth(LN, False, True)),
    "LayerNorm as Cohere writes it": Network(_stream(CohereNorm), _IDS, _truth(LN, True)),
    "LayerNorm of the annotated transformer": Network(_stream(AnnotatedNorm), _IDS, _truth(LN, True, True)),
    "LayerNorm with Tensor.var": Network(_stream(VarianceNorm), _IDS, _truth(LN, True, True)),
    "LayerNorm, E[x²] - E[x]²": Network(_stream(MomentsNorm), _IDS, _truth(LN, True, True)),
    "LayerNorm with 1 + w": Network(_stream(ShiftedLayerNorm), _IDS, _truth(LN, True, True)),
    "LayerNorm, one for all": Network(_shared, _IDS, _truth(LN, True, True)),
    "LayerNorm, post-norm": Network(_stream(nn.LayerNorm, order="post"), _IDS, _truth(LN, True, True)),
    "LayerNorm, q and k": Network(
        _stream(nn.LayerNorm, inner=nn.LayerNorm), _IDS, _truth(LN, True, True, STREAM_NORMS + 2 * BLOCKS)
    ),
    "LayerNorm of channels first": Network(
        lambda: Convolutional(ChannelsFirst), _IMAGE, _truth(LN, True, True, BLOCKS),
        # its SimplifiedLayerNormalization from axis 1 on normalises the whole image, which the network did not
        ("ORT transformers", "ORT transformers, float16"),
    ),
    "mean subtracted, then nn.RMSNorm": Network(_stream(CentredRms), _IDS, _truth(LN, True), _LEGACY),
    "mean subtracted, then Llama's": Network(_stream(CentredLlama), _IDS, _truth(LN, True)),
    "adaptive LayerNorm": Network(
        lambda: Modulated(lambda: nn.LayerNorm(WIDTH, elementwise_affine=False)), _MODULATED,
        _truth(LN, sites=2 * BLOCKS),
    ),
    "adaptive RMSNorm": Network(
        lambda: Modulated(lambda: LlamaNorm(WIDTH)), _MODULATED, _truth(RMS, True, sites=2 * BLOCKS)
    ),
    "nn.RMSNorm": Network(_stream(nn.RMSNorm), _IDS, _truth(RMS, True), _LEGACY),
    "nn.RMSNorm, no scale": Network(
        _stream(lambda d: nn.RMSNorm(d, elementwise_affine=False)), _IDS, _truth(RMS), _LEGACY
    ),
    "RMSNorm of Llama": Network(_stream(LlamaNorm), _IDS, _truth(RMS, True)),
    "RMSNorm of T5": Network(_stream(T5Norm), _IDS, _truth(RMS, True)),
    "RMSNorm of Gemma": Network(_stream(GemmaNorm), _IDS, _truth(RMS, True)),
    "RMSNorm, divided": Network(_stream(DividedNorm), _IDS, _truth(RMS, True)),
    "RMSNorm by F.normalize": Network(_stream(LengthNorm), _IDS, _truth(RMS, True)),
    "RMSNorm by Tensor.norm": Network(_stream(VectorNorm), _IDS, _truth(RMS, True)),
    "RMSNorm, post-norm": Network(_stream(LlamaNorm, order="post"), _IDS, _truth(RMS, True)),
    "RMSNorm, sandwich": Network(
        _stream(GemmaNorm, order="sandwich"), _IDS, _truth(RMS, True, sites=STREAM_NORMS + 2 * BLOCKS)
    ),
    "RMSNorm, q and k": Network(
        _stream(LlamaNorm, inner=LlamaNorm), _IDS, _truth(RMS, True, sites=STREAM_NORMS + 2 * BLOCKS)
    ),
    "RMSNorm, q and k LayerNorm": Network(
        _stream(LlamaNorm, inner=nn.LayerNorm), _IDS,
        Truth(RMS, STREAM_NORMS + 2 * BLOCKS, STREAM_NORMS + 2 * BLOCKS, 2 * BLOCKS),
    ),
    "both in one stream": Network(_mixed, _IDS, Truth("mixed", STREAM_NORMS, STREAM_NORMS, 3)),
    "no norm": Network(_stream(lambda _d: nn.Identity()), _IDS, _NONE),
    "scale and shift, no norm": Network(_stream(NoNorm), _IDS, _NONE),
    "dynamic tanh": Network(_stream(DynamicTanh), _IDS, _NONE),
    "unit length": Network(_stream(UnitLength), _IDS, _NONE),
    "standardised over time": Network(_stream(RevIn), _IDS, _NONE),
    "GroupNorm of a sequence": Network(_stream(lambda d: OverTime(nn.GroupNorm(4, d))), _IDS, _NONE),
    "InstanceNorm of a sequence": Network(
        _stream(lambda d: OverTime(nn.InstanceNorm1d(d, affine=True))), _IDS, _NONE
    ),
    "BatchNorm": Network(lambda: Convolutional(nn.BatchNorm2d), _IMAGE, _NONE),
    "GroupNorm": Network(lambda: Convolutional(lambda d: nn.GroupNorm(4, d)), _IMAGE, _NONE),
    "GroupNorm of one group": Network(lambda: Convolutional(lambda d: nn.GroupNorm(1, d)), _IMAGE, _NONE),
    "InstanceNorm": Network(lambda: Convolutional(lambda d: nn.InstanceNorm2d(d, affine=True)), _IMAGE, _NONE),
    "InstanceNorm, no scale": Network(lambda: Convolutional(nn.InstanceNorm2d), _IMAGE, _NONE),
    "adaptive InstanceNorm": Network(lambda: Convolutional(AdaptiveInstance), _IMAGE, _NONE),
    "global response norm": Network(lambda: Convolutional(ResponseNorm), _IMAGE, _NONE),
    "filter response norm": Network(lambda: Convolutional(FilterResponse), _IMAGE, _NONE),
    "standardised kernels": Network(
        lambda: Convolutional(lambda _d: nn.Identity(), StandardisedConv), _IMAGE, _NONE
    ),
}  # fmt: skip
