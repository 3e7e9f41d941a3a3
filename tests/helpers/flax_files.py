"""Flax files built by hand: MessagePack is written here, so that broken files can be written, too."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def text(value: str) -> bytes:
    data = value.encode()
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xda" + struct.pack(">H", len(data))) + data


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else b"\xcf" + struct.pack(">Q", value)


def binary(data: bytes) -> bytes:
    return b"\xc6" + struct.pack(">I", len(data)) + data


def extension(data: bytes, code: int = 1) -> bytes:
    return b"\xc9" + struct.pack(">Ib", len(data), code) + data


def array(shape: tuple[int, ...], dtype: str, data: bytes, code: int = 1) -> bytes:
    axes = bytes([0x90 | len(shape)]) if len(shape) < 16 else b"\xdc" + struct.pack(">H", len(shape))
    return extension(b"\x93" + axes + b"".join(map(number, shape)) + text(dtype) + binary(data), code)


def tree(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"\xde" + struct.pack(">H", len(value)) + b"".join(text(k) + tree(v) for k, v in value.items())
    if isinstance(value, list):
        return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(tree, value))
    if isinstance(value, np.ndarray):
        return array(value.shape, value.dtype.name, value.tobytes())
    if isinstance(value, int):
        return number(value)
    assert isinstance(value, bytes)
    return value  # as it is
