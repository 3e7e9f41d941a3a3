"""Mutations of bytes: anywhere, and of fields of protobuf messages, the lengths around which stay right."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53,
           2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Where counters end, in every width, and what lies next to that."""


MOST = 1_000_000
"""Bytes that a repetition may come to: mutations of mutations would fill the memory otherwise."""


def again(piece: bytes, times: int) -> bytes:
    """Return a piece so often, or as often as is sensible."""
    return piece * max(1, min(times, MOST // max(len(piece), 1)))


def plain(data: bytes, rng: random.Random) -> bytes:
    """Change bytes and runs, mostly near the front, where headers are."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if not found:
            break
        at = rng.randrange(min(len(found), rng.choice((64, 1024, 8192, len(found)))))
        kind = rng.randrange(6)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            width, order = rng.choice("BHIQ"), rng.choice("<>")
            number = rng.choice(NUMBERS) & ((1 << 8 * struct.calcsize(width)) - 1)
            found[at : at + struct.calcsize(width)] = struct.pack(order + width, number)
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            del found[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            run = found[at : at + rng.randrange(1, 256)]
            found[at:at] = run * rng.choice((1, 2, 100))
        else:
            other = rng.randrange(len(found))
            found[at : at + 16] = found[other : other + 16]
    return bytes(found)


def protobuf(data: bytes, rng: random.Random) -> bytes:
    """Change, drop, repeat or move one field of a message at any depth; the lengths of all around it stay right."""
    fields = _fields(data)
    if not fields:
        return plain(data, rng)
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    if wire == 2 and isinstance(value, bytes) and rng.random() < 0.85 and _fields(value):
        fields[at] = number, wire, protobuf(value, rng)
    else:
        kind = rng.randrange(5)
        if kind == 0:
            del fields[at]
        elif kind == 1:
            size = len(value) if isinstance(value, bytes) else 1
            fields[at:at] = [fields[at]] * min(rng.choice((1, 2, 200)), max(1, MOST // max(size, 1)))
        elif kind == 2:
            fields.insert(rng.randrange(len(fields)), fields.pop(at))
        elif wire == 0:
            fields[at] = number, wire, rng.choice(NUMBERS)
        else:
            found = rng.choice(fields)[2]
            fields[at] = number, wire, found if kind == 3 and isinstance(found, bytes) else plain(_bytes(value), rng)
    return b"".join(_encoded(*one) for one in fields)


_Field = tuple[int, int, "int | bytes"]


def _fields(data: bytes) -> list[_Field]:
    """Return the fields of a message; none if it is no message."""
    found: list[_Field] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire, number = tag & 7, tag >> 3
        if wire == 0:
            value, at = _varint(data, at)
            found.append((number, wire, value))
        elif wire in (1, 2, 5):
            n, at = (8 if wire == 1 else 4, at) if wire != 2 else _varint(data, at)
            found.append((number, wire, data[at : at + n]))
            at += n
        else:
            return []
        if not number or at > len(data) or len(found) > 100_000:
            return []
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
    return value, len(data) + 1


def _encoded(number: int, wire: int, value: int | bytes) -> bytes:
    head = _write(number << 3 | wire)
    if isinstance(value, int):
        return head + _write(value)
    return head + (_write(len(value)) + value if wire == 2 else value[:8].ljust(8 if wire == 1 else 4, b"\0"))


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else _write(value)


def _write(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
