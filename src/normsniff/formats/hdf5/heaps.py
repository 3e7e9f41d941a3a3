"""The three kinds of heaps: names of groups, texts of variable length, objects of dense storage (III.D to III.G)."""

from __future__ import annotations

from .file import Structure, defined
from .trees import records

_HUGE_RECORDS = 1  # type of the B-tree that finds large objects


def local_heap(file: Structure, address: int) -> memoryview:
    """Return the data segment of a local heap, which holds the names of a group (section III.D).

    Raises:
        FormatError: there is none, or it does not lie in the file.
    """
    head = file.fields(address, 8 + 2 * file.length_size + file.address_size, b"HEAP")
    head.skip(4)
    size = head.length()
    head.length()
    segment = head.address()
    if segment is None:
        file.fail("bad-heap", address, "a local heap without data")
    return file.read(segment, size)


class GlobalHeaps:
    """Texts of variable length; they share collections, each of which is listed once (section III.E)."""

    def __init__(self, file: Structure) -> None:
        self._file = file
        self._listed: dict[int, dict[int, tuple[int, int]]] = {}

    def text(self, reference: memoryview, largest: int) -> memoryview | None:
        """Return what a reference (length, address of a collection, index in it) points to.

        Args:
            reference: as it is stored.
            largest: bytes that the text may have; a longer one is not read and gives None.

        Raises:
            FormatError: there is no such text.
        """
        file, wide = self._file, self._file.address_size
        length, address = int.from_bytes(reference[:4], "little"), defined(reference[4 : 4 + wide])
        index = int.from_bytes(reference[4 + wide : 8 + wide], "little")
        if not length or not address:
            return memoryview(b"")
        if address not in self._listed:
            self._listed[address] = self._list(address)
        start, size = self._listed[address].get(index, (0, -1))
        if length > size:
            file.fail("bad-heap", address, f"no text of {length:,} bytes at {index}")
        return file.read(start, length) if length <= largest else None

    def _list(self, start: int) -> dict[int, tuple[int, int]]:
        """Return address and size of every object of a collection, by index."""
        file = self._file
        head_size = -(-(8 + file.length_size) // 8) * 8  # of a collection and of an object in it
        head = file.fields(start, head_size, b"GCOL")
        head.skip(4)
        end = start + head.length()
        if file.base + end > file.source.size:
            file.fail("bad-heap", start, "a global heap that does not fit in the file")
        objects: dict[int, tuple[int, int]] = {}
        at = start + head_size
        while at + head_size <= end:
            entry = file.fields(at, head_size)
            index = entry.number(2)
            entry.skip(6)
            length = entry.length()
            if index == 0 or at + head_size + length > end:  # index 0 is the free space at the end
                break
            objects[index] = (at + head_size, length)
            at += head_size + -(-length // 8) * 8
        return objects


class FractalHeap:
    """The objects of dense storage: links and attributes of large groups (section III.G)."""

    def __init__(self, file: Structure, address: int) -> None:
        """Read the header of a heap.

        Raises:
            FormatError: there is none, its sizes make no sense, or it is compressed.
        """
        self._file, self._address = file, address
        wide, long = file.address_size, file.length_size
        head = file.fields(address, 22 + 12 * long + 3 * wide, b"FRHP")
        head.skip(1)
        self.id_size, filters = head.number(2), head.number(2)
        head.skip(1)  # flags: whether blocks have checksums, of which none is asked here
        largest_managed = head.number(4)
        head.length()
        self._huge_tree = head.address()
        head.skip(long + wide + 8 * long)
        self._width, self._first, self._largest = head.number(2), head.length(), head.length()
        bits = head.number(2)
        head.skip(2)
        self._root, self._rows = head.address(), head.number(2)
        if filters:
            file.fail("unsupported", address, "an HDF5 heap that is compressed")
        powers = (self._width, self._first, self._largest)
        if any(n <= 0 or n & n - 1 for n in powers) or self._largest < self._first or not 0 < bits <= 64:
            file.fail("bad-heap", address, "a fractal heap with impossible sizes")
        self._offset_size = (bits + 7) // 8
        bytes_of_block, bytes_of_object = (self._largest.bit_length() + 6) // 8, (largest_managed.bit_length() + 7) // 8
        self._length_size = min(bytes_of_block, max(bytes_of_object, 1))
        self._direct_rows = (self._largest // self._first).bit_length() + 1
        if self._rows > bits + 1:
            file.fail("bad-heap", address, "a fractal heap with impossible sizes")
        self._tables: dict[int, memoryview] = {}
        self._sound: set[int] = set()
        self._huge: dict[int, tuple[int | None, int]] | None = None

    def get(self, key: memoryview) -> memoryview:
        """Return the object with this ID.

        Raises:
            FormatError: there is none.
        """
        kind = key[0] & 0xF0
        if kind == 0x00:  # managed: in a block of the heap
            offset = int.from_bytes(key[1 : 1 + self._offset_size], "little")
            end = 1 + self._offset_size + self._length_size
            return self._managed(offset, int.from_bytes(key[1 + self._offset_size : end], "little"))
        if kind == 0x10:
            return self._large(key)
        if kind != 0x20:
            self._file.fail("bad-heap", self._address, "an ID of no kind that a fractal heap has")
        if self.id_size <= 17:  # tiny: in the ID itself
            return key[1 : 2 + (key[0] & 15)]
        return key[2 : 3 + ((key[0] & 15) << 8 | key[1])]

    def _large(self, key: memoryview) -> memoryview:
        """Return an object with a place of its own; its ID is that place where it is long enough, else a number."""
        file, wide, long = self._file, self._file.address_size, self._file.length_size
        if self.id_size >= 1 + wide + long:
            address, size = defined(key[1 : 1 + wide]), int.from_bytes(key[1 + wide : 1 + wide + long], "little")
        else:
            if self._huge is None:
                self._huge = {}
                for record in records(file, self._huge_tree, _HUGE_RECORDS) if self._huge_tree is not None else ():
                    place = defined(record[:wide]), int.from_bytes(record[wide : wide + long], "little")
                    self._huge[int.from_bytes(record[wide + long :], "little")] = place
            number = int.from_bytes(key[1 : 1 + min(long, self.id_size - 1)], "little")
            address, size = self._huge.get(number, (None, 0))
        if address is None:
            file.fail("bad-heap", self._address, "a large object of a fractal heap that is nowhere")
        return file.read(address, size)

    def _managed(self, offset: int, length: int) -> memoryview:
        """Return `length` bytes at `offset` of the space that all blocks of the heap make up.

        Blocks double in size from the second row of a table on; below the rows of data are further tables.
        """
        file, address, rows, base = self._file, self._root, self._rows, 0
        size, direct = self._first, rows == 0
        while not direct:
            row, within = 0, offset - base
            if within >= self._width * self._first:
                row = (within // (self._width * self._first)).bit_length()
            size = self._first << max(row - 1, 0)
            row_start = self._width * size if row else 0  # the rows before take as much as this one
            column = (within - row_start) // size
            if row >= rows or address is None:
                file.fail("bad-heap", self._address, f"a fractal heap that does not reach {offset:,}")
            base += row_start + column * size
            address = self._entry(address, rows, row * self._width + column)
            direct = row < self._direct_rows
            rows = (size // (self._first * self._width)).bit_length()
        if address is None or offset + length > base + size:
            file.fail("bad-heap", self._address, f"a fractal heap that does not reach {offset + length:,}")
        if address not in self._sound:
            if bytes(file.read(address, 4)) != b"FHDB":
                file.fail("bad-heap", address, "no block of a fractal heap there")
            self._sound.add(address)
        return file.read(address + offset - base, length)

    def _entry(self, address: int, rows: int, number: int) -> int | None:
        """Return the address in a table of blocks, each of which is read once."""
        file, wide = self._file, self._file.address_size
        if address not in self._tables:
            table = file.fields(address, 5 + wide + self._offset_size + rows * self._width * wide, b"FHIB")
            table.skip(1 + wide + self._offset_size)
            self._tables[address] = table.take(rows * self._width * wide)
        entry = self._tables[address][number * wide : (number + 1) * wide]
        return defined(entry) if entry else None
