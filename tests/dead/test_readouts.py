"""Spectra of streamed activations against a direct SVD; read-outs of files, arrays and recorded models."""

from __future__ import annotations

import json
import runpy
import sys
import tracemalloc
from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from numpy.typing import NDArray

import normsniff
from normsniff.cli import cli
from normsniff.dead import readouts
from normsniff.dead.readouts import match
from normsniff.decode import rows
from normsniff.inputs.opening import open_source
from normsniff.kernel.shadow import dead_direction
from normsniff.kernel.spectrum import spectrum, triangle
from tests.helpers.manifest import FIXTURES

Float64 = NDArray[np.float64]
MODEL = FIXTURES / "gpt2-ln"
SITES = [f"transformer.{name}" for name in ("h.0.ln_1", "h.0.ln_2", "h.1.ln_1", "h.1.ln_2", "ln_f")]


def _spread(n: int = 1000, d: int = 40, smallest: float = 1e-12) -> Float64:
    """Rows whose singular values span twelve orders of magnitude, in no axis of their own, with a mean."""
    generator = np.random.default_rng(0)
    turned = np.linalg.qr(generator.normal(size=(d, d)))[0]
    values: Float64 = (generator.normal(size=(n, d)) * np.geomspace(1, smallest, d)) @ turned + generator.normal(size=d)
    return values


def _output(norm: str, n: int = 500, *, centred: bool = True) -> Float64:
    """What that LayerNorm of the fixture puts out for random inputs."""
    stored = safetensors.numpy.load_file(MODEL / "model.safetensors")
    gamma, beta = (stored[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    x = np.random.default_rng(len(norm)).normal(size=(n, 64))
    x -= centred * x.mean(axis=1, keepdims=True)
    values: Float64 = gamma * x / np.sqrt((x**2).mean(axis=1, keepdims=True)) + beta
    return values


@pytest.mark.parametrize("block", [1, 7, 40, 333, 1000])
def test_blocks_have_the_singular_values_of_the_whole(block: int) -> None:
    x = _spread()
    found = spectrum(reduce(add, [triangle(x[at : at + block]) for at in range(0, len(x), block)]))
    expected = np.linalg.svd(x - x.mean(axis=0))
    np.testing.assert_allclose(found.singular[::-1] * np.sqrt(len(x)), expected[1], rtol=1e-3)  # 1e-12 included
    np.testing.assert_allclose(found.singular[-20:][::-1] * np.sqrt(len(x)), expected[1][:20], rtol=1e-9)
    assert abs(found.directions[0] @ expected[2][-1]) > 0.9999
    assert found.variance_along(found.directions[0]) == pytest.approx(found.singular[0] ** 2, rel=1e-2)
    assert found.below(1e-6) == int(np.sum(expected[1] < 1e-6 * expected[1][0]))


def test_a_covariance_would_have_lost_the_bottom() -> None:
    x = _spread()
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    assert abs(values[0]) > 1e4 * spectrum(triangle(x)).singular[0] ** 2


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_other_namespaces_give_the_same(library: str) -> None:
    xp = pytest.importorskip(library)
    x = _spread()
    found = spectrum(triangle(xp.asarray(x[:600])) + triangle(xp.asarray(x[600:])))
    np.testing.assert_allclose(found.singular, spectrum(triangle(x)).singular, rtol=1e-3)
    arrays = {SITES[0]: xp.asarray(_output(SITES[0]).reshape(5, 100, 64))}
    (norm,) = normsniff.readout(arrays, MODEL).norms
    assert norm.cosine == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("bad", "why"),
    [(np.zeros(8), "shape"), (np.zeros((0, 4)), "shape"), (np.full((8, 4), np.nan), "not finite")],
    ids=["flat", "empty", "nan"],
)
def test_what_is_no_block_of_rows_is_refused(bad: Float64, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        triangle(bad)


def _stored(kind: str, x: NDArray[Any], path: Path) -> Path:
    if kind == "safetensors":
        safetensors.numpy.save_file({"array": np.ascontiguousarray(x)}, path)
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), x)
        return path.with_suffix(".npy")
    else:
        with path.open("wb") as file:
            (np.savez if kind == "npz" else np.savez_compressed)(file, array=x)
    return path


@pytest.mark.parametrize(
    ("kind", "dtype", "order"),
    [
        *(("npy", dtype, order) for dtype in ("f2", "f4", "f8", ">f4") for order in "CF"),
        *((kind, "f8", order) for kind in ("npz", "compressed") for order in "CF"),
        *(("safetensors", dtype, "C") for dtype in ("f2", "f8")),
    ],
)
def test_rows_are_exact_and_in_order(kind: str, dtype: str, order: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 11, 2, 5)).astype(dtype, order=order)
    opened = open_source(_stored(kind, x, tmp_path / "x"))
    try:
        (tensor,) = opened.tensors.values()
        for most in (1, 4, 7, 100):
            blocks = list(rows.blocks(tensor, most))
            assert max(map(len, blocks)) <= most
            np.testing.assert_array_equal(np.concatenate(blocks), x.reshape(-1, 5))
    finally:
        opened.close()


