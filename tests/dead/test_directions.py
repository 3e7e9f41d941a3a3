"""The dead direction of every norm: against activations, with vanished scales, in files that others read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import normsniff
from normsniff.anatomy.parts import Site
from normsniff.cli import cli
from normsniff.dead import directions as direction
from normsniff.outputs import ARRAY_SUFFIXES, METADATA, replacing, write_arrays
from tests.helpers.manifest import FIXTURES

MODEL = FIXTURES / "gpt2-ln" / "model.safetensors"
LAST = "transformer.ln_f"


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["direction", *map(str, args)])


def test_the_output_of_a_layer_norm_never_moves_along_it() -> None:
    found = {one.norm: one for one in normsniff.directions(MODEL)}
    gamma = safetensors.numpy.load_file(MODEL)[f"{LAST}.weight"].astype(np.float64)
    last = found[LAST]
    assert len(found) == 5
    assert last.basis is not None
    assert (last.basis.dtype.str[1:], last.basis.shape, last.reason) == ("f8", (1, 64), "")
    assert last.condition == pytest.approx(gamma.max() / gamma.min())
    rows = np.random.default_rng(0).normal(size=(1000, 64))
    rows -= rows.mean(axis=1, keepdims=True)
    assert np.linalg.norm(last.basis) == pytest.approx(1, abs=1e-15)
    assert np.abs((gamma * rows) @ last.basis[0]).max() < 1e-13


def test_vanished_scales_give_the_dimensions_that_they_kill() -> None:
    arrays = safetensors.numpy.load_file(MODEL)
    arrays[f"{LAST}.weight"][[3, 9]] = 0
    (last,) = normsniff.directions(arrays, norm=LAST)
    assert (last.dead, last.angle, last.carriers) == (2, None, None)
    assert last.basis is not None
    np.testing.assert_array_equal(last.basis, np.eye(64)[[3, 9]])
    arrays[f"{LAST}.weight"][[3, 9]] = 1e-30, -1e-30
    (last,) = normsniff.directions(arrays, norm=LAST)
    assert last.dead == 0
    assert last.carriers == pytest.approx(2)
    arrays[f"{LAST}.weight"][0] = np.inf
    (last,) = normsniff.directions(arrays, norm=LAST)
    assert (last.basis, last.reason) == (None, "its scale is not finite")


def test_a_basis_is_bounded_before_it_is_made() -> None:
    arrays = safetensors.numpy.load_file(MODEL)
    arrays[f"{LAST}.weight"][:] = 0
    with pytest.raises(normsniff.LimitExceeded, match="basis"):
        normsniff.directions(arrays, norm=LAST, limits=normsniff.Limits(tensor_bytes=8 * 64 * 63))


def test_an_rms_norm_has_none_and_the_reason_is_said() -> None:
    found = normsniff.directions(FIXTURES / "llama-rms")
    assert {one.label for one in found} == {"RMSNorm"}
    assert all(one.basis is None and "does not subtract the mean" in one.reason for one in found)


def test_a_mixed_stream_gives_it_with_a_warning() -> None:
    found = normsniff.directions(FIXTURES / "mixed.bf16.safetensors")
    assert found
    assert all(one.basis is not None and "only if" in one.reason for one in found)


def test_a_scale_that_the_file_does_not_store_is_one() -> None:
    site = normsniff.directions(FIXTURES / "gpt2-ln.int8.onnx")[0]
    assert site.label == "LayerNorm"
    bare = direction._direction(Site("n", None, None, width=4), "LayerNorm", None, normsniff.Limits())
    assert bare.basis is not None
    np.testing.assert_allclose(bare.basis, np.full((1, 4), 0.5))
    unknown = direction._direction(Site("n", None, None), "LayerNorm", None, normsniff.Limits())
    assert "width is not known" in unknown.reason


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
def test_files_are_read_by_the_libraries_of_their_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"directions{suffix}"
    done = _run(MODEL, "--norm", "*.ln_1", "-o", path)
    assert done.exit_code == 0, done.output
    assert "2 of 2 written" in done.output
    read = safetensors.numpy.load_file(path) if suffix == ".safetensors" else dict(np.load(path))
    expected = {one.norm: one.basis for one in normsniff.directions(MODEL, norm="*.ln_1")}
    assert set(read) - {METADATA} == set(expected)
    for name, basis in expected.items():
        assert basis is not None
        np.testing.assert_array_equal(read[name], basis)
    assert list(tmp_path.iterdir()) == [path]


def test_a_norm_cannot_take_the_name_of_a_part_of_the_format(tmp_path: Path) -> None:
    for suffix in ARRAY_SUFFIXES:
        with pytest.raises(normsniff.OutputError, match="__metadata__"):
            write_arrays(tmp_path / f"x{suffix}", {"__metadata__": np.ones(2)}, {})
    with pytest.raises(ValueError, match="written as"):
        write_arrays(tmp_path / "x.pt", {}, {})


def test_the_command_prints_a_table_and_records() -> None:
    table = _run(MODEL, "--norm", LAST)
    assert table.output.split()[:4] == ["norm", "label", "d", "condition"]
    assert LAST in table.output
    records = [json.loads(line) for line in _run(MODEL, "--json").output.splitlines()]
    assert [record["rows"] for record in records] == [1] * 5
    assert records[-1].keys() >= {"norm", "label", "d", "condition", "angle", "dead", "reason"}
    failed = _run(MODEL, "--norm", "x")
    assert failed.exit_code == 2
    assert "no norm is called 'x'; it has " in failed.output


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    assert "name a .safetensors or .npz file" in _run(MODEL, "-o", tmp_path / "x.pt").output
    for args in ((tmp_path / "none",), (MODEL, "-o", tmp_path / "none" / "x.npz")):
        done = _run(*args)
        assert done.exit_code == 2
        assert done.output.startswith("error: ")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
