"""Where the samples of a matrix lie: blocks of its vectors, and the byte ranges that hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from ..checkpoint import TensorInfo
from ..dtypes import UNITS
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import PAGE
from ..source.views import Extent

BLOCK_BYTES = 1 << 22  # of float32 at once: bounds memory whatever the tensor's size, and stays near the processor
_COLUMN_BYTES = 1 << 23  # of a block of columns, which takes a read for every row: the wider, the fewer
_PARTS = 4  # a sample of rows comes from so many places; a sample of columns from one, since each column costs d reads


class Block(msgspec.Struct, frozen=True):
    """Vectors along an axis: those at the positions `outer` of the axes before it and `inner` of the axes after it."""

    outer: slice
    inner: slice

    @property
    def n(self) -> int:
        """Number of vectors."""
        n: int = (self.outer.stop - self.outer.start) * (self.inner.stop - self.inner.start)
        return n


class Strips(msgspec.Struct, frozen=True):
    """Byte ranges of one length at equal distances.

    Attributes:
        start: offset of the first in its source.
        length: of each, in bytes.
        stride: from the start of one to the start of the next.
        n: how many there are.
    """

    start: int
    length: int
    stride: int
    n: int

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return self.length * self.n

    def joined(self, gap: int) -> Strips:
        """Return one range that covers all if what lies between them costs less than reading them apart."""
        if self.n == 1 or self.stride > self.length + gap:
            return self
        whole = (self.n - 1) * self.stride + self.length
        return Strips(self.start, whole, whole, 1)


def blocks(tensor: TensorInfo, axis: int, limits: Limits, count: int | None = None) -> Iterator[Block]:
    """Cut a matrix into blocks of vectors along `axis`, in an order of which every prefix is a fair sample.

    Blocks are rows that lie together, or columns of whole quantisation blocks that start on pages where the matrix
    allows it. One is at most 8 MB of float32, or one indivisible unit.

    Args:
        tensor: a matrix, or a convolution or expert stack with more axes.
        axis: the axis of length d.
        limits: caps on one block.
        count: stop at so many vectors: rows then come in quarters of it, columns at once. Without it blocks are as
            large as they may be, and cover everything.

    Raises:
        LimitExceeded: the smallest block that can be read is over ``limits.tensor_bytes``.
    """
    unit = _unit_elements(tensor)
    smallest = 4 * tensor.shape[axis] * min(unit, math.prod(tensor.shape[axis + 1 :]))
    if smallest > limits.tensor_bytes:
        raise LimitExceeded(tensor.name, "bytes of the smallest block", limits.tensor_bytes, smallest)
    seen = 0
    for block in _tiles(tensor, axis, unit, count):
        yield block
        seen += block.n
        if count is not None and seen >= count:
            return


def strips(tensor: TensorInfo, axis: int, block: Block) -> Strips | None:
    """Return where a block lies in its source, or None for a tensor that is no byte range."""
    if not isinstance(tensor.storage, Extent):
        return None
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if not elements:
        where = f"{tensor.storage.source.name} @ {tensor.name}"
        raise FormatError("opaque-dtype", where, f"cannot decode {tensor.dtype}")
    d, inner = tensor.shape[axis], math.prod(tensor.shape[axis + 1 :])
    first, rows, columns = block.outer.start * d * inner, block.outer.stop - block.outer.start, block.inner
    start = tensor.storage.start
    if columns.stop - columns.start == inner:
        length = -(-rows * d * inner // elements) * unit
        return Strips(start + first // elements * unit, length, length, 1)
    stride = inner // elements * unit
    length = (columns.stop - columns.start) // elements * unit
    return Strips(start + (first + columns.start) // elements * unit, length, stride, rows * d)


def spread(n: int) -> Iterator[int]:
    """Yield 0 to n-1 in van der Corput order: every prefix is spread evenly over the range."""
    bits = (n - 1).bit_length()
    for i in range(1 << bits if n else 0):
        position = int(f"{i:0{bits}b}"[::-1], 2) if bits else 0
        if position < n:
            yield position


def _tiles(tensor: TensorInfo, axis: int, unit: int, count: int | None) -> Iterator[Block]:
    d, outer, inner = tensor.shape[axis], math.prod(tensor.shape[:axis]), math.prod(tensor.shape[axis + 1 :])
    if not d or not outer or not inner:
        return
    largest = max(1, BLOCK_BYTES // (4 * d))
    if inner <= unit or inner <= min(9, largest):  # rows, or convolution kernels: whole runs along `outer`
        run = max(1, min(largest, -(-count // _PARTS) if count else largest) // inner)
        run -= run % 4 if run > 4 else 0  # so that packed rows start on a byte
        for piece in spread(-(-outer // run)):
            yield Block(slice(piece * run, min((piece + 1) * run, outer)), slice(0, inner))
        return
    width = max(unit, min(count or inner, max(1, _COLUMN_BYTES // (4 * d))) // unit * unit)
    first = _to_page(tensor, width, inner) or width
    pieces = 1 + max(0, -(-(inner - first) // width))
    for piece in spread(outer * pieces):
        plane, column = divmod(piece, pieces)
        column = (column + pieces // 2) % pieces  # from the middle: the first and the last are not whole
        start, stop = first + (column - 1) * width if column else 0, min(first + column * width, inner)
        yield Block(slice(plane, plane + 1), slice(start, stop))


def _to_page(tensor: TensorInfo, width: int, inner: int) -> int:
    """Return how many columns to set apart so that all blocks of `width` columns after them lie on single pages."""
    storage = tensor.storage
    elements, unit = UNITS.get(tensor.dtype, (0, 0))
    if not isinstance(storage, Extent) or not elements:
        return 0
    length, stride = width // elements * unit, inner // elements * unit
    shift = -storage.start % length
    return 0 if PAGE % length or stride % length or shift % unit else shift // unit * elements


def _unit_elements(tensor: TensorInfo) -> int:
    """Return the number of elements that a column block must be a multiple of."""
    if not isinstance(tensor.storage, Extent):
        return 1
    elements, _ = UNITS.get(tensor.dtype, (1, 1))
    last = tensor.shape[-1] if tensor.shape else 1
    if elements > 1 and last % elements:  # packed rows do not start on a byte: only whole runs can be read
        return max(tensor.size, 1)
    return elements