def test_bfloat16_and_integers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import safetensors.torch

    x = torch.arange(12).reshape(4, 3).to(torch.bfloat16)
    safetensors.torch.save_file({"x": x, "n": torch.arange(6).reshape(2, 3)}, tmp_path / "x")
    opened = open_source(tmp_path / "x")
    np.testing.assert_array_equal(next(rows.blocks(opened.tensors["x"], 9)), np.arange(12).reshape(4, 3))
    with pytest.raises(normsniff.FormatError, match="plain floats"):
        next(rows.blocks(opened.tensors["n"], 9))
    opened.close()


def test_a_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readouts, "_BLOCK", 64_000)
    x = np.tile(_output(SITES[-1]).astype(np.float32), (100, 1))  # 13 MB
    path = _stored("npy", x, tmp_path / "x")
    normsniff.readout(path, MODEL, norm=SITES[-1])
    tracemalloc.start()
    (norm,) = normsniff.readout(path, MODEL, norm=SITES[-1]).norms
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert norm.rows == 50_000
    assert peak < 6_000_000


def test_a_layer_norm_is_dead_along_v_and_nowhere_else() -> None:
    arrays = {name: _output(name) for name in SITES}
    found = normsniff.readout(arrays, MODEL)
    assert [one.norm for one in found.norms] == SITES
    for one in found.norms:
        assert one.along is not None
        assert one.median is not None
        assert one.cosine is not None
        assert one.along < 1e-28 * one.median
        assert one.cosine > 0.999999
        assert (one.further, one.label, one.rows) == (0, "LayerNorm", 500)
        assert one.bottom is not None
        assert one.bottom.shape == (64,)
    covariance = np.cov(arrays[SITES[0]].T, bias=True)
    assert found.norms[0].median == pytest.approx(np.median(np.linalg.eigvalsh(covariance)))


def test_what_the_weights_say_stands_beside_the_activations() -> None:
    norms = {one.norm: one for one in normsniff.readout({name: _output(name) for name in SITES}, MODEL).norms}
    assert all(norms[name].learned < 0.15 and norms[name].directions > 1 for name in SITES[:-1])  # type: ignore[operator]
    assert norms[SITES[-1]].learned is None  # the unembedding is the embedding
    names = [f"model.layers.{i}.{word}_layernorm" for i in range(2) for word in ("input", "post_attention")]
    noise = {name: np.random.default_rng(0).normal(size=(200, 64)) for name in names}
    found = normsniff.readout(noise, FIXTURES / "llama-rms").norms
    assert all(one.learned is not None and one.learned > 0.8 for one in found)


def test_outputs_that_were_not_centred_show_it() -> None:
    (one,) = normsniff.readout({SITES[0]: _output(SITES[0], centred=False)}, MODEL).norms
    assert one.along is not None
    assert one.median is not None
    assert one.along > 0.1 * one.median
    assert one.cosine is not None
    assert one.cosine < 0.9
    assert one.further == 0


def test_vanished_scales_and_further_dead_directions_are_counted() -> None:
    stored = safetensors.numpy.load_file(MODEL / "model.safetensors")
    x = _output(SITES[-1])
    stored[f"{SITES[-1]}.weight"][[3, 9]] = 0
    x[:, [3, 9, 20]] = 1  # 20 is dead as well, and γ does not say so; the zero sum of the others is what γ forgets
    (one,) = normsniff.readout({SITES[-1]: x}, stored).norms
    assert one.along == pytest.approx(0, abs=1e-28)
    assert one.found == pytest.approx(1)
    assert one.further == 1


def test_an_rms_norm_has_no_direction_but_is_measured() -> None:
    name = "model.layers.0.input_layernorm"
    (one,) = normsniff.readout({name: np.random.default_rng(0).normal(size=(400, 64))}, FIXTURES / "llama-rms").norms
    assert (one.along, one.cosine, one.further) == (None, None, 0)
    assert one.smallest is not None
    assert "does not subtract the mean" in one.reason


@pytest.mark.parametrize(
    ("array", "norm"),
    [
        ("a.b.ln", "a.b.ln"),
        ("b.ln", "a.b.ln"),
        ("model.a.b.ln", "a.b.ln"),
        ("/a/b/ln/", "a.b.ln"),
        ("ln", None),  # two norms end so
        ("xb.ln", None),
        ("c", None),
    ],
)
def test_arrays_are_matched_by_name(array: str, norm: str | None) -> None:
    assert match([array], ["a.b.ln", "a.c.ln"]).get(array) == norm


