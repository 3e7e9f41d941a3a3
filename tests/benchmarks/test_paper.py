"""The mathematics of benchmarks/paper on small arrays; with torch, the paper's claim on four tiny networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.paper import spectrum as sp
from benchmarks.paper.report import fill, table
from normsniff.kernel.shadow import dead_direction
from tests.helpers.manifest import ROOT

TABLES = ("run", "untrained", "untrained summary", "untrained labels", "along", "spectra", "stream", "blocks", "labels")

Float64 = NDArray[np.float64]


def _normed(scale: Float64, seed: int, *, centred: bool) -> Float64:
    """LayerNorm or RMSNorm of correlated rows with a mean, scaled and shifted."""
    generator = np.random.default_rng(seed)
    d = len(scale)
    x = generator.normal(size=(8 * d, d)) @ generator.normal(size=(d, d)) + generator.normal(size=d)
    if centred:
        x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True))
    result: Float64 = scale * x + generator.normal(size=d)
    return result


@settings(max_examples=25, deadline=None)
@given(d=st.integers(4, 40), seed=st.integers(0, 10_000))
def test_a_layer_norm_has_its_dead_direction_at_the_bottom(d: int, seed: int) -> None:
    scale = np.random.default_rng(seed).uniform(0.5, 1.5, d)
    found = sp.spectrum(_normed(scale, seed, centred=True))
    v = dead_direction(scale).vector
    assert sp.cosine(v, found.bottom) > 0.999999
    assert sp.variance_along(_normed(scale, seed, centred=True), v) < 1e-25 * found.median
    assert found.kernel.shape == (1, d)


def test_an_rms_norm_has_none() -> None:
    scale = np.random.default_rng(0).uniform(0.5, 1.5, 256)
    rows = _normed(scale, 0, centred=False)
    found = sp.spectrum(rows)
    v = dead_direction(scale).vector
    assert sp.cosine(v, found.bottom) < 0.2
    assert sp.variance_along(rows, v) > 0.1 * found.median


def test_vanished_scales_join_the_kernel() -> None:
    scale = np.random.default_rng(1).uniform(0.5, 1.5, 32)
    scale[[3, 7]] = 1e-30, -2e-30
    found = sp.spectrum(_normed(scale, 1, centred=True))
    assert len(found.kernel) == 2  # the others are not tied by a zero sum any more
    assert sp.cosine_to_span(dead_direction(scale).vector, found.kernel) > 0.999999
    assert float((found.kernel[:, [3, 7]] ** 2).sum()) == pytest.approx(2, abs=1e-9)


def test_eigenvalues_are_those_of_the_covariance() -> None:
    rows = _normed(np.ones(12), 2, centred=False)
    expected = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
    np.testing.assert_allclose(sp.spectrum(rows).eigenvalues, expected, rtol=1e-9)
    np.testing.assert_allclose(sp.singular_values(rows) ** 2, expected, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((7, 4)), np.zeros(8), np.full((8, 4), np.nan)], ids=["few", "flat", "nan"])
def test_what_is_no_sample_is_refused(bad: Float64) -> None:
    with pytest.raises(ValueError, match=r"is needed|not finite"):
        sp.centre(bad)


def test_chance_is_exceeded_once_in_twenty() -> None:
    generator = np.random.default_rng(3)
    v, bottom = 1 / generator.uniform(0.2, 2, 200), generator.normal(size=200)
    flips = generator.choice([-1.0, 1.0], size=(4000, 200)) * v
    exceeded = np.mean([sp.cosine(flip, bottom) > sp.chance(v, bottom) for flip in flips])
    assert 0.035 < exceeded < 0.065


def test_energy_of_ones_is_judged_against_random_signs() -> None:
    rows = _normed(np.ones(24), 4, centred=False)
    energy, spread = sp.energy_of_ones(rows)
    signs = np.random.default_rng(4).choice([-1.0, 1.0], size=(4000, 24))
    flips = np.array([sp.variance_along(rows, s / np.sqrt(24)) for s in signs])
    assert energy == pytest.approx(sp.variance_along(rows, np.full(24, 24**-0.5)) / flips.mean(), rel=0.05)
    assert spread == pytest.approx(flips.std() / flips.mean(), rel=0.1)
    assert sp.energy_of_ones(_normed(np.ones(24), 4, centred=True))[0] < 1e-25


def test_steps_name_the_blocks_that_do_not_preserve_the_bottom() -> None:
    values = np.array([1.0, 2.0, 10.0])
    found = sp.steps([values, 1.5 * values, np.array([0.5, 3.0, 10.0]), np.array([1e-12, 0.5, 10.0])])
    assert found.ratios == pytest.approx((1.5, 1 / 3, 1.0))
    assert found.exceptions == (1, 2)  # block 1 by its ratio, block 2 because a direction dies
    assert (found.died(1), found.died(2)) == (0, 1)
    assert found.dead == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="one block"):
        sp.steps([values])
    with pytest.raises(ValueError, match="constant"):
        sp.steps([values, np.zeros(3)])


def test_fill_replaces_between_markers_only() -> None:
    document = "a\n<!-- x -->\nold\n<!-- end x -->\nb <!-- y --><!-- end y -->"
    filled = fill(document, {"x": table(["h", "k"], [["1", "2"]])})
    assert "old" not in filled
    assert filled.startswith("a\n<!-- x -->\n\n| h | k |\n| --- | ---: |\n| 1 | 2 |\n\n<!-- end x -->\nb")
    assert fill(filled, {"x": "new"}).count("new") == 1
    with pytest.raises(ValueError, match="once each"):
        fill(document, {"z": ""})
    with pytest.raises(ValueError, match="in this order"):
        fill("<!-- end x --><!-- x -->", {"x": ""})


def test_the_document_has_a_place_for_every_table_and_the_command_filled_it() -> None:
    document = (ROOT / "docs" / "paper.md").read_text("utf-8")
    assert fill(document, dict.fromkeys(TABLES, "")) != document
    for name in TABLES:
        text = document.partition(f"<!-- {name} -->")[2].partition(f"<!-- end {name} -->")[0]
        assert text.strip(), f"{name} is empty"


@pytest.mark.parametrize("name", ["GPT-2", "Nemotron (1 + w)", "Llama (SmolLM2)", "Gemma (1 + w)"])
def test_real_classes_meet_the_claim(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.paper.networks import NETWORKS
    from benchmarks.paper.runs import measure_untrained

    network = next(one for one in NETWORKS if one.name == name)
    found = measure_untrained(network, seed=0, width=64)
    assert found.label.label == "undetermined"
    if network.truth == "LayerNorm":
        assert found.cosine > 0.9999
        assert found.ones < 0.99  # γ was moved: without it the direction would be missed
    else:
        assert found.cosine < 0.5
        assert found.smallest > 1e-3


def test_a_llama_file_is_brought_back_into_the_order_of_its_class() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors.torch")
    from benchmarks.paper.checkpoints import _from_gguf

    expected = safetensors.load_file(ROOT / "fixtures" / "llama-rms" / "model.safetensors")
    found = _from_gguf(ROOT / "fixtures" / "llama-rms.F32.gguf")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
