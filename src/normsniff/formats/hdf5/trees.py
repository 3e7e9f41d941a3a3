"""The two kinds of B-trees, as streams of what their leaves hold (sections III.A.1 and III.A.2)."""

from __future__ import annotations

from collections.abc import Iterator

from .file import Fields, Structure, defined

_DEPTH = 32  # of version 2, whose nodes hold dozens of records; version 1 has as many levels as its root says


def leaves(file: Structure, address: int, kind: int, key_size: int) -> Iterator[tuple[memoryview, int]]:
    """Yield key and child of every entry of the leaves of a B-tree of version 1.

    Args:
        file: the file.
        address: of the root.
        kind: 0 of groups, 1 of chunks.
        key_size: bytes of a key.

    Raises:
        FormatError: a node is not one of such a tree, or is in it twice.
    """
    wide = file.address_size
    pending: list[tuple[int, int | None]] = [(address, None)]
    seen = {address}
    while pending:
        origin, expected = pending.pop()
        head = file.fields(origin, 8 + 2 * wide, b"TREE")
        found, level, used = head.number(1), head.number(1), head.number(2)
        if found != kind or (expected is not None and level != expected):
            file.fail("bad-tree", origin, "a node that does not belong into its B-tree")
        entries = file.read(origin + 8 + 2 * wide, used * (key_size + wide))
        file.charge(used, 0)
        children: list[tuple[int, int | None]] = []
        for at in range(0, len(entries), key_size + wide):
            child = defined(entries[at + key_size : at + key_size + wide])
            if child is None:
                file.fail("bad-tree", origin, "an entry of a B-tree that leads nowhere")
            if level == 0:
                yield entries[at : at + key_size], child
            elif child in seen:
                file.fail("cycle", child, "a node that is in a B-tree twice")
            else:
                seen.add(child)
                children.append((child, level - 1))
        pending.extend(reversed(children))


def records(file: Structure, address: int, kind: int) -> Iterator[memoryview]:
    """Yield the records of a B-tree of version 2, those of inner nodes before those of their children.

    Args:
        file: the file.
        address: of its header.
        kind: the type that it must have.

    Raises:
        FormatError: a node is not one of such a tree, or is in it twice.
    """
    head = file.fields(address, 16 + file.address_size + 2 + file.length_size, b"BTHD")
    version, found, node_size = head.number(1), head.number(1), head.number(4)
    size, depth = head.number(2), head.number(2)
    head.skip(2)
    root, count = head.address(), head.number(2)
    if version != 0 or found != kind or not size or node_size < 10 + size or depth > _DEPTH:
        file.fail("bad-tree", address, f"a B-tree of type {found} where one of type {kind} belongs")
    if root is None or not count:
        return
    widths = _pointer_widths(node_size, size, depth, file.address_size)
    pending, seen = [(root, count, depth)], {root}
    while pending:
        origin, count, level = pending.pop()
        pointers = (count + 1) * (file.address_size + sum(widths[level - 1])) if level else 0
        if 10 + count * size + pointers > node_size:
            file.fail("bad-tree", origin, f"{count:,} records in a node of {node_size:,} bytes")
        node = file.fields(origin, 6 + count * size + pointers, b"BTIN" if level else b"BTLF")
        node.skip(1)
        if node.number(1) != kind:
            file.fail("bad-tree", origin, "a node that does not belong into its B-tree")
        file.charge(count, 0)
        held = node.take(count * size)
        for at in range(0, len(held), size):
            yield held[at : at + size]
        children = [_child(node, *widths[level - 1]) for _ in range(count + 1)] if level else []
        for child, number in children:
            if child is None or child in seen:
                file.fail("cycle", origin, "a node of a B-tree that is in it twice, or nowhere")
            seen.add(child)
            pending.append((child, number, level - 1))


def _child(node: Fields, number_width: int, total_width: int) -> tuple[int | None, int]:
    """Read a pointer to a child: its address and how many records it holds."""
    address, number = node.address(), node.number(number_width)
    node.skip(total_width)
    return address, number


def _pointer_widths(node_size: int, size: int, depth: int, address_size: int) -> list[tuple[int, int]]:
    """Return, of pointers to nodes of every level, the bytes of their number of records and of that of all below.

    They are as many as the largest possible number takes, which follows from how many records fit into a node.
    """
    most = total = (node_size - 10) // size
    number_width, total_width = _bytes_of(most), 0
    widths = [(number_width, 0)]
    for _ in range(1, depth):
        pointer = address_size + number_width + total_width
        most = max((node_size - 10 - pointer) // (size + pointer), 0)
        total = (most + 1) * total + most
        total_width = _bytes_of(total)
        widths.append((number_width, total_width))
    return widths


def _bytes_of(largest: int) -> int:
    return max((largest.bit_length() + 7) // 8, 1)
