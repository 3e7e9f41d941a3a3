"""One transformer with many switches. Tensors are named as Hugging Face models name theirs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh, "relu2": lambda x: F.relu(x) ** 2}
CONTEXT = 56  # a position table with sides that look like nothing else


@dataclass(frozen=True)
class Shape:
    """The switches; the names of the levels are those of the plan."""

    norm: str
    d: int
    layers: int
    vocabulary: int
    placement: str = "pre"
    biases: bool = True
    glu: bool = False
    activation: str = "gelu"
    tied: bool = False
    positions: str = "rotary"
    qk_norm: bool = False
    experts: int = 0
    causal: bool = True
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 4
    dropout: float = 0.0
    vision: bool = False
    audio: bool = False
    recurrent: bool = False
    embedding_norm: bool = False


class Norm(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """LayerNorm, RMSNorm and what stands in their place.

    ``dyt`` is tanh(αx)·γ + β, ``derf`` erf(αx + s)·γ + β, ``group`` GroupNorm with one group: the mean and the variance
    of all positions together.
    """

    def __init__(self, kind: str, d: int) -> None:
        super().__init__()
        self.kind, self.d = kind, d
        if kind.endswith("-zero"):
            self.weight = nn.Parameter(torch.zeros(d))
        elif kind in ("ln", "ln-noshift", "rms", "dyt", "derf", "group"):
            self.weight = nn.Parameter(torch.ones(d))
        if kind in ("ln", "ln-zero", "dyt", "derf", "group"):
            self.bias = nn.Parameter(torch.zeros(d))
        if kind in ("dyt", "derf"):
            self.alpha = nn.Parameter(torch.tensor(0.7))
        if kind == "derf":
            self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis."""
        if self.kind == "none":
            return x
        if self.kind == "l2":
            return F.normalize(x, dim=-1)
        if self.kind in ("dyt", "derf"):
            bent = torch.tanh(self.alpha * x) if self.kind == "dyt" else torch.erf(self.alpha * x + self.shift)
            return bent * self.weight + self.bias
        if self.kind == "group":
            return F.layer_norm(x, x.shape[-2:]) * self.weight + self.bias
        scale = getattr(self, "weight", None)
        scale = scale + 1 if scale is not None and self.kind.endswith("-zero") else scale
        if self.kind.startswith("ln"):
            return F.layer_norm(x, (self.d,), scale, getattr(self, "bias", None), 1e-5)
        return F.rms_norm(x, (self.d,), scale, 1e-6)


def _rotate(x: torch.Tensor) -> torch.Tensor:
    n, half = x.shape[-2], x.shape[-1] // 2
    angle = torch.arange(n)[:, None] * 1000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half : 2 * half]
    turned = torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)
    return torch.cat([turned, x[..., 2 * half :]], -1)


