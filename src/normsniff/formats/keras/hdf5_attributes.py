"""Text attributes of HDF5 objects, read from the object header by ourselves.

HDF5 2.0 must not be asked for a variable-length string of a hostile file: a length of 4 GB is allocated and cleared
before it is checked, and a heap with free space of size zero never ends (both found by flipping bytes). What Keras
needs is small: names and a configuration, as fixed or variable-length strings, scalar or in one axis.

Layout: HDF5 File Format Specification 3.0, sections IV.A (object headers), IV.A.2.m (attribute message),
III.E (global heap).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import FormatError
from ...source.local import ByteSource

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_STRING, _VARIABLE = 3, 9  # datatype classes
_HEADER_BYTES = 1 << 24  # of one object; attributes are below 64 kB each and Keras splits long ones
_MAX_BLOCKS = 4096


class _Text(NamedTuple):
    """An attribute that holds text: `number` strings of `width` bytes each in `data`."""

    data: memoryview
    number: int
    width: int
    variable: bool


class TextAttributes:
    """Reads text attributes; one object serves a whole file, since strings share heap collections.

    Args:
        source: the file.
        base: where the addresses of the file count from (the size of its user block).
    """

    def __init__(self, source: ByteSource, base: int) -> None:
        self._source = source
        self._base = base
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._objects_left = source.size // 16 + 4096  # overlapping collections could make this quadratic

    def of(self, address: int) -> dict[str, _Text]:
        """Return the text attributes in the object header at `address`, undecoded."""
        found: dict[str, _Text] = {}
        for kind, data in self._messages(self._base + address):
            if kind == _ATTRIBUTE and (attribute := _parse_attribute(data)) is not None:
                found.setdefault(*attribute)
        return found

    def strings(self, text: _Text | None, largest: int, count: int = 1) -> list[str]:
        """Decode an attribute of at most `number` strings of at most `largest` bytes; anything else gives nothing."""
        if text is None or text.number > count:
            return []
        values = [text.data[i * text.width : (i + 1) * text.width] for i in range(text.number)]
        if text.variable:
            values = [self._resolve(value) for value in values]
        if any(len(value) > largest for value in values):
            return []
        return [bytes(value).rstrip(b"\0").decode("utf-8", "replace") for value in values]

    def _messages(self, start: int) -> Iterator[tuple[int, memoryview]]:
        """Yield type and data of the messages of an object header, continuation blocks included."""
        head = self._read(start, 16)
        if bytes(head[:4]) == b"OHDR":  # version 2
            flags = head[5]
            at = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            size = int.from_bytes(self._read(start + at, width), "little")
            blocks, prefix, trailer = [(start + at + width, size)], 6 if flags & 4 else 4, 4
        elif head[0] == 1:
            blocks, prefix, trailer = [(start + 16, int.from_bytes(head[8:12], "little"))], 8, 0
        else:
            raise FormatError("bad-header", f"{self._source.name} @ {start}", "no HDF5 object header there")
        total = 0
        for number, (block_start, block_size) in enumerate(blocks):  # grows while it is walked
            total += block_size
            if total > _HEADER_BYTES or number > _MAX_BLOCKS:
                raise FormatError("large-header", f"{self._source.name} @ {start}", "an object header over the cap")
            block, at = self._read(block_start, block_size), 0
            while at + prefix <= len(block):
                kind = block[at] if trailer else int.from_bytes(block[at : at + 2], "little")
                size_at = at + (1 if trailer else 2)
                size, flags = int.from_bytes(block[size_at : size_at + 2], "little"), block[size_at + 2]
                data = block[at + prefix : at + prefix + size]
                at += prefix + size
                if kind == _CONTINUATION and len(data) >= 16:
                    offset, length = (int.from_bytes(data[i : i + 8], "little") for i in (0, 8))
                    inside = (offset + 4, length - 8) if trailer else (offset, length)  # "OCHK" ... checksum
                    if inside[1] > 0:
                        blocks.append((self._base + inside[0], inside[1]))
                elif not flags & 0x02:  # shared messages are kept elsewhere; no writer of Keras files shares
                    yield kind, data

    def _resolve(self, reference: memoryview) -> memoryview:
        """Return the string that a reference (length, address of a collection, index in it) points to."""
        length, address, index = (int.from_bytes(reference[a:b], "little") for a, b in ((0, 4), (4, 12), (12, 16)))
        if not length or not address:
            return memoryview(b"")
        if address not in self._heaps:
            self._heaps[address] = self._list_heap(self._base + address)
        start, size = self._heaps[address].get(index, (0, -1))
        if length > size:
            raise FormatError(
                "bad-heap", f"{self._source.name} @ {address}", f"no string of {length:,} bytes at {index}"
            )
        return self._read(start, length)

    def _list_heap(self, start: int) -> dict[int, tuple[int, int]]:
        """Return start and size of every object of a global heap collection, by index."""
        head = self._read(start, 16)
        size = int.from_bytes(head[8:16], "little")
        if bytes(head[:4]) != b"GCOL" or start + size > self._source.size:
            raise FormatError("bad-heap", f"{self._source.name} @ {start}", "no global heap collection there")
        objects: dict[int, tuple[int, int]] = {}
        at, end = start + 16, start + size
        while at + 16 <= end:
            entry = self._read(at, 16)
            index, length = int.from_bytes(entry[:2], "little"), int.from_bytes(entry[8:16], "little")
            self._objects_left -= 1
            if index == 0 or at + 16 + length > end or self._objects_left < 0:  # index 0 is the free space at the end
                break
            objects[index] = (at + 16, length)
            at += 16 + -(-length // 8) * 8
        return objects

    def _read(self, start: int, n: int) -> memoryview:
        if start + n > self._source.size:
            raise FormatError("truncated", f"{self._source.name} @ {start}", f"{n:,} bytes do not fit in the file")
        return self._source.read_at(start, n)


def _parse_attribute(data: memoryview) -> tuple[str, _Text] | None:
    """Return name and content of an attribute message that holds text, or None for any other."""
    if len(data) < 9 or data[0] not in (1, 2, 3) or (data[0] > 1 and data[1]):
        return None  # flags: a datatype or dataspace that is shared
    name_size, type_size, space_size = (int.from_bytes(data[i : i + 2], "little") for i in (2, 4, 6))
    unit = 8 if data[0] == 1 else 1  # version 1 pads every part
    at, parts = 9 if data[0] == 3 else 8, []
    for size in (name_size, type_size, space_size):
        parts.append(data[at : at + size])
        at += -(-size // unit) * unit
    name, kind, space = parts
    if len(kind) < 8 or len(space) < 4:
        return None
    variable = kind[0] & 15 == _VARIABLE and kind[1] & 15 == 1
    width = int.from_bytes(kind[4:8], "little")
    if not (variable and width == 16) and not (kind[0] & 15 == _STRING and width):
        return None
    first = 8 if space[0] == 1 else 4
    dims = [int.from_bytes(space[first + 8 * i : first + 8 * i + 8], "little") for i in range(space[1])]
    count = 0 if space[0] == 2 and space[3] == 2 else math.prod(dims)
    if len(dims) > 1 or count * width > len(data) - at:
        return None
    return bytes(name).rstrip(b"\0").decode("utf-8", "replace"), _Text(data[at:], count, width, variable)
