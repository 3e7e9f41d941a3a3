"""Stored bytes to numbers: every dtype against its reference, every sampling order against the whole array."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import quants
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from normsniff import decode
from normsniff.checkpoint import Affine, ArraySlab, TensorInfo
from normsniff.dtypes import UNITS
from normsniff.errors import BudgetSpent, FormatError, LimitExceeded
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.manifest import FIXTURES

RNG = np.random.default_rng(3)


def stored(data: bytes, dtype: str, shape: tuple[int, ...], order: str = "<", lead: int = 5) -> TensorInfo:
    """A tensor whose bytes follow `lead` bytes of something else."""
    source = BytesSource(b"\xff" * lead + data)
    return TensorInfo("t", dtype, shape, Extent(source, lead, lead + len(data)), order)


def all_vectors(tensor: TensorInfo, axis: int) -> NDArray[np.float32]:
    return np.concatenate(list(decode.vectors(tensor, axis, Limits())))


def sorted_rows(array: NDArray[Any]) -> NDArray[Any]:
    return array[np.lexsort(array.T[::-1])]


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [
        ("F32", "f4"), ("F64", "f8"), ("F16", "f2"), ("I8", "i1"), ("U8", "u1"), ("I16", "i2"), ("U16", "u2"),
        ("I32", "i4"), ("U32", "u4"), ("I64", "i8"), ("U64", "u8"), ("BOOL", "?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_plain_dtypes(dtype: str, numpy_dtype: str, order: str) -> None:
    values = RNG.integers(0, 2 if dtype == "BOOL" else 100, (3, 4)).astype(np.dtype(order + numpy_dtype))
    assert np.array_equal(
        decode.read(stored(values.tobytes(), dtype, (3, 4), order), Limits()), values.astype(np.float32)
    )


@pytest.mark.parametrize(
    ("dtype", "reference"),
    [
        ("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2),
        ("F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz), ("F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz),
        ("F8_E8M0", ml_dtypes.float8_e8m0fnu),
    ],
)  # fmt: skip
def test_small_floats(dtype: str, reference: Any) -> None:
    values = np.abs(RNG.normal(size=(5, 8))).astype(reference)
    assert np.array_equal(decode.read(stored(values.tobytes(), dtype, (5, 8)), Limits()), values.astype(np.float32))


def test_big_endian_bfloat16() -> None:
    values = RNG.normal(size=6).astype(ml_dtypes.bfloat16)
    swapped = values.view(np.uint16).byteswap().tobytes()
    assert np.array_equal(decode.read(stored(swapped, "BF16", (6,), ">"), Limits()), values.astype(np.float32))


@pytest.mark.parametrize(("dtype", "values"), [("I4", [-8, 7, -1, 0, 3]), ("U4", [15, 0, 8, 7, 1])])
def test_packed_nibbles_low_first(dtype: str, values: list[int]) -> None:
    nibbles = [v & 15 for v in values] + [0]
    data = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    assert decode.read(stored(data, dtype, (5,)), Limits()).tolist() == values


BLOCK_TYPES = sorted(name for name, (elements, _) in UNITS.items() if elements >= 32)


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_block_types_equal_gguf(dtype: str) -> None:
    elements, unit = UNITS[dtype]
    if not decode.is_decodable(dtype):
        with pytest.raises(FormatError, match="opaque-dtype"):
            decode.read(stored(bytes(unit), dtype, (elements,)), Limits())
        return
    blocks = RNG.integers(0, 256, (6, 2 * unit), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(blocks, gguf.GGMLQuantizationType[dtype])
        measured = decode.read(stored(blocks.tobytes(), dtype, (6, 2 * elements)), Limits())
        columns = all_vectors(stored(blocks.tobytes(), dtype, (6, 2 * elements)), 0)
    assert np.array_equal(measured, expected, equal_nan=True)
    assert np.array_equal(np.sort(columns.ravel()), np.sort(expected.ravel()), equal_nan=True)


def test_common_block_types_do_not_need_the_package() -> None:
    path = FIXTURES / "gpt2-ln.Q4_K.gguf"  # its matrices of 64 columns are Q5_0, the others Q4_K
    code = f"import sys, normsniff; print(len(normsniff.sniff({str(path)!r}).shadows), 'gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, imported = done.stdout.split()
    assert int(count) > 5
    assert imported == "False"


def test_big_endian_blocks_are_refused() -> None:
    with pytest.raises(FormatError, match="big-endian"):
        decode.read(stored(bytes(34), "Q8_0", (32,), ">"), Limits())


@settings(max_examples=60, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 700), st.integers(1, 40)),
        st.tuples(st.integers(1, 40), st.integers(1, 700)),
        st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
    ),
    data=st.data(),
    slab=st.booleans(),
)
def test_vectors_are_all_vectors_once(shape: tuple[int, ...], data: st.DataObject, slab: bool) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    tensor = TensorInfo("t", "F32", shape, ArraySlab(values)) if slab else stored(values.tobytes(), "F32", shape)
    expected = np.moveaxis(values, axis, -1).reshape(-1, shape[axis])
    assert np.array_equal(sorted_rows(all_vectors(tensor, axis)), sorted_rows(expected))


def test_a_prefix_is_spread_and_costs_only_its_bytes() -> None:
    values = np.repeat(np.arange(65536, dtype=np.float32)[:, None], 8, axis=1)
    tensor = stored(values.tobytes(), "F32", values.shape)
    blocks = list(decode.vectors(tensor, 1, Limits(), 1024))
    assert len(blocks) == 4
    seen = np.concatenate(blocks)[:, 0]
    assert seen.size == 1024
    assert seen.min() == 0
    assert seen.max() >= 0.7 * 65536
    assert isinstance(tensor.storage, Extent)
    assert tensor.storage.source.bytes_read == seen.size * 32


def test_blocks_are_bounded_in_memory() -> None:
    """A width of a million in a column block: never more than 8 MB at once, or one vector."""
    wide = TensorInfo("t", "I8", (3, 1_000_000), ArraySlab(np.ones((3, 1_000_000), np.int8)))
    _are_small_and_all(decode.vectors(wide, 1, Limits()))
    tall = TensorInfo("t", "I8", (1_000_000, 3), ArraySlab(np.ones((1_000_000, 3), np.int8)))
    _are_small_and_all(decode.vectors(tall, 0, Limits()))


def _are_small_and_all(blocks: Iterable[NDArray[Any]]) -> None:
    sizes = [(block.size, block.nbytes) for block in blocks]
    assert sum(size for size, _ in sizes) == 3_000_000
    assert max(nbytes for _, nbytes in sizes) <= 9_000_000


def test_an_absurd_width_is_refused() -> None:
    huge = TensorInfo("t", "I8", (3, 10**9), Extent(BytesSource(b""), 0, 0))
    with pytest.raises(LimitExceeded):
        next(decode.vectors(huge, 1, Limits()))


def quantised(
    shape: tuple[int, ...], parameters: int, axis: int | None, zero: bool
) -> tuple[TensorInfo, NDArray[np.float32]]:
    integers = RNG.integers(0, 255, shape).astype(np.uint8)
    scale = RNG.uniform(0.1, 2.0, parameters).astype(np.float32)
    points = RNG.integers(100, 150, parameters).astype(np.uint8)
    zero_info = TensorInfo("z", "U8", points.shape, ArraySlab(points)) if zero else None
    affine = Affine(TensorInfo("s", "F32", scale.shape, ArraySlab(scale)), zero_info, axis)

    def along(values: NDArray[Any]) -> NDArray[Any]:
        return values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(len(shape))])

    expected = (integers.astype(np.float32) - (along(points.astype(np.float32)) if zero else 0)) * along(scale)
    source = BytesSource(integers.tobytes())
    return TensorInfo("q", "U8", shape, Extent(source, 0, integers.size), affine=affine), expected.astype(np.float32)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("along", "parameters"), [(None, 1), (0, 30), (1, 1200)])
@pytest.mark.parametrize("axis", [0, 1])
def test_affine_weights(along: int | None, parameters: int, zero: bool, axis: int) -> None:
    tensor, expected = quantised((30, 1200), parameters, along, zero)
    assert np.allclose(decode.read(tensor, Limits()), expected, rtol=1e-6)
    vectors = np.moveaxis(expected, axis, -1).reshape(-1, expected.shape[axis])
    assert np.allclose(sorted_rows(all_vectors(tensor, axis)), sorted_rows(vectors), rtol=1e-6)


def test_affine_of_an_expert_stack() -> None:
    tensor, expected = quantised((4, 6, 10), 4, 0, True)
    vectors = np.moveaxis(expected, 1, -1).reshape(-1, 6)
    assert np.allclose(sorted_rows(all_vectors(tensor, 1)), sorted_rows(vectors), rtol=1e-6)


def test_limits_and_lies() -> None:
    with pytest.raises(LimitExceeded):
        decode.read(stored(bytes(400), "F32", (100,)), Limits(tensor_bytes=300))
    with pytest.raises(FormatError, match="truncated"):
        decode.read(stored(bytes(396), "F32", (100,)), Limits())
    with pytest.raises(FormatError, match="opaque-dtype"):
        decode.read(stored(bytes(3), "F6_E2M3", (4,)), Limits())


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 64, 100])
def test_spread_is_a_permutation(n: int) -> None:
    assert sorted(decode.spread(n)) == list(range(n))


@pytest.mark.parametrize(
    ("function", "dtype", "room"),
    [
        (decode.read, "F32", 4 + 4), (decode.read, "F64", 8 + 4), (decode.read, "I8", 1 + 4),
        (decode.exact, "F32", 4 + 4 + 8), (decode.exact, "F64", 8 + 8), (decode.exact, "I8", 1 + 4 + 8),
    ],
)  # fmt: skip
def test_a_tensor_that_the_budget_has_no_room_for_is_refused_before_it_is_decoded(
    function: Callable[[TensorInfo, Limits], NDArray[Any]], dtype: str, room: int
) -> None:
    """It was counted after it was there: sixty names of one array of 64 MB took 241 MB before the answer ended."""
    n, reads = 1000, []

    class Noted:
        def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
            reads.append(index)
            return np.ones(n, dtype={"F32": "f4", "F64": "f8", "I8": "i1"}[dtype])

    tensor = TensorInfo("t", dtype, (n,), Noted())
    with metered("m", Limits(held_bytes=room * n)):
        for _ in range(3):  # what is given back is there again
            function(tensor, Limits())
    assert len(reads) == 3
    with metered("m", Limits(held_bytes=room * n - 1)), pytest.raises(BudgetSpent, match="decoding"):
        function(tensor, Limits())
    assert len(reads) == 3
