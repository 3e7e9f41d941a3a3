"""Files of CTranslate2 built by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

RNG = np.random.default_rng(8)
D = 16
TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variable(name: str, array: Any) -> bytes:
    array = np.asarray(array)
    head = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    kind = struct.pack("<BI", TYPES[array.dtype.name], array.nbytes)
    return b"".join((text(name), head, kind, array.tobytes()))


def model(variables: Mapping[str, Any], aliases: Mapping[str, str] | None = None, spec: str = "WhisperSpec") -> bytes:
    data = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(variables))
    data += b"".join(variable(name, array) for name, array in sorted(variables.items()))
    pairs = sorted((aliases or {}).items())
    return data + struct.pack("<I", len(pairs)) + b"".join(text(a) + text(b) for a, b in pairs)


def floats(*shape: int, around: float = 0.0) -> Any:
    return (around + 0.1 * RNG.standard_normal(shape)).astype(np.float32)


def block(prefix: str, *, shift: bool, cross: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("self_attention", "attention", "ffn") if cross else ("self_attention", "ffn"):
        found[f"{prefix}/{part}/layer_norm/gamma"] = floats(D, around=1.0)
        if shift:
            found[f"{prefix}/{part}/layer_norm/beta"] = floats(D)
    found[f"{prefix}/self_attention/linear_0/weight"] = floats(3 * D, D)
    found[f"{prefix}/self_attention/linear_1/weight"] = floats(D, D)
    if cross:
        found[f"{prefix}/attention/linear_0/weight"] = floats(D, D)
        found[f"{prefix}/attention/linear_1/weight"] = floats(2 * D, D)
        found[f"{prefix}/attention/linear_2/weight"] = floats(D, D)
    found[f"{prefix}/ffn/linear_0/weight"] = floats(4 * D, D)
    found[f"{prefix}/ffn/linear_1/weight"] = floats(D, 4 * D)
    return found


def decoder(*, shift: bool, layers: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = {"decoder/pre_norm": np.int8(1), "decoder/num_heads": np.int16(4)}
    for i in range(layers):
        found |= block(f"decoder/layer_{i}", shift=shift)
    found["decoder/embeddings/weight"] = floats(40, D)
    found["decoder/projection/weight"] = floats(40, D)
    found["decoder/layer_norm/gamma"] = floats(D, around=1.0)
    if shift:
        found["decoder/layer_norm/beta"] = floats(D)
    return found


def whisper() -> dict[str, Any]:
    found = decoder(shift=True, layers=0) | block("decoder/layer_0", shift=True, cross=True)
    found |= block("encoder/layer_0", shift=True)
    found["encoder/conv1/weight"] = floats(D, 8, 3)
    found["encoder/layer_norm/gamma"], found["encoder/layer_norm/beta"] = floats(D, around=1.0), floats(D)
    return found


def quantised(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the converter does: whole numbers to 127 in every row, the divisor beside them."""
    found: dict[str, Any] = {}
    for name, array in variables.items():
        if name.endswith("/weight"):
            scale = 127 / np.abs(array.reshape(len(array), -1)).max(1)
            stored = np.rint(array * scale.reshape(-1, *[1] * (array.ndim - 1)))
            found[name], found[f"{name}_scale"] = stored.astype(np.int8), scale.astype(np.float32)
        else:
            found[name] = array
    return found
