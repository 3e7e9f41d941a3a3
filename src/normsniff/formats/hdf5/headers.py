"""Object headers: the messages that say what an object is (section IV.A)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .file import Fields, Structure

DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE = 1, 2, 3, 6, 7, 8, 11, 12
CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x10, 0x11, 0x15
_SHARED = 2  # flag of a message whose content is elsewhere
_HEADER_BYTES = 1 << 24  # of one object: attributes are below 64 kB each, larger ones are kept outside of it


class Message(NamedTuple):
    """One message: its type, its flags and its content; `origin` is the address of the block that holds it."""

    kind: int
    flags: int
    data: memoryview
    origin: int


@dataclass(frozen=True, slots=True)
class Header:
    """The messages of an object, in their order; `address` is its identity in the file."""

    file: Structure
    address: int
    messages: tuple[Message, ...]

    def has(self, kind: int) -> bool:
        """Whether there is such a message."""
        return any(message.kind == kind for message in self.messages)

    def find(self, kind: int) -> Fields | None:
        """Return a cursor over the first message of a type, or None; content that is shared is looked up."""
        for message in self.messages:
            if message.kind == kind:
                data = message.data
                if message.flags & _SHARED:
                    data = shared(self.file, Fields(self.file, data, message.origin), kind)
                return Fields(self.file, data, message.origin)
        return None

    def all(self, kind: int) -> Iterator[Message]:
        """Yield the messages of a type whose content is in this header."""
        return (message for message in self.messages if message.kind == kind and not message.flags & _SHARED)


def read_header(file: Structure, address: int) -> Header:
    """Read the object header at `address`, continuation blocks included.

    Raises:
        FormatError: there is none, or it does not end.
    """
    head = file.read(address, 16)
    if bytes(head[:4]) == b"OHDR" and head[4] == 2:
        flags = head[5]
        start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)  # times, attribute thresholds
        width = 1 << (flags & 3)
        size = int.from_bytes(file.read(start, width), "little")
        prefix = 6 if flags & 4 else 4  # with the order of creation or without
        messages = _list_messages(file, start + width, size, 2, prefix)
    elif head[0] == 1:
        messages = _list_messages(file, address + 16, int.from_bytes(head[8:12], "little"), 1, 8)
    else:
        file.fail("bad-header", address, "no HDF5 object header there")
    return Header(file, address, tuple(messages))


def shared(file: Structure, pointer: Fields, kind: int) -> memoryview:
    """Return the content of a message that is kept in the header of another object (section IV.A.2, "shared")."""
    version, where = pointer.number(1), pointer.number(1)
    if version == 1:
        pointer.skip(6)
    elif version == 3 and where != 2:  # 2: committed, 1: in a table of messages of the whole file
        file.fail("unsupported", pointer.origin, "an HDF5 file with a table of shared messages")
    address = pointer.address()
    if address is None or version not in (1, 2, 3):
        file.fail("bad-header", pointer.origin, "a shared message that is nowhere")
    if address not in file.committed:
        found = next(read_header(file, address).all(kind), None)
        if found is None:
            file.fail("bad-header", address, "a shared message that is not there")
        file.committed[address] = found.data
    return file.committed[address]


def _list_messages(file: Structure, start: int, size: int, version: int, prefix: int) -> Iterator[Message]:
    """Yield the messages of a header whose first block is at `start`, and of the blocks that continue it."""
    blocks, total = {start: size}, 0
    pending = [start]
    for origin in pending:  # grows while it is walked
        total += blocks[origin]
        if total > _HEADER_BYTES:
            file.fail("large-header", start, f"an object header over {_HEADER_BYTES:,} bytes")
        block, at = file.read(origin, blocks[origin]), 0
        wide = 3 - version  # bytes of the type
        while at + prefix <= len(block):
            file.charge(1, 0)
            kind = int.from_bytes(block[at : at + wide], "little")
            length, flags = int.from_bytes(block[at + wide : at + wide + 2], "little"), block[at + wide + 2]
            data = block[at + prefix : at + prefix + length]
            at += prefix + length
            if kind != CONTINUATION:
                yield Message(kind, flags, data, origin)
                continue
            pointer = Fields(file, data, origin)
            address, length = pointer.address(), pointer.length()
            if address is None or address + (4 if version == 2 else 0) in blocks:
                file.fail("bad-header", origin, "an object header that continues nowhere, or in itself")
            if version == 2:  # between a signature and a checksum
                if bytes(file.read(address, 4)) != b"OCHK":
                    file.fail("bad-header", address, "no continuation of an object header there")
                address, length = address + 4, max(length - 8, 0)
            blocks[address] = length
            pending.append(address)
