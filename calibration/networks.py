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
    embedding_norm: bool = False


class Norm(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """LayerNorm, RMSNorm and what stands in their place."""

    def __init__(self, kind: str, d: int) -> None:
        super().__init__()
        self.kind, self.d = kind, d
        if kind.endswith("-zero"):
            self.weight = nn.Parameter(torch.zeros(d))
        elif kind in ("ln", "ln-noshift", "rms", "dyt"):
            self.weight = nn.Parameter(torch.ones(d))
        if kind in ("ln", "ln-zero", "dyt"):
            self.bias = nn.Parameter(torch.zeros(d))
        if kind == "dyt":
            self.alpha = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis."""
        if self.kind == "none":
            return x
        if self.kind == "dyt":
            return torch.tanh(self.alpha * x) * self.weight + self.bias
        scale = getattr(self, "weight", None)
        scale = scale + 1 if self.kind.endswith("-zero") else scale
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


_NORMS = {
    "pre": ("input_layernorm", "", "post_attention_layernorm", ""),
    "post": ("", "sa_layer_norm", "", "output_layer_norm"),
    "sandwich": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    ),
    "olmo2": ("", "post_attention_layernorm", "", "post_feedforward_layernorm"),
    "parallel": ("input_layernorm", "", "", ""),
}  # fmt: skip


class Block(nn.Module):  # type: ignore[misc]
    """Attention and MLP with norms before, after, on both sides, on the way back, or one for both in parallel."""

    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.placement, self.dropout = c.placement, c.dropout
        self.self_attn = Attention(c)
        self.mlp = Experts(c) if c.experts else MLP(c)
        for name in _NORMS[c.placement]:
            if name:
                self.add_module(name, Norm(c.norm, c.d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to the stream."""
        a, b, e, f = (getattr(self, n) if n else (lambda y: y) for n in _NORMS[self.placement])

        def drop(y: torch.Tensor) -> torch.Tensor:
            return F.dropout(y, self.dropout, self.training)

        if self.placement == "parallel":
            h = a(x)
            return x + drop(self.self_attn(h)) + drop(self.mlp(h))
        if self.placement == "post":
            x = b(x + drop(self.self_attn(x)))
            return f(x + drop(self.mlp(x)))
        x = x + drop(b(self.self_attn(a(x))))
        return x + drop(f(self.mlp(e(x))))


class _Body(nn.Module):  # type: ignore[misc]
    def __init__(self, c: Shape) -> None:
        super().__init__()
        self.c = c
        if c.vision:
            self.patch_embed = nn.Module()
            self.patch_embed.proj = nn.Conv2d(1, c.d, 4, 4)
        else:
            self.embed_tokens = nn.Embedding(c.vocabulary, c.d)
        if c.positions == "learned" or c.vision:
            self.embed_positions = nn.Embedding(CONTEXT, c.d)
        if c.embedding_norm or c.placement == "post":
            self.embed_norm = Norm(c.norm, c.d)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        if c.placement != "post":
            self.norm = Norm(c.norm, c.d)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
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

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.model(ids)
        return self.lm_head(x.mean(1) if self.c.vision else x)


def initialise(model: nn.Module, how: str, depth: int, depth_scaled: bool) -> None:
    """Fill all matrices: ``normal:0.02`` and the like, ``xavier`` or ``orthogonal``; biases become zero."""
    for name, p in model.named_parameters():
        if p.ndim < 2:
            if name.endswith("bias") and "norm" not in name:
                nn.init.zeros_(p)
            continue
        if how.startswith("normal:") or "embed" in name:
            nn.init.normal_(p, std=float(how.partition(":")[2] or 0.02))
        elif how == "xavier":
            nn.init.xavier_uniform_(p)
        else:
            nn.init.orthogonal_(p.view(p.shape[0], -1), 0.7)
        if depth_scaled and ("o_proj" in name or "down_proj" in name):
            with torch.no_grad():
                p.mul_((2 * depth) ** -0.5)