def test_blocks_are_compared_in_the_order_of_their_numbers() -> None:
    x = np.random.default_rng(0).normal(size=(400, 16))
    thinner = x.copy()
    thinner[:, 0] *= 0.2
    died = thinner.copy()
    died[:, 1] = 3
    arrays = {
        "out.10.x": died,
        "out.9.x": thinner,
        "out.1.x": x,
        "other": x,
        "ids.1": np.arange(4),
        "ids.2": np.arange(4),
    }
    found = normsniff.readout(arrays, MODEL)
    (sequence,) = found.sequences
    assert sequence.places == ("out.1.x", "out.9.x", "out.10.x")
    assert sequence.ratios == pytest.approx((0.2, 1), rel=0.2)
    assert sequence.dead == (0, 0, 1)
    assert [text.partition(" (")[0] for text in sequence.exceptions] == ["out.1.x → out.9.x", "out.9.x → out.10.x"]
    assert "1 die" in sequence.exceptions[1]
    assert set(found.unmatched) == {"other", "ids.1", "ids.2"}


def test_what_cannot_be_read_out_says_why() -> None:
    arrays = {SITES[0]: np.zeros((127, 64)), SITES[1]: np.zeros((500, 63)), SITES[2]: np.full((500, 64), np.inf)}
    why = [one.reason for one in normsniff.readout(arrays, MODEL).norms]
    assert why == [
        "127 rows of length 64: at least 128 are needed",
        "rows of length 63, the norm is 64 wide",
        "an activation is not finite",
    ]
    (sequence,) = normsniff.readout({"x0": np.zeros((9, 4)), "x1": np.zeros((9, 4))}, MODEL).sequences
    assert "constant" in sequence.reason


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays: dict[str, Any] = {
        SITES[0]: _output(SITES[0]),
        "h0": _output(SITES[1]),
        "h1": _output(SITES[1]),
        "else": np.ones((2, 2)),
    }
    np.savez(path, **arrays)

    def run(*args: object) -> Any:
        return CliRunner().invoke(cli, ["readout", *map(str, args)])

    table = run(path, MODEL)
    assert table.exit_code == 0
    assert "1.0000" in table.output
    assert "h0 … h1" in table.output
    assert "not used, no norm and no sequence has such names: else" in table.output
    norm, sequence = (json.loads(line) for line in run(path, MODEL, "--json").stdout.splitlines())
    assert (norm["norm"], norm["further"]) == (SITES[0], 0)
    assert sequence["ratios"] == [1.0]
    unknown = run(path, MODEL, "--norm", "x")
    assert unknown.exit_code == 2
    assert "unknown-norm" in unknown.output
    np.save(tmp_path / "a.npy", _output(SITES[2]))
    assert SITES[2] in run(tmp_path / "a.npy", MODEL, "--norm", SITES[2]).output
    assert run(tmp_path / "none", MODEL).exit_code == 2


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(name: str, *args: Path) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        runpy.run_path(str(FIXTURES.parent / "examples" / name), run_name="__main__")

    return run


def test_the_torch_example_records_what_is_read_out(example: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    example("record_torch.py", MODEL, tmp_path / "a.npz")
    found = normsniff.readout(tmp_path / "a.npz", MODEL)
    assert [one.norm for one in found.norms] == SITES
    assert all(one.cosine is not None and one.cosine > 0.999999 for one in found.norms)
    assert found.sequences[0].places == ("transformer.h.0", "transformer.h.1")
    assert not found.unmatched


def test_the_onnx_example_records_what_is_read_out(example: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = FIXTURES / "gpt2-ln.torchscript17.f16.onnx"
    example("record_onnx.py", model, tmp_path / "a.npz")
    found = normsniff.readout(tmp_path / "a.npz", model)
    assert len(found.norms) == 5
    for one in found.norms:  # float16: round-off is 1e-3
        assert one.cosine is not None
        assert one.median is not None
        assert one.along is not None
        assert one.cosine > 0.9999
        assert one.along < 1e-5 * one.median


def test_the_dead_direction_is_that_of_the_kernel_module() -> None:
    gamma = safetensors.numpy.load_file(MODEL / "model.safetensors")[f"{SITES[0]}.weight"]
    (one,) = normsniff.readout({SITES[0]: _output(SITES[0])}, MODEL).norms
    assert one.bottom is not None
    assert abs(one.bottom @ dead_direction(gamma).vector) == pytest.approx(1)
