"""Where numbers stand that a structure hangs on (lengths, counts, offsets, types), format by format, and their change.

A walker reads a file as its format has it and never fails: where the structure ends, or a file has been changed before,
the list ends too.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from .mutations import NUMBERS, Mutation, plain

MOST = 2_000
"""Fields of a file that are looked for; the first ones decide."""


class Field(NamedTuple):
    """A whole number in a file: where, how many bytes, and whether its first byte is the highest."""

    at: int
    width: int
    big: bool = False


Walker = Callable[[bytes], Iterator[Field]]


def numbers(walk: Walker) -> Mutation:
    """Return the mutation that changes fields which `walk` finds: a little, to the ends of the range, or to others."""

    @lru_cache(maxsize=64)
    def found(data: bytes) -> list[Field]:
        fields: list[Field] = []
        with contextlib.suppress(IndexError, KeyError, RecursionError):  # where the structure ends
            fields.extend(one for one in islice(walk(data), MOST))
        return [one for one in fields if 0 <= one.at <= len(data) - one.width]

    def mutate(data: bytes, rng: random.Random) -> bytes:
        fields = found(data)
        if not fields:
            return plain(data, rng)
        result = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            field, other = rng.choice(fields), rng.choice(fields)
            old = _read(data, field)
            new = rng.choice((
                rng.choice(NUMBERS), old + rng.choice((-1, 1, 2, 4, 8, -4, -8)), _read(data, other), old * 2, old // 2,
                len(data) - rng.randrange(64), other.at, rng.randrange(len(data)), 255 * 256**rng.randrange(8),
            ))  # fmt: skip
            wrapped = new % (1 << 8 * field.width)
            result[field.at : field.at + field.width] = wrapped.to_bytes(field.width, "big" if field.big else "little")
        return bytes(result)

    return mutate


def _read(data: bytes, field: Field) -> int:
    return int.from_bytes(data[field.at : field.at + field.width], "big" if field.big else "little")


def _u(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + width], "little")


_GGUF_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING, _GGUF_ARRAY = 8, 9


def gguf(data: bytes) -> Iterator[Field]:
    """Walk a GGUF file: counts, keys and their types, arrays, tensors with axes, types and offsets."""
    yield from (Field(4, 4), Field(8, 8), Field(16, 8))
    at, tensors, keys = 24, _u(data, 8, 8), _u(data, 16, 8)
    for _ in range(keys):
        yield Field(at, 8)
        at += 8 + _u(data, at, 8)
        yield Field(at, 4)
        at = yield from _gguf_values(data, at + 4, _u(data, at, 4), 1)
    for _ in range(tensors):
        yield Field(at, 8)
        at += 8 + _u(data, at, 8)
        yield Field(at, 4)
        axes, at = _u(data, at, 4), at + 4
        for i in range(min(axes, 8)):
            yield Field(at + 8 * i, 8)
        at += 8 * axes
        yield from (Field(at, 4), Field(at + 4, 8))
        at += 12


def _gguf_values(data: bytes, at: int, kind: int, count: int) -> Generator[Field, None, int]:
    """Walk values of one type; return where they end."""
    if kind not in (_GGUF_STRING, _GGUF_ARRAY):
        if count == 1:
            yield Field(at, _GGUF_WIDTHS[kind])
        return at + count * _GGUF_WIDTHS[kind]
    for i in range(count):
        if kind == _GGUF_ARRAY:
            yield from (Field(at, 4), Field(at + 4, 8))
            at = yield from _gguf_values(data, at + 12, _u(data, at, 4), _u(data, at + 4, 8))
        else:
            if i < 8:
                yield Field(at, 8)
            at += 8 + _u(data, at, 8)
    return at


_RUN = re.compile(rb"[A-Za-z_][\w./:-]{1,80}")


def ggml(data: bytes) -> Iterator[Field]:
    """Walk a file of ggml before GGUF: the numbers of its head, and those before every name whose length is one."""
    yield from (Field(at, 4) for at in range(0, 64, 4))
    for match in _RUN.finditer(data):
        at, length = match.start(), len(match[0])
        for before in range(4, 32, 4):
            if at >= before + 4 and _u(data, at - before, 4) == length:
                yield from (Field(one, 4) for one in range(at - before - 4, at, 4))
                break


def ctranslate2(data: bytes) -> Iterator[Field]:
    """Walk a model.bin of CTranslate2: version, lengths of names, axes, types, sizes, aliases."""
    yield from (Field(0, 4), Field(4, 2))
    at = 6 + _u(data, 4, 2)
    yield from (Field(at, 4), Field(at + 4, 4))
    count, at = _u(data, at + 4, 4), at + 8
    for _ in range(count):
        yield Field(at, 2)
        at += 2 + _u(data, at, 2)
        yield Field(at, 1)
        rank, at = _u(data, at, 1), at + 1
        yield from (Field(at + 4 * i, 4) for i in range(min(rank, 8)))
        at += 4 * rank
        yield from (Field(at, 1), Field(at + 1, 4))
        at += 5 + _u(data, at + 1, 4)
    yield Field(at, 4)
    count, at = _u(data, at, 4), at + 4
    for _ in range(2 * count):
        yield Field(at, 2)
        at += 2 + _u(data, at, 2)


def flatbuffer(data: bytes) -> Iterator[Field]:
    """Walk a flatbuffer from its root: tables with their layouts, vectors with their lengths and offsets."""
    yield Field(0, 4)
    waiting, seen = [_u(data, 0, 4)], set[int]()
    while waiting:
        table = waiting.pop(0)
        if table in seen or table + 4 > len(data):
            continue
        seen.add(table)
        layout = table - int.from_bytes(data[table : table + 4], "little", signed=True)
        if not 0 <= layout <= len(data) - 4:
            continue
        yield from (Field(table, 4), Field(layout, 2), Field(layout + 2, 2))
        for slot in range(layout + 4, layout + min(_u(data, layout, 2), 80), 2):
            offset = _u(data, slot, 2)
            yield Field(slot, 2)
            if not offset or table + offset + 4 > len(data):
                continue
            at = table + offset
            yield Field(at, 4)
            target = at + _u(data, at, 4)
            if at < target <= len(data) - 4:
                count = _u(data, target, 4)
                yield Field(target, 4)
                waiting.append(target)
                for i in range(min(count, 40)):
                    inner = target + 4 + 4 * i
                    if inner + 4 <= len(data):
                        yield Field(inner, 4)
                        waiting.append(inner + _u(data, inner, 4))


_MSGPACK = {  # first byte -> (bytes of the number after it, what it counts)
    0xC4: (1, "bytes"), 0xC5: (2, "bytes"), 0xC6: (4, "bytes"), 0xC7: (1, "ext"), 0xC8: (2, "ext"), 0xC9: (4, "ext"),
    0xCC: (1, ""), 0xCD: (2, ""), 0xCE: (4, ""), 0xCF: (8, ""), 0xD0: (1, ""), 0xD1: (2, ""), 0xD2: (4, ""),
    0xD3: (8, ""), 0xCA: (4, ""), 0xCB: (8, ""), 0xD9: (1, "bytes"), 0xDA: (2, "bytes"), 0xDB: (4, "bytes"),
    0xDC: (2, "items"), 0xDD: (4, "items"), 0xDE: (2, "items"), 0xDF: (4, "items"),
}  # fmt: skip


def msgpack(data: bytes) -> Iterator[Field]:
    """Walk MessagePack item by item, into extensions too: first bytes, lengths and counts."""
    at = 0
    while at < len(data):
        first = data[at]
        yield Field(at, 1)
        at += 1
        if 0xA0 <= first <= 0xBF:
            at += first & 31
        elif first in _MSGPACK:
            width, what = _MSGPACK[first]
            yield Field(at, width, big=True)
            count = int.from_bytes(data[at : at + width], "big")
            at += width
            if what == "bytes":
                at += count
            elif what == "ext":
                at += 1  # its own kind; what is in it is MessagePack again


def archive(data: bytes) -> Iterator[Field]:
    """Walk a zip archive from its end: the numbers of its end, of its directory and of the heads of members."""
    end = data.rfind(b"PK\5\6")
    if end < 0:
        return
    yield from (Field(end + 8, 2), Field(end + 10, 2), Field(end + 12, 4), Field(end + 16, 4), Field(end + 20, 2))
    at = _u(data, end + 16, 4)
    while data[at : at + 4] == b"PK\1\2":
        for offset, width in ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4)):
            yield Field(at + offset, width)
        local = _u(data, at + 42, 4)
        for offset, width in ((6, 2), (8, 2), (18, 4), (22, 4), (26, 2), (28, 2)):
            yield Field(local + offset, width)
        at += 46 + _u(data, at + 28, 2) + _u(data, at + 30, 2) + _u(data, at + 32, 2)


def npy(_data: bytes) -> Iterator[Field]:
    """The version and the length of the head of a NumPy file."""
    yield from (Field(6, 1), Field(7, 1), Field(8, 2), Field(8, 4))


def safetensors(_data: bytes) -> Iterator[Field]:
    """The length of the header."""
    yield Field(0, 8)
