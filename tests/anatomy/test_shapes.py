"""Parameters alone: d_model and the residual axis from shapes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normsniff.anatomy.shapes import describe
from normsniff.checkpoint import ArraySlab, Checkpoint, TensorInfo


def checkpoint(*shapes: tuple[int, ...], dtype: str = "F32") -> Checkpoint:
    nothing = ArraySlab(np.empty(0, np.float32))
    tensors = {str(i): TensorInfo(str(i), dtype, shape, nothing) for i, shape in enumerate(shapes)}
    return Checkpoint("arrays", None, tensors, (), "")


def transformer(d: int, ff: int, kv: int, layers: int, vocabulary: int) -> list[tuple[int, ...]]:
    block = [(d, d), (kv, d), (kv, d), (d, d), (ff, d), (ff, d), (d, ff), (d,), (d,)]
    return [(vocabulary, d), *block * layers, (d,)]


@given(
    d=st.integers(4, 64).map(lambda n: n * 16),
    ff=st.sampled_from([2, 3, 4]),
    layers=st.integers(2, 4),
    vocabulary=st.integers(100, 50_000),
)
def test_width_of_any_transformer(d: int, ff: int, layers: int, vocabulary: int) -> None:
    if vocabulary == d:
        return
    found = describe(checkpoint(*transformer(d, ff * d, d // 4, layers, vocabulary)))
    assert found.widths == {"main": d}
    assert sum(not m.either for m in found.matrices) == 1 + 5 * layers
    assert all(m.tensor.shape[m.axis] == d for m in found.matrices)
    assert found.sites == ()


def test_of_square_matrices_either_axis_may_be_the_one() -> None:
    found = describe(checkpoint(*transformer(64, 256, 32, 2, 100)))
    assert all(m.either == (m.tensor.shape.count(64) == 2) for m in found.matrices)
    assert sum(m.either for m in found.matrices) == 4


def test_square_matrices_are_left_out_and_said_so_where_no_vector_can_be_a_scale() -> None:
    shapes = [shape for shape in transformer(64, 256, 32, 2, 100) if len(shape) == 2]
    found = describe(checkpoint(*shapes))
    assert {m.tensor.shape.count(64) for m in found.matrices} == {1}
    assert "square" in found.notes[0]


def test_experts_and_merged_heads_count() -> None:
    found = describe(checkpoint((8, 256, 64), (8, 64, 256), (64, 4, 16), (4, 16, 64), (1000, 64), (64,)))
    assert found.widths == {"main": 64}
    assert [m.axis for m in found.matrices] == [2, 1, 0, 2, 1]


@pytest.mark.parametrize(
    "shapes",
    [
        [],
        [(64,), (64,)],
        [(100, 64)],
        [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (10, 128)],  # a CNN
        [(64, 100), (64, 200), (300, 64), *[(512, 512, 3, 3)] * 9],  # mostly convolutions
        [(8, 8)] * 20,  # too narrow
    ],
)
def test_no_residual_stream(shapes: list[tuple[int, ...]]) -> None:
    found = describe(checkpoint(*shapes))
    assert found.matrices == ()
    assert found.notes


def test_index_tensors_are_no_weights() -> None:
    assert describe(checkpoint(*[(100, 64)] * 5, dtype="I64")).matrices == ()
