"""Files of ggml before GGUF, written as the converters write them, whose headers all differ."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]


def records(arrays: Arrays, alignment: int = 1, at: int = 0) -> bytes:
    """Tensors that start at byte `at` of a file."""
    out = bytearray()
    for name, array in arrays.items():
        kind = {"float32": 0, "float16": 1}[array.dtype.name]
        out += struct.pack("<3i", array.ndim, len(name), kind) + struct.pack(f"<{array.ndim}i", *array.shape[::-1])
        out += name.encode()
        out += bytes(-(at + len(out)) % alignment) + array.tobytes()
    return bytes(out)


def vocabulary(words: int, scores: bool = False) -> bytes:
    said = [f"w{i}".encode() * (1 + i % 5) for i in range(words)]
    return b"".join(struct.pack("<i", len(one)) + one + bytes(4 * scores) for one in said)


def whisper(arrays: Arrays, n_mels: int = 8, words: int = 300) -> bytes:
    """As convert-pt-to-ggml.py: 11 sizes, mel filters, a vocabulary."""
    mel = np.random.default_rng(0).random((n_mels, 21), dtype=np.float32)
    head = struct.pack("<4s11i", b"lmgg", words, 1500, 32, 2, 2, 448, 32, 2, 2, n_mels, 1)
    return (
        head
        + struct.pack("<2i", *mel.shape)
        + mel.tobytes()
        + struct.pack("<i", words)
        + vocabulary(words)
        + records(arrays)
    )
