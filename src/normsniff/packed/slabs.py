"""Weights that are packed several to an integer, dequantised block by block: one class a published layout.

Each class is a `Slab` of the logical weight (out, in) and reads no more of the stored tensors than the rows and columns
that are asked for. `u` is the stored unsigned integer of an element, lowest bits first unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from .. import decode
from ..checkpoint import TensorInfo
from ..dtypes import UNITS
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.views import Extent

Float32 = NDArray[np.float32]
Integers = NDArray[np.uint32]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Column that nibble i of an AWQ integer holds (AutoAWQ, awq/modules/linear/gemm.py, `order_map`)."""

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""E2M1, as in OCP Microscaling 1.0 and transformers integrations/mxfp4.py `FP4_VALUES`."""

_MOST_STRIPS = 1 << 16  # reads for one block; beyond, a matrix is narrow enough to be read whole


def part(tensor: TensorInfo, rows: slice, columns: slice, limits: Limits) -> TensorInfo:
    """Return rows and columns of a matrix as a tensor of their own, in memory: contiguous rows, or strips of them."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not isinstance(tensor.storage, Extent):
        return replace(tensor, shape=(height, width), storage=_Array(tensor.storage.read((rows, columns))))
    elements, unit = UNITS[tensor.dtype]
    if elements != 1:
        raise FormatError("opaque-dtype", tensor.name, f"cannot slice {tensor.dtype}")
    stride = tensor.shape[1] * unit
    source, start = tensor.storage.source, tensor.storage.start
    if 2 * width >= tensor.shape[1] or height > _MOST_STRIPS:
        if height * stride > limits.tensor_bytes:
            raise LimitExceeded(tensor.name, "bytes of the smallest block", limits.tensor_bytes, height * stride)
        data = np.frombuffer(source.read_at(start + rows.start * stride, height * stride), np.uint8)
        data = data.reshape(height, stride)[:, columns.start * unit : columns.stop * unit]
    else:
        first = start + columns.start * unit
        strips = [source.read_at(first + row * stride, width * unit) for row in range(rows.start, rows.stop)]
        data = np.frombuffer(b"".join(strips), np.uint8).reshape(height, width * unit)
    return replace(tensor, shape=(height, width), storage=_Bytes(np.ascontiguousarray(data), tensor))


@dataclass(frozen=True, slots=True)
class _Array:
    array: NDArray[Any]

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return self.array[index]


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Stored bytes of a block, decoded where they are used."""

    data: NDArray[np.uint8]
    tensor: TensorInfo

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return decode.numbers(self.tensor, self.data.tobytes()).reshape(self.data.shape[0], -1)[index]


def integers(tensor: TensorInfo, rows: slice, columns: slice, limits: Limits) -> Integers:
    """Return the stored integers of a block as uint32, whatever their sign."""
    block = part(tensor, rows, columns, limits).storage
    if isinstance(block, _Bytes):
        return block.data.view(f"<u{UNITS[tensor.dtype][1]}").astype(np.uint32)
    values = block.read((slice(None), slice(None))) if not isinstance(block, Extent) else np.zeros(0)
    mask = 0xFF if tensor.dtype in ("U8", "I8") else 0xFFFFFFFF
    return (values.astype(np.int64) & mask).astype(np.uint32)


def floats(tensor: TensorInfo, rows: slice, columns: slice, limits: Limits) -> Float32:
    """Return a block of a matrix of plain numbers."""
    block = part(tensor, rows, columns, limits).storage
    assert not isinstance(block, Extent)
    return np.asarray(block.read((slice(None), slice(None)))).astype(np.float32)


def unpack_columns(words: Integers, bits: int, order: tuple[int, ...] | None = None) -> Integers:
    """Spread every integer of the last axis over ``32 / bits`` elements."""
    pack = 32 // bits
    fields = np.stack([(words >> (bits * i)) & ((1 << bits) - 1) for i in range(pack)], axis=-1)
    if order is not None:
        fields = fields[..., np.argsort(order)]
    return fields.reshape(*words.shape[:-1], -1)


def _covering(span: slice, pack: int) -> tuple[slice, slice]:
    """Return the slice of packed integers that covers `span`, and where the span lies in what they hold."""
    first, last = span.start // pack, -(-span.stop // pack)
    return slice(first, last), slice(span.start - first * pack, span.stop - first * pack)


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ and AWQ: stored (in, out), packed along `in` or along `out`; ``(u - zero) * scale`` a group of inputs.

    Sources: AutoGPTQ nn_modules/qlinear (zeros are stored minus one, but for the format gptq_v2);
    AutoAWQ awq/modules/linear/gemm.py. `groups` is a row with the group of every input, read where a block asks for it,
    or how many inputs in a row are one.
    """

    limits: Limits
    words: TensorInfo
    zeros: TensorInfo
    scales: TensorInfo
    groups: TensorInfo | int
    bits: int
    awq: bool
    zero_offset: int

    def read(self, index: tuple[slice, ...]) -> Float32:
        """Dequantise a block; see `Slab`."""
        out, inputs = index
        pack = 32 // self.bits
        wide, inside_out = _covering(out, pack)
        order = AWQ_ORDER if self.awq else None
        if self.awq:
            u = unpack_columns(integers(self.words, inputs, wide, self.limits), self.bits, order)[:, inside_out]
        else:
            tall, inside_in = _covering(inputs, pack)
            words = integers(self.words, tall, out, self.limits)
            u = unpack_columns(words.T, self.bits).T[inside_in]
        if isinstance(self.groups, int):
            used = np.arange(inputs.start, inputs.stop) // self.groups
        else:
            used = integers(self.groups, slice(0, 1), inputs, self.limits)[0].astype(np.int64)
        low, high = int(used.min()), int(used.max()) + 1
        if high > self.scales.shape[0]:
            raise FormatError(
                "bad-shape", self.words.name, f"g_idx names group {high - 1:,} of {self.scales.shape[0]:,}"
            )
        zeros = unpack_columns(integers(self.zeros, slice(low, high), wide, self.limits), self.bits, order)[
            :, inside_out
        ]
        scales = floats(self.scales, slice(low, high), out, self.limits)
        zero = zeros.astype(np.float32) + self.zero_offset
        block: Float32 = (u.astype(np.float32) - zero[used - low]) * scales[used - low]
        return block.T


