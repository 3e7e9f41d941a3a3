"""Matrices of one role, pooled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff import kernel, sniff
from normsniff.anatomy.parts import Anatomy, Matrix, MatrixRole, Site
from normsniff.checkpoint import ArraySlab, TensorInfo
from normsniff.limits import Limits
from normsniff.measure.pools import pool
from normsniff.measure.shadows import Measured, measure
from tests.helpers.onnx_files import field, integer, node, onnx

D = 48


def _measured(
    weights: dict[str, NDArray[Any]], role: MatrixRole, scale: NDArray[np.float64] | None = None
) -> list[Measured]:
    tensors = {name: TensorInfo(name, "F32", w.shape, ArraySlab(w.astype(np.float32))) for name, w in weights.items()}
    site = None if scale is None else 0
    matrices = tuple(Matrix(t, 1, role, site=site) for t in tensors.values())
    gamma = TensorInfo("g", "F32", (D,), ArraySlab(np.ones(D, np.float32)))
    sites = () if scale is None else (Site("n", gamma, None),)
    found, notes = measure(
        Anatomy(sites, matrices, {"main": D}, "names"), {} if scale is None else {0: scale}, Limits()
    )
    assert not notes
    return list(found)


def _weight(name: str, values: NDArray[np.float64]) -> bytes:
    dims = b"".join(integer(1, n) for n in values.shape)
    return dims + integer(2, 1) + field(8, name) + field(9, values.astype("<f4").tobytes())


def _weak(rng: np.random.Generator, direction: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """Noise of some size with one weak direction: x = 0.6 of the noise, below the edge of one matrix."""
    left = rng.standard_normal(64)
    signal = math.sqrt(0.6 * 64) * np.outer(left / np.linalg.norm(left), direction)
    return np.asarray(size * (rng.standard_normal((64, D)) + signal))


def test_what_many_matrices_share_shows_in_the_pool_alone() -> None:
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(D)
    direction /= np.linalg.norm(direction)
    found = _measured({f"w{i}": _weak(rng, direction, 10.0**-i) for i in range(10)}, "writer")
    alone = sum(one.learned is not None and one.learned.nu > 0 for one in found)
    peaks = pool(found, "writer")
    assert peaks is not None
    assert kernel.learned(peaks).nu >= 1
    assert alone < 6
    assert peaks.vectors == 640


def test_readers_of_different_scales_share_a_direction_once_rescaled() -> None:
    """Each lacks energy along its own γ⁻¹; in the pool that is **1** for all."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(4):
        scale = rng.uniform(0.5, 2.0, D)
        v = (1 / scale) / np.linalg.norm(1 / scale)
        basis = np.linalg.qr(np.column_stack([v, rng.standard_normal((D, 6))]))[0][:, 1:]  # orthogonal to v
        left = np.linalg.qr(rng.standard_normal((64, 6)))[0]
        matrix = rng.standard_normal((64, D)) + math.sqrt(8 * 64) * left @ basis.T
        found += _measured({f"r{i}": matrix}, "reader", scale)
    peaks = pool(found, "reader")
    assert peaks is not None
    shadow = kernel.learned(peaks)
    assert shadow.rho is not None
    assert shadow.rho < 0.2


def test_of_a_stream_that_grows_wider_the_commonest_width_is_pooled() -> None:
    rng = np.random.default_rng(4)
    widths = (D // 2, D, D, 2 * D)
    tensors = [
        TensorInfo(f"w{i}", "F32", (64, width), ArraySlab(rng.standard_normal((64, width)).astype(np.float32)))
        for i, width in enumerate(widths)
    ]
    matrices = tuple(Matrix(tensor, 1, "writer") for tensor in tensors)
    found, notes = measure(Anatomy((), matrices, {"main": D}, "graph"), {}, Limits())
    peaks = pool(found, "writer")
    assert not notes
    assert peaks is not None
    assert (peaks.d, peaks.vectors) == (D, 128)


def test_a_graph_in_stages_is_labelled() -> None:
    rng = np.random.default_rng(5)
    nodes, weights, x = [], [], "x"
    for stage, width in enumerate((8, 16, 24)):
        shapes: dict[str, tuple[int, ...]] = {"gamma": (width,), "beta": (width,), "in": (width, 4 * width)}
        shapes |= {"out": (4 * width, width), "wider": (width, width + 8)}
        weights += [_weight(f"{name}{stage}", rng.uniform(0.5, 1.5, shape)) for name, shape in shapes.items()]
        nodes += [
            node("LayerNormalization", [x, f"gamma{stage}", f"beta{stage}"], [f"n{stage}"]),
            node("MatMul", [f"n{stage}", f"in{stage}"], [f"h{stage}"]),
            node("Relu", [f"h{stage}"], [f"r{stage}"]),
            node("MatMul", [f"r{stage}", f"out{stage}"], [f"o{stage}"]),
            node("Add", [x, f"o{stage}"], [f"a{stage}"]),
            node("MatMul", [f"a{stage}", f"wider{stage}"], [f"x{stage}"]),
        ]
        x = f"x{stage}"
    record = sniff(onnx([*nodes, node("Identity", [x], ["y"])], weights=tuple(weights)))
    assert record.label == "LayerNorm"
    assert {one.role for one in record.shadows} >= {"writer", "reader"}


def test_nothing_to_pool() -> None:
    found = _measured({"w": np.random.default_rng(2).standard_normal((64, D))}, "writer")
    assert pool(found, "reader") is None
    assert pool([], "writer") is None


@pytest.mark.parametrize("value", [1e30, 1e-30, 1e38])
def test_one_huge_or_tiny_matrix_neither_hides_nor_rules_the_others(value: float) -> None:
    rng = np.random.default_rng(3)
    direction = rng.standard_normal(D)
    direction /= np.linalg.norm(direction)
    weights = {f"w{i}": _weak(rng, direction, 1.0) for i in range(8)}
    weights["odd"] = rng.standard_normal((64, D)) * min(value, 1e37)
    peaks = pool(_measured_quietly(weights), "writer")
    assert peaks is not None
    assert math.isfinite(peaks.rms)
    assert all(map(math.isfinite, peaks.values))
    assert peaks.rms == pytest.approx(1.0, rel=0.2)


def _measured_quietly(weights: dict[str, NDArray[Any]]) -> list[Measured]:
    tensors = {name: TensorInfo(name, "F32", w.shape, ArraySlab(w.astype(np.float32))) for name, w in weights.items()}
    matrices = tuple(Matrix(t, 1, "writer") for t in tensors.values())
    return list(measure(Anatomy((), matrices, {"main": D}, "names"), {}, Limits())[0])
