"""MatMulNBits: ONNX Runtime's block-quantised weights, decoded a range of rows and blocks at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...checkpoint import TensorInfo
from ...decode.values import read
from ...errors import FormatError
from ...limits import Limits
from ...source.views import Extent

_PARAMETERS = 4  # times Limits.tensor_bytes: scales of a 150k-token table take 80 MB as float32


class BlockSlab:
    """A matrix of N rows (outputs) and K columns (inputs), quantised in blocks of one row.

    onnxruntime/docs/ContribOperators.md, MatMulNBits: B is uint8 of (N, blocks, block_size · bits / 8), lowest bits
    first; a value is ``(stored - zero_point) · scale``, the zero point is ``2^(bits - 1)`` where none is given.
    """

    def __init__(
        self,
        packed: TensorInfo,
        scales: TensorInfo,
        zeros: TensorInfo | None,
        shape: tuple[int, int],
        bits: int,
        block: int,
        limits: Limits,
    ) -> None:
        self._limits = replace(limits, tensor_bytes=_PARAMETERS * limits.tensor_bytes)
        self.shape = shape
        self._packed, self._scales, self._zeros = packed, scales, zeros
        self._bits, self._block = bits, block
        self._blocks = -(-shape[1] // block)
        self._blob = block * bits // 8
        self._parameters: tuple[NDArray[Any], NDArray[Any] | float] | None = None

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return rows and columns as float32; only the blocks that they touch are read."""
        rows, columns = (range(*s.indices(n)) for s, n in zip((*index, slice(None))[:2], self.shape, strict=True))
        first, last = columns.start // self._block, -(-columns.stop // self._block)
        levels = _unpack(self._bytes(rows, first, last), self._bits).reshape(len(rows), last - first, self._block)
        scales, zeros = self._parameters_of_blocks()
        cut = np.s_[rows.start : rows.stop, first:last, None]
        offset = zeros if isinstance(zeros, float) else zeros[cut]
        with np.errstate(over="ignore", invalid="ignore"):  # hostile scales give infinities, which are reported later
            values = ((levels - offset) * scales[cut]).reshape(len(rows), -1)
        cropped: NDArray[Any] = values[:, columns.start - first * self._block : columns.stop - first * self._block]
        return cropped

    def _bytes(self, rows: range, first: int, last: int) -> NDArray[np.uint8]:
        row, storage = self._blocks * self._blob, self._packed.storage
        if not isinstance(storage, Extent):
            whole = storage.read(tuple(slice(0, n) for n in self._packed.shape)).reshape(self.shape[0], row)
            return np.ascontiguousarray(whole[rows.start : rows.stop, first * self._blob : last * self._blob])
        read, start = storage.source.read_at, storage.start
        if last - first == self._blocks:
            return np.frombuffer(read(start + rows.start * row, len(rows) * row), np.uint8)
        width = (last - first) * self._blob
        strips = [read(start + n * row + first * self._blob, width) for n in rows]
        return np.frombuffer(b"".join(strips), np.uint8)

    def _parameters_of_blocks(self) -> tuple[NDArray[Any], NDArray[Any] | float]:
        if self._parameters is None:
            grid = (self.shape[0], self._blocks)
            zeros: NDArray[Any] | float = float(1 << (self._bits - 1))
            if self._zeros is not None:
                zeros = read(self._zeros, self._limits)
                if zeros.size != grid[0] * grid[1] or self._zeros.dtype == "U8":  # packed, every row padded to bytes
                    packed = zeros.astype(np.uint8).reshape(grid[0], -1)
                    zeros = _unpack(packed, self._bits).reshape(grid[0], -1)[:, : grid[1]]
            if not isinstance(zeros, float):
                zeros = zeros.reshape(grid)
            self._parameters = read(self._scales, self._limits).reshape(grid), zeros
        return self._parameters


def decoded_blocks(
    packed: TensorInfo,
    scales: TensorInfo | None,
    zeros: TensorInfo | None,
    attributes: Mapping[str, Any],
    where: str,
    limits: Limits,
) -> TensorInfo | None:
    """Return the matrix that a MatMulNBits node multiplies with, or None for a layout that is not known here.

    Raises:
        FormatError: the sizes of weight, scales and zero points contradict each other.
    """
    rows, columns, bits, block = (attributes.get(key) for key in ("N", "K", "bits", "block_size"))
    bits = 4 if bits is None else bits
    if not all(isinstance(n, int) and n > 0 for n in (rows, columns, bits, block)) or scales is None:
        return None
    assert isinstance(rows, int)
    assert isinstance(columns, int)
    assert isinstance(block, int)
    if bits not in (2, 4, 8) or block % 8 or packed.dtype != "U8":
        return None
    blocks = -(-columns // block)
    expected = {rows * blocks, rows * -(-blocks * bits // 8)}
    if (
        packed.size != rows * blocks * block * bits // 8
        or scales.size != rows * blocks
        or (zeros is not None and zeros.size not in expected)
    ):
        raise FormatError(
            "bad-blocks", f"{where} @ {packed.name[:200]}", f"not {rows:,} × {columns:,} in blocks of {block:,}"
        )
    slab = BlockSlab(packed, scales, zeros, (rows, columns), bits, block, limits)
    return TensorInfo(packed.name, f"U{bits}", (rows, columns), slab)


def _unpack(data: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields: NDArray[np.float32] = (data[..., None] >> shifts & ((1 << bits) - 1)).astype(np.float32)
    return fields