class Attention(nn.Module):  # type: ignore[misc]
    """Multi-head attention, grouped if `kv_heads` is smaller."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.c, self.size = c, c.d // c.heads
        self.q_proj = nn.Linear(c.d, c.heads * self.size, bias=c.biases)
        self.k_proj = nn.Linear(c.d, c.kv_heads * self.size, bias=c.biases)
        self.v_proj = nn.Linear(c.d, c.kv_heads * self.size, bias=c.biases)
        self.o_proj = nn.Linear(c.heads * self.size, c.d, bias=c.biases)
        if c.qk_norm:
            self.q_norm, self.k_norm = Norm(c.norm, self.size), Norm(c.norm, self.size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend."""
        b, n, _ = x.shape
        c = self.c
        q, k, v = (
            f(x).view(b, n, h, self.size).transpose(1, 2)
            for f, h in ((self.q_proj, c.heads), (self.k_proj, c.kv_heads), (self.v_proj, c.kv_heads))
        )
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if c.positions == "rotary":
            q, k = _rotate(q), _rotate(k)
        if c.kv_heads < c.heads:
            k, v = (t.repeat_interleave(c.heads // c.kv_heads, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=c.causal)
        return self.o_proj(y.transpose(1, 2).reshape(b, n, -1))


class MLP(nn.Module):  # type: ignore[misc]
    """Feed-forward, gated or not."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.act = ACTIVATIONS[c.activation]
        if c.glu:
            self.gate_proj = nn.Linear(c.d, c.hidden, bias=c.biases)
        self.up_proj = nn.Linear(c.d, c.hidden, bias=c.biases)
        self.down_proj = nn.Linear(c.hidden, c.d, bias=c.biases)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform each position."""
        up = self.up_proj(x)
        return self.down_proj(self.act(self.gate_proj(x)) * up if hasattr(self, "gate_proj") else self.act(up))


class Experts(nn.Module):  # type: ignore[misc]
    """A dense mixture of experts: every expert runs, the router weighs the two best."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.gate = nn.Linear(c.d, c.experts, bias=False)
        self.experts = nn.ModuleList(MLP(c) for _ in range(c.experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Route and mix."""
        logits = self.gate(x)
        best = logits.topk(2, -1).values[..., -1:]
        share = logits.masked_fill(logits < best, -1e9).softmax(-1)
        return sum(share[..., i : i + 1] * e(x) for i, e in enumerate(self.experts))


class StateSpace(nn.Module):  # type: ignore[misc]
    """A diagonal linear recurrence, run as a convolution, and a gate."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.in_proj = nn.Linear(c.d, 4 * c.d, bias=c.biases)
        self.out_proj = nn.Linear(2 * c.d, c.d, bias=c.biases)
        self.decay = nn.Parameter(torch.linspace(-3, 3, 2 * c.d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix positions, past ones only."""
        n = x.shape[1]
        u, gate = self.in_proj(x).chunk(2, -1)
        kernel = torch.exp(-F.softplus(self.decay) * torch.arange(n)[:, None])
        f = torch.fft.rfft(u, n=2 * n, dim=1) * torch.fft.rfft(kernel, n=2 * n, dim=0)
        return self.out_proj(torch.fft.irfft(f, n=2 * n, dim=1)[:, :n] * F.silu(gate))


_NORMS = {
    "pre": ("input_layernorm", "", "post_attention_layernorm", ""),
    "post": ("", "sa_layer_norm", "", "output_layer_norm"),
    "sandwich": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    ),
    "olmo2": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "parallel": ("input_layernorm", "", "", ""),
    "partial": ("input_layernorm", "", "", ""),
    "deepnorm": ("", "sa_layer_norm", "", "output_layer_norm"),
    "ngpt": ("", "", "", ""),
}  # fmt: skip
"""``partial``: the MLP reads the stream as it is. ``deepnorm``: post-norm with a residual that weighs more (Wang et
al., "DeepNet", arXiv 2203.00555). ``ngpt``: no norm, but a stream and matrices of unit length (Loshchilov et al., arXiv
2410.01131)."""


class Block(nn.Module):  # type: ignore[misc]
    """Attention and MLP with norms before, after, on both sides, on the way back, or one for both in parallel."""

    def __init__(self, c: Shape, layer: int) -> None:
        super().__init__()
        self.placement, self.dropout = c.placement, c.dropout
        self.residual = (2 * c.layers) ** 0.25
        recurrent = c.recurrent and layer % 2 == 0
        self.mixing = "mixer" if recurrent else "self_attn"
        self.add_module(self.mixing, StateSpace(c) if recurrent else Attention(c))
        self.mlp = Experts(c) if c.experts else MLP(c)
        if c.placement == "ngpt":
            self.attn_alpha, self.mlp_alpha = (nn.Parameter(torch.full((c.d,), 0.1)) for _ in range(2))
        for name in _NORMS[c.placement]:
            if name:
                self.add_module(name, Norm(c.norm, c.d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to the stream."""
        a, b, e, f = (getattr(self, n) if n else (lambda y: y) for n in _NORMS[self.placement])

        def drop(y: torch.Tensor) -> torch.Tensor:
            return F.dropout(y, self.dropout, self.training)

        mix = getattr(self, self.mixing)
        if self.placement == "parallel":
            h = a(x)
            return x + drop(mix(h)) + drop(self.mlp(h))
        if self.placement in ("post", "deepnorm"):
            weight = self.residual if self.placement == "deepnorm" else 1.0
            x = b(weight * x + drop(mix(x)))
            return f(weight * x + drop(self.mlp(x)))
        if self.placement == "ngpt":
            x = F.normalize(x + self.attn_alpha * (F.normalize(mix(x), dim=-1) - x), dim=-1)
            return F.normalize(x + self.mlp_alpha * (F.normalize(self.mlp(x), dim=-1) - x), dim=-1)
        x = x + drop(b(mix(a(x))))
        return x + drop(f(self.mlp(e(x))))


class _Body(nn.Module):  # type: ignore[misc]
    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.c = c
        if c.vision:
            self.patch_embed = nn.Module()
            self.patch_embed.proj = nn.Conv1d(1, c.d, 16, 16) if c.audio else nn.Conv2d(1, c.d, 4, 4)
        else:
            self.embed_tokens = nn.Embedding(c.vocabulary, c.d)
        if c.positions == "learned" or c.vision:
            self.embed_positions = nn.Embedding(CONTEXT, c.d)
        if c.embedding_norm or c.placement in ("post", "deepnorm"):
            self.embed_norm = Norm(c.norm, c.d)
        self.layers = nn.ModuleList(Block(c, layer) for layer in range(c.layers))
        if c.placement not in ("post", "deepnorm", "ngpt"):
            self.norm = Norm(c.norm, c.d)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids.flatten(2) if self.c.audio else ids
        x = self.patch_embed.proj(ids).flatten(2).transpose(1, 2) if self.c.vision else self.embed_tokens(ids)
        if hasattr(self, "embed_positions"):
            x = x + self.embed_positions.weight[: x.shape[1]]
        if hasattr(self, "embed_norm"):
            x = self.embed_norm(x)
        for block in self.layers:
            x = block(x)
        return self.norm(x) if hasattr(self, "norm") else x


class Transformer(nn.Module):  # type: ignore[misc]
    """Ids or images to logits."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.c = c
        self.model = _Body(c)
        self.lm_head = nn.Linear(c.d, 10 if c.vision else c.vocabulary, bias=c.vision)
        if c.tied and not c.vision:
            self.lm_head.weight = self.model.embed_tokens.weight
        if c.placement == "ngpt":
            self.sz = nn.Parameter(torch.full((self.lm_head.out_features,), 10.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.model(ids)
        out = self.lm_head(x.mean(1) if self.c.vision else x)
        return out * self.sz if hasattr(self, "sz") else out

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def constrain(self) -> None:
        """Put the matrices of nGPT back to unit length along the stream; nothing in other networks."""
        if self.c.placement == "ngpt":
            for p in (p for p in self.parameters() if p.ndim == 2 and self.c.d in p.shape):
                p.copy_(F.normalize(p, dim=1 if p.shape[1] == self.c.d else 0))


def initialise(model: nn.Module, how: str, depth: int, depth_scaled: bool) -> None:
    """Fill all matrices: ``normal:0.02`` and the like, ``xavier``, ``orthogonal``, ``fan-in``; biases become zero.

    ``zero`` is ``fan-in`` with the writers at zero.
    """
    for name, p in model.named_parameters():
        if p.ndim < 2:
            if name.endswith("bias") and "norm" not in name:
                nn.init.zeros_(p)
            continue
        if how.startswith("normal:") or "embed" in name:
            nn.init.normal_(p, std=float(how.partition(":")[2] or 0.02))
        elif how in ("fan-in", "zero"):
            writes = "o_proj" in name or "down_proj" in name or "out_proj" in name
            nn.init.normal_(p, std=0.0 if how == "zero" and writes else p[0].numel() ** -0.5)
        elif how == "xavier":
            nn.init.xavier_uniform_(p)
        else:
            nn.init.orthogonal_(p.view(p.shape[0], -1), 0.7)
        if depth_scaled and ("o_proj" in name or "down_proj" in name):
            with torch.no_grad():
                p.mul_((2 * depth) ** -0.5)
