"""Train small transformers with and without `normsniff.Penalty`, and print its effect on ρ and on the loss.

    python examples/penalty.py [STEPS]

The text is the source of Python's standard library, read as bytes. Four runs, equal but for the norm and the weight
of the penalty; the loss is that of the text alone, on a part that no run trains on.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import normsniff

D, LAYERS, CONTEXT, BATCH = 64, 3, 64, 16


class Model(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A pre-norm language model over bytes."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(256, D), nn.Embedding(CONTEXT, D)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(D, 4, 4 * D, dropout=0.0, norm_first=True, batch_first=True)
            for _ in range(LAYERS)
        )
        for layer in self.layers:
            layer.norm1, layer.norm2 = norm(D), norm(D)
        self.norm, self.head = norm(D), nn.Linear(D, 256, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits of the next byte at every position."""
        n = ids.shape[1]
        x = self.embed(ids) + self.position.weight[:n]
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.head(self.norm(x))


def batches(text: torch.Tensor, seed: int) -> torch.Tensor:
    """Return random pieces of the text, one byte longer than the context."""
    starts = torch.randint(len(text) - CONTEXT, (BATCH,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([text[i : i + CONTEXT + 1] for i in starts])


def loss_of(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the next byte, in nats."""
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def train(norm: type[nn.Module], weight: float, steps: int, text: torch.Tensor) -> Model:
    """Train one model with `weight` times the penalty added to its loss."""
    torch.manual_seed(0)
    model = Model(norm)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    penalty = normsniff.Penalty(dict(model.named_parameters()))
    for step in range(steps):
        loss = loss_of(model, batches(text, step))
        if weight:
            loss = loss + weight * sum(penalty(dict(model.named_parameters())).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def main(steps: int) -> None:
    """Print one row a run."""
    stdlib = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    data = b"".join(path.read_bytes() for path in stdlib)
    text = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    split = len(text) * 9 // 10
    print(f"{'norm':<10} {'penalty':>7} {'loss':>7} {'writers ρ':>10} {'readers ρ':>10} {'P(LayerNorm)':>13}")
    for norm in (nn.LayerNorm, nn.RMSNorm):
        for weight in (0.0, 0.1):
            model = train(norm, weight, steps, text[:split])
            with torch.no_grad():
                loss = sum(float(loss_of(model, batches(text[split:], i))) for i in range(20)) / 20
            seen = normsniff.monitor(model.state_dict(), prefix="")
            p = seen.get("p_layernorm")
            print(
                f"{norm.__name__:<10} {weight:>7} {loss:>7.3f} {seen['rho_writers']:>10.3g}"
                f" {seen['rho_readers']:>10.3g} {'–' if p is None else f'{p:.1%}':>13}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
