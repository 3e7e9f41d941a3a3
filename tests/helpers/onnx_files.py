"""ONNX files written field by field, so that they may be large, cyclic or wrong."""

from __future__ import annotations

import math
import struct


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number: int, *parts: bytes | str) -> bytes:
    data = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
    return varint(number << 3 | 2) + varint(len(data)) + data


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def node(kind: str, inputs: list[str], outputs: list[str], *attributes: bytes, domain: str = "") -> bytes:
    ends = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    more = b"".join(field(5, one) for one in attributes)
    return ends + field(4, kind) + more + (field(7, domain) if domain else b"")


def number(name: str, *shape: int) -> bytes:
    dims = b"".join(integer(1, n) for n in shape)
    return dims + integer(2, 1) + field(8, name) + field(9, struct.pack("<f", 1.0) * math.prod(shape))


def onnx(nodes: list[bytes], functions: list[bytes] | None = None, weights: tuple[bytes, ...] = ()) -> bytes:
    graph = b"".join(field(1, one) for one in nodes) + b"".join(field(5, one) for one in weights)
    graph += field(11, field(1, "x")) + field(12, field(1, "y"))
    return integer(1, 9) + field(7, graph) + b"".join(field(25, one) for one in functions or [])
