"""ggml's common block types to float32. A block is a row of stored bytes; layouts as in ggml's ``ggml-common.h``.

The types of most uploads are decoded here; for the rarer ones the package gguf is imported, which costs more than
labelling a model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..dtypes import UNITS

Float32 = NDArray[np.float32]
Blocks = NDArray[np.uint8]
Decoder = Callable[[Blocks], Float32]


@cache
def decoder(dtype: str) -> Decoder | None:
    """Return what decodes blocks of shape (n, bytes) to float32 of shape (n, elements); None where nothing does."""
    return _DECODERS.get(dtype) or _of_package(dtype)


def _of_package(dtype: str) -> Decoder | None:
    import gguf
    from gguf import quants

    kind = gguf.GGMLQuantizationType.__members__.get(dtype)
    if kind is None:
        return None

    def decode(blocks: Blocks) -> Float32:
        return np.asarray(quants.dequantize(blocks, kind), dtype=np.float32)

    try:  # one zero block: the cheapest way to ask whether a decoder exists
        decode(np.zeros((1, UNITS[dtype][1]), np.uint8))
    except NotImplementedError:
        return None
    return decode


def _half(blocks: Blocks, at: int) -> Float32:
    """Return the float16 at byte `at` of every block, shape (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(stored: Blocks) -> Blocks:
    """Return the low halves of the bytes, then the high ones."""
    return np.concatenate((stored & 15, stored >> 4), axis=-1)


def _fifth_bits(blocks: Blocks, at: int) -> Blocks:
    """Return the 32 bits from byte `at`, lowest first, each worth 16."""
    return np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Blocks) -> Float32:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.int8) - np.int8(8))


def _q4_1(blocks: Blocks) -> Float32:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Float32:
    codes = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.int8) - np.int8(16)
    return _half(blocks, 0) * codes


def _q5_1(blocks: Blocks) -> Float32:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return _half(blocks, 0) * codes.astype(np.float32) + _half(blocks, 2)


def _q8_0(blocks: Blocks) -> Float32:
    return blocks[:, 2:].view(np.int8) * _half(blocks, 0)


def _scales_of_k(blocks: Blocks) -> tuple[Float32, Float32]:
    """Return scales and minima of the 8 sub-blocks of a Q4_K or Q5_K block, 6 bits each in 12 bytes from byte 4."""
    first, second, third = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate((first & 63, third & 15 | first >> 6 << 4), axis=1)
    minima = np.concatenate((second & 63, third >> 4 | second >> 6 << 4), axis=1)
    return _half(blocks, 0) * scales.astype(np.float32), _half(blocks, 2) * minima.astype(np.float32)


def _of_sub_blocks(blocks: Blocks, codes: Blocks) -> Float32:
    scales, minima = _scales_of_k(blocks)
    return (scales[:, :, None] * codes.astype(np.float32) - minima[:, :, None]).reshape(len(blocks), 256)


def _codes_of_k(stored: Blocks) -> Blocks:
    """Return 8 sub-blocks of 32 codes: each 32 bytes hold one in their low halves and the next in their high ones."""
    return _nibbles(stored.reshape(-1, 4, 32)).reshape(-1, 8, 32)


def _q4_k(blocks: Blocks) -> Float32:
    return _of_sub_blocks(blocks, _codes_of_k(blocks[:, 16:]))


def _q5_k(blocks: Blocks) -> Float32:
    shifts = np.arange(8, dtype=np.uint8)[:, None]  # bit j belongs to sub-block j
    high = (blocks[:, None, 16:48] >> shifts & np.uint8(1)) << np.uint8(4)
    return _of_sub_blocks(blocks, _codes_of_k(blocks[:, 48:]) | high)


def _q6_k(blocks: Blocks) -> Float32:
    n = len(blocks)
    low = _nibbles(blocks[:, :128].reshape(n, 2, 64)).reshape(n, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(n, 2, 1, 32) >> shifts & 3) << 4
    codes = (low | high).astype(np.int8) - np.int8(32)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return (scales[:, :, None] * codes.reshape(n, 16, 16)).reshape(n, 256)


_DECODERS: Mapping[str, Decoder] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
