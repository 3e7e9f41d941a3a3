"""Record what a transformers model's norms and blocks put out, with PyTorch hooks, for `normsniff readout`.

python examples/record_torch.py fixtures/gpt2-ln activations.npz
normsniff readout activations.npz fixtures/gpt2-ln
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import transformers


def record(model: Any, batches: Iterable[dict[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """Run the model over the batches; return the outputs of the named modules, one row a token."""
    seen: dict[str, list[Any]] = {name: [] for name in names}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            seen[name].append(output.detach().reshape(-1, output.shape[-1]).cpu().numpy())

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in seen]
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(rows) for name, rows in seen.items()}


def modules(model: Any) -> list[str]:
    """Return the names of the norms and of the blocks: the modules of a list named layers, layer, h or blocks."""
    norms = [name for name, module in model.named_modules() if "Norm" in type(module).__name__]
    lists = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = [
        f"{name}.{i}"
        for name in lists
        if name.rpartition(".")[2] in ("layers", "layer", "h", "blocks")
        for i in range(len(model.get_submodule(name)))
    ]
    return norms + blocks


if __name__ == "__main__":
    folder, output = sys.argv[1:]
    model = getattr(transformers, transformers.AutoConfig.from_pretrained(folder).architectures[0]).from_pretrained(
        folder
    )
    model.eval().double()  # in float32 an exact kernel shows round-off of 1e-14 of the median eigenvalue
    generator = torch.Generator().manual_seed(0)
    length = min(128, model.config.max_position_embeddings)
    # Random tokens: an exact kernel is there on any input. For anything else that you want to know, take real text.
    ids = torch.randint(
        model.config.vocab_size, (4 * model.config.hidden_size // length + 1, length), generator=generator
    )
    np.savez(output, **record(model, ({"input_ids": row[None]} for row in ids), modules(model)))