@dataclass(frozen=True, slots=True)
class Grouped:
    """Packed along `in`, a scale and an offset a group of inputs: ``(u - middle) * scale + bias``.

    MLX: middle 0, with biases (mlx-lm utils.py; mlx `quantize`). compressed-tensors "pack-quantized": middle
    ``2^(bits-1)``, no biases (compressors/quantized_compressors/pack_quantized.py).
    """

    limits: Limits
    words: TensorInfo
    scales: TensorInfo
    biases: TensorInfo | None
    bits: int
    group: int
    middle: int

    def read(self, index: tuple[slice, ...]) -> Float32:
        """Dequantise a block; see `Slab`."""
        rows, columns = index
        covering, inside = _covering(columns, 32 // self.bits)
        u = unpack_columns(integers(self.words, rows, covering, self.limits), self.bits)[:, inside].astype(np.float32)
        groups, _ = _covering(columns, self.group)
        at = np.arange(columns.start, columns.stop) // self.group - groups.start
        weights = (u - self.middle) * floats(self.scales, rows, groups, self.limits)[:, at]
        return weights if self.biases is None else weights + floats(self.biases, rows, groups, self.limits)[:, at]


@dataclass(frozen=True, slots=True)
class Scaled:
    """One number an element, times a scale for a block of `block` rows and columns (0: of the whole axis).

    Fine-grained FP8 (transformers integrations/finegrained_fp8.py), compressed-tensors float- and int-quantized,
    bitsandbytes int8 (``weight * SCB / 127``, functional.py `int8_vectorwise_dequant`).
    """

    limits: Limits
    weight: TensorInfo
    scales: TensorInfo
    block: tuple[int, int]
    divisor: float = 1.0

    def read(self, index: tuple[slice, ...]) -> Float32:
        """Dequantise a block; see `Slab`."""
        spans = [
            _covering(span, size)[0] if size else slice(0, 1) for span, size in zip(index, self.block, strict=True)
        ]
        at = [
            np.arange(span.start, span.stop) // size - found.start if size else np.zeros(span.stop - span.start, int)
            for span, size, found in zip(index, self.block, spans, strict=True)
        ]
        scales = floats(self.scales, spans[0], spans[1], self.limits)
        weights: Float32 = floats(self.weight, index[0], index[1], self.limits) * scales[np.ix_(at[0], at[1])]
        return weights / np.float32(self.divisor)


@dataclass(frozen=True, slots=True)
class Fp4:
    """Two E2M1 numbers a byte, the first one in the low bits, with a scale for `group` of them.

    MXFP4: ``2^(scale - 127)`` for 32 (transformers integrations/mxfp4.py). NVFP4: an E4M3 scale for 16 and a
    `factor` of the whole tensor (compressed-tensors nvfp4 divides by weight_global_scale, ModelOpt multiplies by
    weight_scale_2). Expert stacks have a leading axis; their rows are counted through.
    """

    limits: Limits
    words: TensorInfo
    scales: TensorInfo
    shape: tuple[int, ...]
    group: int
    exponent: bool
    factor: Callable[[], float]

    def read(self, index: tuple[slice, ...]) -> Float32:
        """Dequantise a block; see `Slab`."""
        *lead, rows, columns = index
        if not lead:
            return self._rows(rows, columns)
        height = self.shape[-2]
        blocks = [
            self._rows(slice(e * height + rows.start, e * height + rows.stop), columns)
            for e in range(lead[0].start, lead[0].stop)
        ]
        return np.stack(blocks)

    def _rows(self, rows: slice, columns: slice) -> Float32:
        covering, inside = _covering(columns, 2)
        stored = integers(self.words, rows, covering, self.limits)
        u = np.stack([stored & 0xF, stored >> 4], axis=-1).reshape(stored.shape[0], -1)[:, inside]
        groups, _ = _covering(columns, self.group)
        at = np.arange(columns.start, columns.stop) // self.group - groups.start
        if self.exponent:
            scales = np.exp2(integers(self.scales, rows, groups, self.limits).astype(np.float32) - 127)
        else:
            scales = floats(self.scales, rows, groups, self.limits)
        return (FP4[u] * scales[:, at] * np.float32(self.factor())).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Bnb4:
    """bitsandbytes NF4 and FP4: two codes a byte, the first one in the high bits, an absmax for `block` elements.

    The absmax itself may be quantised: ``nested_map[u] * nested_absmax + offset`` (bitsandbytes functional.py,
    `dequantize_4bit` and `QuantState.from_dict`). Elements run through the flattened (out, in) matrix;
    every stored tensor comes as one row.
    """

    limits: Limits
    words: TensorInfo
    codes: TensorInfo
    absmax: TensorInfo
    shape: tuple[int, ...]
    block: int
    nested: tuple[TensorInfo, TensorInfo, int, float] | None

    def read(self, index: tuple[slice, ...]) -> Float32:
        """Dequantise a block; see `Slab`."""
        rows, columns = index
        width = self.shape[1]
        whole = slice(rows.start * width, rows.stop * width)
        if 4 * (whole.stop - whole.start) > self.limits.tensor_bytes:
            asked = 4 * (whole.stop - whole.start)
            raise LimitExceeded(self.words.name, "bytes of the smallest block", self.limits.tensor_bytes, asked)
        covering, inside = _covering(whole, 2)
        stored = integers(self.words, slice(0, 1), covering, self.limits)[0]
        u = np.stack([stored >> 4, stored & 0xF], axis=-1).reshape(-1)[inside]
        blocks, _ = _covering(whole, self.block)
        at = np.arange(whole.start, whole.stop) // self.block - blocks.start
        code = floats(self.codes, slice(0, 1), slice(0, 16), self.limits)[0]
        values = code[u] * self._absmax(blocks)[at]
        weights: Float32 = values.reshape(-1, width)[:, columns]
        return weights

    def _absmax(self, blocks: slice) -> Float32:
        if self.nested is None:
            plain: Float32 = floats(self.absmax, slice(0, 1), blocks, self.limits)[0]
            return plain
        scale, code, size, offset = self.nested
        outer, _ = _covering(blocks, size)
        at = np.arange(blocks.start, blocks.stop) // size - outer.start
        u = integers(self.absmax, slice(0, 1), blocks, self.limits)[0]
        codes = floats(code, slice(0, 1), slice(0, code.size), self.limits)[0]
        scales = floats(scale, slice(0, 1), outer, self.limits)[0]
        absmax: Float32 = (codes[np.minimum(u, code.size - 1)] * scales[at] + offset).astype(np.float32)
        return absmax
