"""Models of real shapes whose files take no room: headers are written, the weights after them are holes."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def llama(layers: int, d: int = 4096, f: int = 11008, vocabulary: int = 32_000) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a Llama in the order of its layers."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{one}_proj.weight": (d, d) for one in "qkvo"}
        shapes |= {f"{at}.mlp.{one}_proj.weight": (f, d) for one in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (d, f)}
        shapes |= {f"{at}.{one}_layernorm.weight": (d,) for one in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}


def write_safetensors(path: Path, shapes: Shapes, *, seed: int = 0) -> None:
    """Write a BF16 file: vectors hold scales around 1, all else is a hole."""
    places = dict(zip(shapes, pairwise(accumulate(map(_nbytes, shapes.values()), initial=0)), strict=True))
    header = {name: {"dtype": "BF16", "shape": shapes[name], "data_offsets": place} for name, place in places.items()}
    text = json.dumps(header).encode()
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + sum(map(_nbytes, shapes.values())))
        for name, shape in shapes.items():
            if len(shape) == 1:
                file.seek(8 + len(text) + places[name][0])
                file.write((rng.normal(1, 0.1, shape).astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes())


def write_sharded(directory: Path, shapes: Shapes, shards: int) -> int:
    """Write shards of about one size, their index and a config.json; return the bytes of all weights."""
    total = sum(map(_nbytes, shapes.values()))
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(shards)]
    at = 0
    for name, shape in shapes.items():
        parts[min(at * shards // total, shards - 1)][name] = shape
        at += _nbytes(shape)
    where: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        write_safetensors(directory / file, part, seed=number)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "rms_norm_eps": 1e-5}
    (directory / "config.json").write_text(json.dumps(config))
    return total


def _nbytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)
