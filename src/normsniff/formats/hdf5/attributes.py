"""Attributes that hold text: names, versions, a configuration (sections IV.A.2.m and IV.A.2.v).

Fixed or variable-length strings, scalar or in one axis, compact or in dense storage. Other attributes are passed over.
"""

from __future__ import annotations

from typing import NamedTuple

from .datatypes import STRING, read_datatype, read_shape
from .file import Fields, Structure
from .headers import ATTRIBUTE, ATTRIBUTE_INFO, DATASPACE, DATATYPE, Header, shared
from .heaps import FractalHeap, GlobalHeaps
from .trees import records

_BY_NAME = 8  # type of the B-tree that finds attributes by the hash of their names


class Text(NamedTuple):
    """An attribute that holds text: `number` strings of `width` bytes each in `data`."""

    data: memoryview
    number: int
    width: int
    variable: bool


def list_texts(header: Header) -> dict[str, Text]:
    """Return the text attributes of an object by name, undecoded.

    Raises:
        FormatError: an attribute is damaged.
    """
    file = header.file
    found: dict[str, Text] = {}
    for message in header.all(ATTRIBUTE):
        _note(file, Fields(file, message.data, message.origin), found)
    info = header.find(ATTRIBUTE_INFO)
    if info is not None:
        info.skip(1)
        info.skip(2 if info.number(1) & 1 else 0)  # the largest index of creation
        heap_address, tree_address = info.address(), info.address()
        if heap_address is not None and tree_address is not None:
            heap = FractalHeap(file, heap_address)
            for record in records(file, tree_address, _BY_NAME):
                if not record[heap.id_size] & 2:  # not in a table of shared messages
                    _note(file, Fields(file, heap.get(record[: heap.id_size]), heap_address), found)
    return found


def read_texts(heaps: GlobalHeaps, text: Text | None, largest: int, count: int = 1) -> list[str]:
    """Decode an attribute of at most `count` strings of at most `largest` bytes; anything else gives nothing.

    Raises:
        FormatError: a string is not where the attribute says.
    """
    if text is None or text.number > count:
        return []
    values: list[str] = []
    for i in range(text.number):
        value: memoryview | None = text.data[i * text.width : (i + 1) * text.width]
        if text.variable and value is not None:
            value = heaps.text(value, largest)
        if value is None or len(value) > largest:
            return []
        values.append(bytes(value).rstrip(b"\0").decode("utf-8", "replace"))
    return values


def _note(file: Structure, fields: Fields, found: dict[str, Text]) -> None:
    """Read an attribute message, and keep it if it holds text."""
    version, flags = fields.number(1), fields.number(1)
    if version not in (1, 2, 3):
        return
    flags = flags if version > 1 else 0
    sizes = [fields.number(2) for _ in range(3)]  # of name, type and shape
    fields.skip(1 if version == 3 else 0)  # character set
    parts: list[memoryview] = []
    for size in sizes:
        parts.append(fields.take(size))
        fields.skip(-size % 8 if version == 1 else 0)
    kind, space = (
        shared(file, Fields(file, part, fields.origin), message) if flags & bit else part
        for part, bit, message in ((parts[1], 1, DATATYPE), (parts[2], 2, DATASPACE))
    )
    datatype, shape = read_datatype(Fields(file, kind, fields.origin)), read_shape(Fields(file, space, fields.origin))
    if not (datatype.text and datatype.size == 8 + file.address_size) and not (
        datatype.kind == STRING and datatype.size
    ):
        return
    number = 0 if shape is None else shape[0][0] if shape[0] else 1
    if (shape is not None and len(shape[0]) > 1) or number * datatype.size > fields.remaining:
        return
    name = bytes(parts[0]).rstrip(b"\0").decode("utf-8", "replace")
    text = Text(fields.take(number * datatype.size), number, datatype.size, datatype.text)
    found.setdefault(name, text)
