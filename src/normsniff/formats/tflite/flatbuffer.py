"""FlatBuffers, read field by field: every offset is checked, and nothing is read but what is asked for.

A small file can describe an enormous structure, as tables may be shared, so what bounds the work is a budget of
bytes visited, not the size of the file. Source: "FlatBuffer Internals" in the FlatBuffers documentation.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ... import meter
from ...errors import FormatError, LimitExceeded
from ...source.local import ByteSource

_LEAST = 64  # what a visit costs at least: a call takes as long as reading so many bytes
_TAKE = 3  # steps, beside those of the read itself
_SCALARS = {code: struct.Struct(f"<{code}") for code in "bBhHiIqQf"}


_FIELDS = 64  # of a table; the schema of TFLite has up to a dozen


class Flat:
    """A flatbuffer that fills a source from its start."""

    def __init__(self, source: ByteSource, budget: int) -> None:
        self.source = source
        self._spent, self._budget = 0, budget
        self._hash = hashlib.sha256()
        self._layouts: dict[int, tuple[int, ...]] = {}

    def root(self) -> Table:
        """Return the root table."""
        return Table(self, self.number("I", 0))

    def digest(self) -> str:
        """Return the SHA-256 of all that was visited, in the order of the visits."""
        return self._hash.hexdigest()

    def take(self, at: int, n: int) -> memoryview:
        """Return bytes of the structure."""
        if at < 0 or at + n > self.source.size:
            self.fail(at, f"{n:,} bytes are needed here, the file ends at {self.source.size:,}")
        self._spent += max(n, _LEAST)
        if self._spent > self._budget:
            raise LimitExceeded(self.source.name, "bytes of the graph", self._budget, self._spent)
        meter.charge(_TAKE, "reading the structure")
        data = self.source.read_at(at, n)
        self._hash.update(data)
        return data

    def layout(self, at: int) -> tuple[int, ...]:
        """Return where the first fields of a table stand in it; tables share their layouts, a file may say all do."""
        found = self._layouts.get(at)
        if found is None:
            size = self.number("H", at)
            if size < 4 or size % 2:
                self.fail(at, f"a table layout of {size} bytes")
            fields = min(size // 2 - 2, _FIELDS)
            found = struct.unpack(f"<{fields}H", self.take(at, 4 + 2 * fields)[4:])
            meter.hold(100 + 40 * fields, "reading the structure")
            self._layouts[at] = found
        return found

    def number(self, code: str, at: int) -> int:
        """Return an integer; `code` is that of `struct`."""
        layout = _SCALARS[code]
        value: int = layout.unpack(self.take(at, layout.size))[0]
        return value

    def fail(self, at: int, detail: str) -> NoReturn:
        """Refuse the file for what it has at `at`."""
        raise FormatError("bad-offset", f"{self.source.name} @ {at}", detail)


class Table:
    """A table: fields by number, each of which may be absent."""

    def __init__(self, flat: Flat, at: int) -> None:
        self.flat, self.at = flat, at
        self._fields = flat.layout(at - flat.number("i", at))

    def _place(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self.at + offset if offset else None

    def scalar(self, field: int, code: str, default: int = 0) -> int:
        """Return a number."""
        place = self._place(field)
        return default if place is None else self.flat.number(code, place)

    def table(self, field: int) -> Table | None:
        """Return a table (or the table of a union)."""
        place = self._reference(field)
        return None if place is None else Table(self.flat, place)

    def tables(self, field: int, what: str, most: int) -> list[Table]:
        """Return a vector of tables, at most `most`."""
        vector = self.vector(field, 4)
        if vector is None:
            return []
        start, count = vector
        if count > most:
            raise LimitExceeded(self.flat.source.name, what, most, count)
        meter.charge(4 * count, f"reading {what}")
        meter.hold(250 * count, f"reading {what}")
        offsets = np.frombuffer(self.flat.take(start, 4 * count), "<u4").tolist()
        return [Table(self.flat, start + 4 * i + offset) for i, offset in enumerate(offsets)]

    def array(self, field: int, dtype: str) -> NDArray[np.generic]:
        """Return a vector of numbers."""
        width = np.dtype(dtype).itemsize
        vector = self.vector(field, width)
        if vector is None:
            return np.zeros(0, dtype)
        start, count = vector
        meter.charge(1 + count // 2, "reading lists of numbers")
        return np.frombuffer(self.flat.take(start, count * width), dtype)

    def vector(self, field: int, width: int) -> tuple[int, int] | None:
        """Return where the elements of a vector start and how many there are; they are inside the file."""
        place = self._reference(field)
        if place is None:
            return None
        count = self.flat.number("I", place)
        if place + 4 + count * width > self.flat.source.size:
            self.flat.fail(place, f"a vector of {count:,} elements, which the file is too short for")
        return place + 4, count

    def text(self, field: int, longest: int) -> str:
        """Return a string, "" if it is absent; bytes beyond `longest` are cut, those that are no UTF-8 replaced."""
        vector = self.vector(field, 1)
        if vector is None:
            return ""
        return bytes(self.flat.take(vector[0], min(vector[1], longest))).decode("utf-8", "replace")

    def _reference(self, field: int) -> int | None:
        place = self._place(field)
        return None if place is None else place + self.flat.number("I", place)
