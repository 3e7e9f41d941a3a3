"""Flax files against the msgpack library: what it unpacks is what we locate, and the verdict is that of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff import decode, sniff
from normsniff.inputs.shards import open_model
from normsniff.limits import Limits
from tests.helpers.manifest import FIXTURES

msgpack = pytest.importorskip("msgpack")
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings", "wte", "wpe", "embed_tokens")


def pack(value: Any) -> Any:
    """As ``flax.serialization._msgpack_ext_pack``."""
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes()), use_bin_type=True))
    if isinstance(value, complex):
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
    return value


def unpack(code: int, data: bytes) -> Any:
    if code != 1:
        return None
    shape, dtype, content = msgpack.unpackb(data)
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    return np.frombuffer(content, kind).reshape(shape)


def flat(value: Any, name: str = "") -> dict[str, NDArray[Any]]:
    if isinstance(value, np.ndarray):
        return {name: value}
    found: dict[str, NDArray[Any]] = {}
    for key, inner in value.items() if isinstance(value, dict) else ():
        found |= flat(inner, f"{name}/{key}".strip("/"))
    return found


def save(value: Any, path: Path) -> Path:
    path.write_bytes(msgpack.packb(value, default=pack, strict_types=True))
    return path


def test_every_value(tmp_path: Path) -> None:
    values = np.arange(70_000, dtype=np.float32)
    value = {
        "params": {
            "small": values[:3], "wide": values, "half": values[:300].astype(ml_dtypes.bfloat16),
            "cube": values[:24].reshape(2, 3, 4), "empty": values[:0], "scalar": np.asarray(3.0),
            **{f"x{i}": values[:i] for i in range(40)},
        },
        "batch_stats": {"mean": values[:4]}, "name": "x" * 300, "epoch": 70_000, "lr": 0.1, "done": None, "z": 1 + 2j,
        "minus": -70_000, "flag": True, "list": [1, 2, 3] * 10, "key": b"abc",
    }  # fmt: skip
    path = save(value, tmp_path / "x.msgpack")
    expected = flat(msgpack.unpackb(path.read_bytes(), ext_hook=unpack))
    checkpoint = open_model(path)
    assert list(checkpoint.tensors) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(decode.read(checkpoint.tensors[name], Limits()), array.astype(np.float32))
    checkpoint.close()


def flax_tree(name: str) -> dict[str, Any]:
    """The weights of a fixture with the names and axes that transformers gives them in Flax."""
    checkpoint = open_model(FIXTURES / name / "model.safetensors")
    tree: dict[str, Any] = {}
    for key, tensor in checkpoint.tensors.items():
        value = decode.read(tensor, Limits())
        *path, leaf = key.split(".")
        if leaf == "weight":
            norm = "norm" in path[-1].lower() or path[-1].startswith("ln_")
            leaf = "scale" if norm else "embedding" if path[-1] in EMBEDDINGS else "kernel"
            if leaf == "kernel" and value.ndim == 2 and not key.startswith("transformer."):  # GPT-2 has (in, out)
                value = np.ascontiguousarray(value.T)
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    checkpoint.close()
    return tree


@pytest.mark.parametrize("name", ["gpt2-ln", "bert-ln", "llama-rms"])
def test_the_verdict_is_that_of_safetensors(tmp_path: Path, name: str) -> None:
    path = save(flax_tree(name), tmp_path / "flax_model.msgpack")
    (tmp_path / "config.json").write_bytes((FIXTURES / name / "config.json").read_bytes())
    expected, found = sniff(FIXTURES / name / "model.safetensors"), sniff(path)
    assert (found.label, found.confidence) == (expected.label, expected.confidence)
    assert len(found.norms) == len(expected.norms)
    assert {norm.role for norm in found.norms} == {norm.role for norm in expected.norms}
    roles = [
        sorted((s.role, s.direction, s.layer or 0, round(s.rho, 5)) for s in one.shadows) for one in (expected, found)
    ]
    assert roles[0] == roles[1]
    assert not found.warnings


def test_linen_names(tmp_path: Path) -> None:
    """A model of flax.linen with the names that it makes up: kernels with a head axis, numbered classes."""
    random = np.random.default_rng(0)
    d, heads, width = 64, 4, 16

    def kernel(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    def norm() -> dict[str, NDArray[np.float32]]:
        return {"scale": (1 + kernel(d) / 10).astype(np.float32), "bias": kernel(d)}

    def dense(*shape: int, inputs: int = 1) -> dict[str, NDArray[np.float32]]:
        return {"kernel": kernel(*shape), "bias": kernel(*shape[inputs:])}

    def block() -> dict[str, Any]:
        parts = {part: dense(d, heads, width) for part in ("query", "key", "value")}
        return {
            "LayerNorm_0": norm(),
            "MultiHeadDotProductAttention_0": {**parts, "out": dense(heads, width, d, inputs=2)},
            "LayerNorm_1": norm(),
            "MlpBlock_0": {"Dense_0": dense(d, 256), "Dense_1": dense(256, d)},
        }

    tree = {"params": {"Transformer": {**{f"encoderblock_{i}": block() for i in range(2)}, "encoder_norm": norm()}}}
    found = sniff(save(tree, tmp_path / "x.msgpack"), evidence=("declared", "layout", "kernel"))
    assert len(found.norms) == 5
    assert found.d_model == d
    sides = {(s.role, s.tensor.rpartition("/")[0].rpartition("/")[2], s.axis) for s in found.shadows}
    assert {("writer", "out", 2), ("writer", "Dense_1", 1)} <= sides
    assert {("reader", "query", 0), ("reader", "Dense_0", 0)} <= sides
