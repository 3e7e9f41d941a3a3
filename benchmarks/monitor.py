"""What watching a network costs: a call of `normsniff.Monitor` against a training step of 110 million parameters.

    python -m benchmarks.monitor [TOKENS...]

The network is a pre-norm transformer (12 layers, d = 768, tied embedding of 32,768 tokens) in float32; a step is
forward, backward and AdamW on one sequence of TOKENS tokens (512 and 2,048 by default). Steps and calls take turns, so
that whatever else the machine does slows both; figures are medians of CPU seconds over all threads.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import normsniff

D, LAYERS, VOCABULARY = 768, 12, 32_768
STEPS = 4
TOKENS = (512, 2_048)


class Network(nn.Module):  # type: ignore[misc]  # torch is Any for mypy
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(VOCABULARY, D), nn.LayerNorm(D)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(D, 12, 4 * D, dropout=0.0, norm_first=True, batch_first=True)
            for _ in range(LAYERS)
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.embed.weight.T


def seconds(action: Callable[[], Any]) -> float:
    """Return the CPU seconds of an action over all threads of the process."""
    started = time.process_time()
    action()
    return time.process_time() - started


def main(lengths: list[int]) -> None:
    """Print one row a length."""
    torch.manual_seed(0)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters())
    parameters = dict(network.named_parameters())
    plan = statistics.median(seconds(lambda: normsniff.Monitor(parameters)) for _ in range(3))
    monitor = normsniff.Monitor(parameters)
    monitor(parameters)

    def step(ids: torch.Tensor) -> None:
        optimiser.zero_grad()
        F.cross_entropy(network(ids)[0, :-1], ids[0, 1:]).backward()
        optimiser.step()

    print(f"{sum(p.numel() for p in parameters.values()):,} parameters, {torch.get_num_threads()} threads")
    print(f"plan, once: {1e3 * plan:.0f} ms")
    print(f"{'tokens':>7} {'step':>9} {'call':>8} {'share':>7}")
    for length in lengths:
        ids = torch.randint(VOCABULARY, (1, length))
        step(ids)  # the first one allocates
        pairs = [(seconds(lambda: step(ids)), seconds(lambda: monitor(parameters))) for _ in range(STEPS)]  # noqa: B023
        per_step, per_call = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{length:>7,} {per_step:>7.2f} s {1e3 * per_call:>5.0f} ms {per_call / per_step:>7.2%}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(TOKENS))
