"""Mutations of what holds others: members of zip and tar archives, opcodes of pickles; all around stays right."""

from __future__ import annotations

import io
import pickletools
import random
import zipfile
from collections.abc import Mapping
from functools import lru_cache

from .mutations import NUMBERS, Mutation, again, plain

_BLOCK = 512


def members(inner: Mapping[str, Mutation]) -> Mutation:
    """Return a mutation of one member of a zip archive, whose checksums and directory stay right.

    Args:
        inner: mutations by the ending of a member's name; of others bytes are changed, and more rarely.
    """

    def mutate(data: bytes, rng: random.Random) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
        except Exception:  # noqa: BLE001 - damaged before: zipfile and zlib have a dozen words for that
            return plain(data, rng)
        if not parts:
            return plain(data, rng)
        known = [name for name in parts if name.endswith(tuple(inner))]
        chosen = rng.choice(known if known and rng.random() < 0.8 else list(parts))
        change = next((one for ending, one in inner.items() if chosen.endswith(ending)), plain)
        content = change(parts.pop(chosen), rng)
        if rng.random() < 0.95:
            parts[chosen if rng.random() < 0.95 else rng.choice((chosen + "x", chosen * 2, "../" + chosen))] = content
        out = io.BytesIO()
        how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        with zipfile.ZipFile(out, "w", how) as to:
            for name, one in parts.items():
                to.writestr(zipfile.ZipInfo(name), one, how)  # of no date: a seed gives the same file again
        return out.getvalue()

    return mutate


def tar(inner: Mapping[str, Mutation]) -> Mutation:
    """Return a mutation of a field of a tar archive, with the checksum mended, or of a member's content; see `members`.

    Content that gets another length moves what follows to the next block, as the archive has it.
    """

    def mutate(data: bytes, rng: random.Random) -> bytes:
        heads = _heads(data)
        if not heads:
            return plain(data, rng)
        at, size, name = rng.choice(heads)
        if rng.random() < 0.5:
            return _with_field(data, at, rng)
        change = next((one for ending, one in inner.items() if name.endswith(ending)), plain)
        content = change(data[at + _BLOCK : at + _BLOCK + size], rng)
        head = bytearray(data[at : at + _BLOCK])
        head[124:136] = b"%011o\0" % len(content)
        _check(head)
        padded = content + bytes(-len(content) % _BLOCK)
        return data[:at] + bytes(head) + padded + data[at + _BLOCK + -(-size // _BLOCK) * _BLOCK :]

    return mutate


def _heads(data: bytes) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    at = 0
    while at + _BLOCK <= len(data) and data[at + 257 : at + 262] == b"ustar" and len(found) < 1000:
        try:
            size = int(data[at + 124 : at + 135].strip(b" \0") or b"0", 8)
        except ValueError:
            break
        found.append((at, size, data[at : at + 100].rstrip(b"\0").decode("latin-1")))
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return found


def _with_field(data: bytes, at: int, rng: random.Random) -> bytes:
    head = bytearray(data[at : at + _BLOCK])
    start, end = rng.choice(((0, 100), (124, 136), (124, 136), (156, 157), (345, 500), (257, 265)))
    new = rng.choice((
        b"%o" % rng.choice(NUMBERS), b"\x80" + rng.randbytes(11), b"\xff" * 12, b"", b"7" * 12, b"-1", b"L", b"x", b"g",
        b"S", b"1", b"5", b"../../x", rng.randbytes(end - start),
    ))  # fmt: skip
    head[start:end] = new[: end - start].ljust(end - start, b"\0")
    if rng.random() < 0.9:
        _check(head)
    return data[:at] + bytes(head) + data[at + _BLOCK :]


def _check(head: bytearray) -> None:
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)


@lru_cache(maxsize=64)
def _opcodes(data: bytes) -> list[tuple[int, int, str]]:
    """Return begin, end and name of the opcodes of the first pickles in a file; a PyTorch stream begins with five."""
    found: list[tuple[int, int, str]] = []
    base = 0
    for _ in range(5):
        begun: tuple[int, str] | None = None
        try:
            for opcode, _argument, at in pickletools.genops(io.BytesIO(data[base:])):
                if begun is not None and at is not None:
                    found.append((base + begun[0], base + at, begun[1]))
                begun = (at or 0, opcode.name)
                if len(found) > 20_000:
                    return found
        except Exception:  # noqa: BLE001 - pickletools raises what it likes
            break
        if begun is None:
            break
        base += begun[0] + 1
    return found


def pickle(data: bytes, rng: random.Random) -> bytes:
    """Drop, repeat, move or exchange opcodes, or change what one of them takes."""
    opcodes = _opcodes(data)
    if not opcodes:
        return plain(data, rng)
    start, stop, name = rng.choice(opcodes)
    kind = rng.randrange(7)
    if kind == 0:
        return data[:start] + data[stop:]
    if kind == 1:
        return data[:stop] + again(data[start:stop], rng.choice((1, 2, 500))) + data[stop:]
    if kind == 2:
        other = rng.choice(opcodes)
        return data[:start] + data[other[0] : other[1]] + data[stop:]
    if kind == 3:  # a run of them again
        last = opcodes[min(len(opcodes) - 1, opcodes.index((start, stop, name)) + rng.randrange(20))][1]
        return data[:stop] + data[start:last] + data[stop:]
    if kind == 4:
        number = rng.choice(NUMBERS)
        plain_ones = (b"N", b")", b"}", b"]", b"0", b"2", b"\x88")
        long = b"\x8a\x09" + number.to_bytes(9, "little")
        new = rng.choice((b"K" + bytes([number & 255]), b"J" + (number & 0xFFFFFFFF).to_bytes(4, "little"), long))
        new = rng.choice((new, rng.choice(plain_ones)))
        return data[:start] + new + data[stop:]
    if kind == 5 and stop - start > 1:  # its own argument
        changed = plain(data[start + 1 : stop], rng)
        return data[: start + 1] + changed + data[stop:]
    result = bytearray(data)
    for at in range(start + 1, min(stop, start + 9)):
        result[at] = rng.choice((0, 1, 127, 128, 255))
    return bytes(result)
