"""Model files made on the spot: as large as wanted, with holes where no byte matters."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, MERGES, TENSORS = 150_000, 280_000, 300
LLAMAS = {"0.1 GB": (4, 768, 2048, 16_000), "1 GB": (12, 1792, 4864, 32_000), "3 GB": (20, 2560, 6912, 48_000),
          "8 GB": (32, 3072, 8192, 64_000), "13 GB": (32, 4096, 11_008, 32_000)}  # fmt: skip
"""Layers, d_model, width of the MLP and vocabulary of models of these sizes in BF16."""


def llama(layers: int, d: int, f: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a Llama."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{x}_proj.weight": (d, d) for x in "qkvo"}
        shapes |= {f"{at}.mlp.{x}_proj.weight": (f, d) for x in ("gate", "up")} | {f"{at}.mlp.down_proj.weight": (d, f)}
        shapes |= {f"{at}.{x}_layernorm.weight": (d,) for x in ("input", "post_attention")}
    return shapes | {"model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}


def write_safetensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """Write a BF16 safetensors file that is one hole behind its header."""
    header: dict[str, dict[str, Any]] = {}
    at = 0
    for name, shape in shapes.items():
        stop = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def write_llama(folder: Path, layers: int, d: int, f: int, vocabulary: int) -> Path:
    """Write a Llama of holes, with weights that look trained wherever the first batch of a plan reads."""
    import normsniff

    rng = np.random.default_rng(5)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": d}))
    path = folder / "model.safetensors"
    write_safetensors(path, llama(layers, d, f, vocabulary))
    sizes = np.exp(rng.normal(0, 0.4, 1 << 15))  # vectors of unequal norms, as training leaves them
    with path.open("r+b") as file:
        for step in normsniff.plan(path).steps:
            if step.what == "scales":
                _fill(file, step.ranges, lambda n, _: rng.uniform(0.4, 1.6, n))
            elif step.batch == 1:
                _fill(file, step.ranges, lambda n, rows: rng.normal(0, 0.02, n) * _sizes(sizes, n, d, rows))
    return path


def _sizes(sizes: Any, n: int, d: int, rows: bool) -> Any:
    if not rows:
        return sizes[:n] if n <= sizes.size else np.resize(sizes, n)
    return np.repeat(np.resize(sizes, -(-n // d)), d)[:n]


def _fill(file: Any, ranges: Sequence[Any], values: Any) -> None:
    for one in ranges:
        for i in range(one.count):
            numbers = values(one.length // 2, one.count == 1).astype(np.float32)
            file.seek(one.offset + i * one.stride)
            file.write((numbers.view(np.uint32) >> 16).astype("<u2").tobytes())


def write_gguf(path: Path, tokens: int = TOKENS, merges: int = MERGES, tensors: int = TENSORS) -> None:
    """Write a GGUF whose header is as heavy as those of large vocabularies, with tiny tensors."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def array(key: str, kind: int, count: int, body: bytes) -> bytes:
        return text(key) + struct.pack("<IIQ", 9, kind, count) + body

    words = b"".join(text(f"tok{i:x}") for i in range(tokens))
    pairs = b"".join(text(f"a{i:x} b{i % 977:x}") for i in range(merges))
    infos = b"".join(text(f"blk.{i}.attn_norm.weight") + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(tensors))
    header = b"GGUF" + struct.pack("<IQQ", 3, tensors, 4)
    header += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    header += array("tokenizer.ggml.tokens", 8, tokens, words)
    header += array("tokenizer.ggml.token_type", 5, tokens, bytes(4 * tokens))
    header += array("tokenizer.ggml.merges", 8, merges, pairs)
    header += infos
    path.write_bytes(header + bytes(-len(header) % 32 + 32 * tensors))


def write_onnx(path: Path, initialisers: int = 12, side: int = 2048) -> None:
    """Write an inline ONNX model of matrix products; 12 of 2048 x 2048 in F32 make 201 MB."""
    import onnx
    from onnx import TensorProto, helper

    weight = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32).tobytes()
    values = [
        helper.make_tensor(f"w{i}", TensorProto.FLOAT, (side, side), weight, raw=True) for i in range(initialisers)
    ]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(initialisers)]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, (1, side)) for i in (0, initialisers)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "products", ends[:1], ends[1:], values)), str(path))
