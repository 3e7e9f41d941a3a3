"""What numbers say of a matrix's place: on planted ties, and on trained networks whose names tell the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from normsniff import decode
from normsniff.anatomy import describe
from normsniff.anatomy.parts import Anatomy, Matrix
from normsniff.checkpoint import ArraySlab, Checkpoint, TensorInfo
from normsniff.inputs.arrays import from_arrays
from normsniff.inputs.opening import opened
from normsniff.limits import Limits
from normsniff.measure import ties
from normsniff.measure.shadows import measure, read_vectors

FIXTURES = Path(__file__).parents[2] / "fixtures"
Float64 = NDArray[np.float64]
D = 96


def _scale(rng: np.random.Generator, spread: float = 0.2) -> Float64:
    return np.exp(spread * rng.standard_normal(D))


def _tied(rng: np.random.Generator, scale: Float64, axis: int) -> NDArray[np.float32]:
    """A square matrix whose energies along one axis follow a scale."""
    weight = rng.standard_normal((D, D)) * np.expand_dims(scale, 1 - axis)
    return weight.astype(np.float32)


def _measured(
    weights: Mapping[str, NDArray[np.float32]], scales: list[Float64]
) -> tuple[dict[str, int], tuple[str, ...]]:
    infos = [TensorInfo(name, "F32", w.shape, ArraySlab(w)) for name, w in weights.items()]
    anatomy = Anatomy((), tuple(Matrix(t, 0, "unknown", either=True) for t in infos), {"main": D}, "shapes")
    found, notes = measure(anatomy, {}, Limits(), candidates=scales)
    return {m.matrix.tensor.name: m.matrix.axis for m in found}, notes


def test_the_residual_axis_of_a_square_matrix_is_the_one_that_is_tied_to_a_scale() -> None:
    rng = np.random.default_rng(0)
    scales = [_scale(rng) for _ in range(6)]
    weights = {f"{axis}-{i}": _tied(rng, scales[i], axis) for i in range(6) for axis in (0, 1)}
    found, notes = _measured(weights, scales)
    assert found == {name: int(name[0]) for name in weights}
    assert not notes


def test_where_nothing_is_tied_nothing_is_said() -> None:
    rng = np.random.default_rng(1)
    scales = [_scale(rng) for _ in range(6)]
    found, notes = _measured({f"w{i}": _tied(rng, np.ones(D), 0) for i in range(12)}, scales)
    assert found == {}
    assert "12 matrices not measured: square, and no tie" in notes[0]


def test_scales_that_are_constant_tie_nothing() -> None:
    rng = np.random.default_rng(2)
    scale = _scale(rng)
    assert ties.scored([np.ones(D), np.full(D, 0.5)], D).shape == (0, D)
    assert _measured({"w": _tied(rng, scale, 0)}, [np.ones(D)])[0] == {}


@given(seed=st.integers(0, 2**32 - 1), growing=st.booleans())
def test_scores_hang_on_the_order_alone_and_a_tie_on_no_sign(seed: int, growing: bool) -> None:
    rng = np.random.default_rng(seed)
    values, energies = rng.standard_normal(D), ties.scores(rng.standard_normal(D))
    scores = ties.scores(values)
    assert np.allclose(scores, ties.scores(np.exp(values)))
    assert abs(scores.mean()) < 1e-9
    assert (scores * scores).mean() == pytest.approx(1)
    sign = 1.0 if growing else -1.0
    assert ties.tie(sign * energies, scores[None]) == pytest.approx(ties.tie(energies, scores[None]))


def test_equal_values_have_one_score() -> None:
    found = ties.scores(np.array([3.0, 1.0, 1.0, 2.0]))
    assert found[1] == found[2]
    assert ties.scores(np.ones(5)).tolist() == [0.0] * 5


def test_the_largest_of_many_chance_ties_is_about_one() -> None:
    rng = np.random.default_rng(3)
    for count in (1, 8, 40):
        scales = np.array([ties.scores(rng.standard_normal(D)) for _ in range(count)])
        found = [ties.tie(ties.scores(rng.standard_normal(D)), scales) for _ in range(400)]
        assert np.mean(np.array(found) > ties.TIED) < 0.02
        assert np.quantile(found, 0.9) > 0.6


def test_too_many_scales_are_refused() -> None:
    rng = np.random.default_rng(4)
    slots = [[ties.scores(rng.standard_normal(8)) for _ in range(4)] for _ in range(2)]
    with pytest.raises(ValueError, match="8 scales cannot be told apart in 8 coordinates"):
        ties.own([ties.scores(rng.standard_normal(8))] * 4, slots)


# --- names against numbers ------------------------------------------------------------------------------------------

CLEAR, FEWEST = 3.0, 10.0
"""The best slot against the next, and the least mean of t² that is no chance."""

TRAINED = ("gpt2-ln", "bert-ln", "llama-rms", "gemma-rms", "plain-rms", "mixed")


def _clear(checkpoint: Checkpoint) -> dict[str, tuple[str, str]]:
    """Return by place in a block the norm that names let a reader read, and the one that numbers tie it to clearly."""
    anatomy = describe(checkpoint)
    scales = read_vectors(anatomy, Limits()).scales
    slots: dict[str, dict[int, Float64]] = defaultdict(dict)
    readers: dict[str, dict[int, Matrix]] = defaultdict(dict)
    for at, site in enumerate(anatomy.sites):
        if site.layer is not None and site.role == "stream" and at in scales:
            slots[_place(site.name, site.layer)][site.layer] = ties.scores(np.log(np.abs(scales[at])))
    for matrix in anatomy.matrices:
        if matrix.role == "reader" and matrix.site is not None and matrix.layer is not None:
            readers[_place(matrix.tensor.name, matrix.layer)][matrix.layer] = matrix
    names, found = list(slots), {}
    for place, by_layer in readers.items():
        layers = sorted(by_layer)
        energies = [
            ties.energy(list(decode.vectors(by_layer[at].tensor, by_layer[at].axis, Limits(), 128))) for at in layers
        ]
        tied = ties.own(energies, [[slots[name][at] for at in layers] for name in names])
        first, second = sorted(range(len(names)), key=lambda i: -tied[i])[:2]
        if tied[first] > max(CLEAR * tied[second], FEWEST):
            said = anatomy.sites[by_layer[layers[0]].site or 0].name
            found[place] = (_place(said, layers[0]), names[first])
    return found


def _place(name: str, layer: int) -> str:
    return name.replace(f".{layer}.", ".#.")


@pytest.mark.parametrize("name", TRAINED)
def test_readers_are_tied_to_the_norm_that_names_let_them_read(name: str) -> None:
    with opened(FIXTURES / name / "model.safetensors", Limits()) as checkpoint:
        found = _clear(checkpoint)
    assert all(said == tied for said, tied in found.values()), found
    assert found or name == "bert-ln"  # its two are told apart by a factor of 2.6


def _renamed(name: str, words: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    with opened(FIXTURES / name / "model.safetensors", Limits()) as checkpoint:
        state = {}
        for key, tensor in checkpoint.tensors.items():
            for old, new in words.items():
                key = key.replace(old, new)
            state[key] = decode.read(tensor, Limits())
    return state


def test_numbered_norms_are_read_as_the_numbers_say() -> None:
    words = {
        "transformer.h": "blocks", "ln_1": "n1", "ln_2": "n2", "attn.c_attn": "qkv", "attn.c_proj": "proj",
        "mlp.c_fc": "up", "mlp.c_proj": "down", "transformer.ln_f": "nf",
    }  # fmt: skip
    found = _clear(from_arrays(_renamed("gpt2-ln", words)))
    assert found == {
        "blocks.#.qkv.weight": ("blocks.#.n1", "blocks.#.n1"),
        "blocks.#.up.weight": ("blocks.#.n2", "blocks.#.n2"),
    }


@pytest.mark.parametrize(("name", "fewest"), [("bert-ln", 5), ("llama-rms", 2), ("gemma-rms", 1), ("plain-rms", 2)])
def test_without_names_square_matrices_of_trained_networks_speak_along_the_right_axis(name: str, fewest: int) -> None:
    with opened(FIXTURES / name / "model.safetensors", Limits()) as checkpoint:
        named = {m.tensor.name: m.axis for m in describe(checkpoint).matrices}
        anatomy = describe(checkpoint, parameters_alone=True)
        found, _ = measure(anatomy, {}, Limits(), candidates=read_vectors(anatomy, Limits()).candidates)
    axes = {m.matrix.tensor.name: m.matrix.axis for m in found if len(set(m.matrix.tensor.shape)) == 1}
    known = {name: axis for name, axis in axes.items() if name in named}
    assert len(known) >= fewest
    assert all(axis == named[name] for name, axis in known.items())
