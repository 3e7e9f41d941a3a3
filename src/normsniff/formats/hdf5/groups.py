"""Members of groups, in the three ways in which they are stored (sections III.C, IV.A.2.c, g, k and r)."""

from __future__ import annotations

from typing import NamedTuple

from .file import Fields, Structure, defined
from .headers import LINK, LINK_INFO, SYMBOL_TABLE, Header
from .heaps import FractalHeap, local_heap
from .trees import leaves, records

_BY_NAME = 5  # type of the B-tree that finds links by the hash of their names
_SOFT_SYMBOL = 2  # kind of cache of an entry that is a soft link


class GroupLink(NamedTuple):
    """A member of a group; `address` is None where it is no hard link (soft, external, of a user's kind)."""

    name: str
    address: int | None


def is_group(header: Header) -> bool:
    """Whether an object is a group."""
    return header.has(SYMBOL_TABLE) or header.has(LINK_INFO)


def list_links(header: Header) -> list[GroupLink]:
    """Return the members of a group, in the order of the file; no link is followed.

    Raises:
        FormatError: the group is damaged.
    """
    file = header.file
    table = header.find(SYMBOL_TABLE)
    if table is not None:
        return _symbols(file, table.address(), table.address())
    links = [_parse_link(Fields(file, message.data, message.origin)) for message in header.all(LINK)]
    info = header.find(LINK_INFO)
    assert info is not None  # `is_group`
    info.skip(1)
    info.skip(8 if info.number(1) & 1 else 0)  # the largest index of creation
    heap_address, tree_address = info.address(), info.address()
    if heap_address is not None and tree_address is not None:
        heap = FractalHeap(file, heap_address)
        found = (heap.get(record[4:]) for record in records(file, tree_address, _BY_NAME))  # after a hash
        links.extend(_parse_link(Fields(file, data, heap_address)) for data in found)
    return links


def _symbols(file: Structure, tree: int | None, heap: int | None) -> list[GroupLink]:
    """Return the links of a group of the old style: a B-tree of tables of symbols, and a heap of names."""
    if tree is None or heap is None:
        file.fail("bad-group", 0, "a group without its table of members")
    names, wide = local_heap(file, heap), file.address_size
    links: list[GroupLink] = []
    size = 2 * wide + 24
    seen: set[int] = set()
    for _, address in leaves(file, tree, 0, file.length_size):
        if address in seen:
            file.fail("cycle", address, "a table of symbols that is in a group twice")
        seen.add(address)
        head = file.fields(address, 8, b"SNOD")
        head.skip(2)
        count = head.number(2)
        table = file.read(address + 8, count * size)
        file.charge(count, 0)
        for at in range(0, len(table), size):
            entry = Fields(file, table[at : at + size], address)
            name = _name(file, names, int.from_bytes(entry.take(wide), "little"), heap)
            target = defined(entry.take(wide))
            links.append(GroupLink(name, None if entry.number(4) == _SOFT_SYMBOL else target))
    return links


def _name(file: Structure, names: memoryview, start: int, heap: int) -> str:
    """Return the name at an offset of a local heap, which ends with a zero byte."""
    step, stop, piece = 64, -1, b""
    while stop < 0:
        if start + len(piece) >= len(names):
            file.fail("bad-name", heap, "a name that does not end")
        piece = bytes(names[start : start + step])
        stop = piece.find(b"\0")
        step *= 4
    file.charge(0, stop)  # names may overlap
    return piece[:stop].decode("utf-8", "backslashreplace")


def _parse_link(link: Fields) -> GroupLink:
    """Read a link message."""
    link.skip(1)
    flags = link.number(1)
    kind = link.number(1) if flags & 8 else 0
    link.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))  # order of creation, character set
    name = bytes(link.take(link.number(1 << (flags & 3)))).decode("utf-8", "backslashreplace")
    return GroupLink(name, link.address() if kind == 0 else None)
