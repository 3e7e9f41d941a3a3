"""Which matrices are sampled, along which direction, and at what price."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from normsniff.anatomy import describe
from normsniff.anatomy.parts import Anatomy, Matrix, MatrixRole, Site
from normsniff.checkpoint import TensorInfo
from normsniff.inputs.arrays import from_arrays
from normsniff.limits import Limits
from normsniff.measure.samples import Sample
from normsniff.measure.shadows import measure, read_vectors
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

RNG = np.random.default_rng(11)


def tensor(name: str, values: NDArray[Any]) -> TensorInfo:
    data = values.astype(np.float32).tobytes()
    return TensorInfo(name, "F32", values.shape, Extent(BytesSource(data), 0, len(data)))


def matrix(
    name: str, shape: tuple[int, int], axis: int, role: MatrixRole, layer: int, site: int | None = None
) -> Matrix:
    return Matrix(tensor(name, RNG.normal(size=shape).astype(np.float32)), axis, role, layer=layer, site=site)


def network(layers: int, rows: int = 64) -> Anatomy:
    sites = tuple(Site(f"norm{i}", tensor(f"s{i}", RNG.uniform(0.5, 2, 32)), None, layer=i) for i in range(layers))
    matrices = [matrix(f"w{i}", (32, rows), 0, "writer", i) for i in range(layers)]
    matrices += [matrix(f"r{i}", (rows, 32), 1, "reader", i, i) for i in range(layers)]
    return Anatomy(sites, tuple(matrices), {"main": 32}, "names")


def test_readers_go_along_the_inverse_scale_and_writers_along_ones() -> None:
    anatomy = network(3)
    measured, notes = measure(anatomy, read_vectors(anatomy, Limits()).scales, Limits())
    assert {(m.matrix.role, m.direction) for m in measured} == {("writer", "ones"), ("reader", "inverse-scale")}
    assert len(measured) == 6
    assert notes == ()


def test_defaults_sample_the_whole_depth() -> None:
    anatomy = network(100)
    measured, _ = measure(anatomy, {i: np.ones(32) for i in range(100)}, Limits())
    layers = [m.matrix.layer or 0 for m in measured if m.matrix.role == "writer"]
    assert 8 <= len(layers) < 40
    assert min(layers) < 15
    assert max(layers) > 80


def test_full_measures_everything() -> None:
    anatomy = network(100)
    measured, _ = measure(anatomy, {i: np.ones(32) for i in range(100)}, Limits(), None)
    assert len({m.matrix.tensor.name for m in measured}) == 200


def test_budget_bounds_the_bytes_and_keeps_a_fair_sample() -> None:
    anatomy = network(20, rows=3000)
    measured, _ = measure(anatomy, {i: np.ones(32) for i in range(20)}, Limits(), 1_000_000)
    read = sum(
        m.matrix.tensor.storage.source.bytes_read for m in measured if isinstance(m.matrix.tensor.storage, Extent)
    )
    assert 500_000 < read <= 1_000_000
    assert {m.matrix.role for m in measured} == {"writer", "reader"}


def test_a_budget_below_one_sample_says_so() -> None:
    measured, notes = measure(network(2, rows=3000), {}, Limits(), 1000)
    assert measured == ()
    assert "budget" in notes[0]


def test_a_large_matrix_is_sampled_not_read() -> None:
    wide = Matrix(tensor("w", RNG.normal(size=(60_000, 32)).astype(np.float32)), 1, "reader")
    (one,), _ = measure(Anatomy((), (wide,), {"main": 32}, "names"), {}, Limits())
    assert 1024 <= one.shadow.vectors <= 5000
    assert (one.shadow.relative_error or 1) <= 0.06


def test_what_cannot_be_measured_is_said() -> None:
    scale = np.ones(32)
    scale[3] = 0
    sites = (Site("dead", tensor("s", scale), None), Site("spike", tensor("t", scale + 1e-9), None))
    readers = (matrix("a", (64, 32), 1, "reader", 0, 0), matrix("b", (64, 32), 1, "reader", 0, 1))
    zero = Matrix(tensor("z", np.zeros((32, 64), np.float32)), 0, "writer")
    opaque = Matrix(TensorInfo("o", "F6_E2M3", (32, 64), Extent(BytesSource(bytes(1536)), 0, 1536)), 0, "writer")
    anatomy = Anatomy(sites, (*readers, zero, opaque), {"main": 32}, "names")
    measured, notes = measure(anatomy, read_vectors(anatomy, Limits()).scales, Limits())
    assert measured == ()
    text = " ".join(notes)
    assert "degenerate" in text
    assert "no statistical power" in text
    assert "zero" in text


def test_vectors_that_lie_about_their_size_become_notes() -> None:
    lying = TensorInfo("s", "F32", (64,), Extent(BytesSource(bytes(16)), 0, 16))
    vectors = read_vectors(Anatomy((Site("n", lying, None),), (), {"main": 64}, "names"), Limits())
    assert vectors.scales == {}
    assert "too short" in vectors.notes[0]


def test_zero_centred_scales_get_their_offset() -> None:
    site = Site("n", tensor("s", np.full(32, 0.25)), None, offset=1.0)
    assert np.allclose(read_vectors(Anatomy((site,), (), {"main": 32}, "names"), Limits()).scales[0], 1.25)


def test_one_bias_off_zero_is_no_sign_of_scales_where_nothing_is_named() -> None:
    biases = [tensor(f"b{i}", RNG.normal(size=32)) for i in range(5)]
    off = [tensor(f"s{i}", RNG.normal(1.0, 0.1, 32)) for i in range(2)]

    def spread(*vectors: TensorInfo) -> float | None:
        return read_vectors(Anatomy((), (), {"main": 32}, "shapes", vectors=vectors), Limits()).scale_spread

    assert spread(*biases, off[0]) is None
    assert spread(*biases, *off) == pytest.approx(0.1, abs=0.05)


def test_the_bias_of_a_writer_is_read_with_it_and_costs_its_bytes() -> None:
    bias = RNG.normal(size=32)
    for name, values in (
        ("w", bias - bias.mean()),
        ("w", np.ones(32)),
        ("w", np.zeros(32)),
        ("w", np.full(32, np.nan)),
    ):
        plain = matrix(name, (32, 64), 0, "writer", 0)
        known = replace(plain, bias=tensor("b", values))
        (found,), _ = measure(Anatomy((), (known,), {"main": 32}, "names"), {}, Limits())
        expected = None if not np.isfinite(values).all() or not values.any() else 32.0 if values[0] == 1 else 0.0
        assert found.bias == pytest.approx(expected, abs=1e-9)
        assert Sample(known, None, Limits()).nbytes == Sample(plain, None, Limits()).nbytes + 128
        assert Sample(known, 16, Limits()).nbytes == Sample(plain, 16, Limits()).nbytes + 128


def test_a_writer_has_the_bias_of_its_own_name_and_length() -> None:
    shapes = {
        "h.0.mlp.down_proj.weight": (32, 64), "h.0.mlp.down_proj.bias": (32,), "h.0.mlp.up_proj.weight": (64, 32),
        "h.0.mlp.up_proj.bias": (64,), "h.0.self_attn.o_proj.weight": (32, 64), "h.0.self_attn.o_proj.bias": (64,),
        "h.0.input_layernorm.weight": (32,), "h.0.post_attention_layernorm.weight": (32,), "norm.weight": (32,),
    }  # fmt: skip
    found = describe(from_arrays({name: np.ones(shape, np.float32) for name, shape in shapes.items()}))
    assert {m.tensor.name: m.bias and m.bias.name for m in found.matrices} == {
        "h.0.mlp.down_proj.weight": "h.0.mlp.down_proj.bias",
        "h.0.mlp.up_proj.weight": None,
        "h.0.self_attn.o_proj.weight": None,
    }
