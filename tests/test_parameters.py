from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner, Result

import normsniff
from normsniff import parameters
from normsniff.cli import cli
from normsniff.errors import BudgetSpent
from tests.helpers.manifest import FIXTURES, Fixture, models, name
from tests.helpers.servers import RangeServer

MODEL = FIXTURES / "gemma-rms"
STORED = safetensors.numpy.load_file(MODEL / "model.safetensors")


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["norms", *map(str, args)])


def test_all_arrays_together_have_a_budget(tmp_path: Path) -> None:
    """Thirty norms, all of which are one array that a file of 20 kB holds compressed; one by one they can be read."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        one = file.create_dataset("layers/layer_normalization/vars/0", data=np.ones(5_000_000, "f4"), compression=9)
        for i in range(30):
            file[f"layers/layer_normalization_{i}/vars/0"] = one
    with normsniff.norms(tmp_path / "m.h5") as found:
        assert repr(found) == f"Norms('{tmp_path / 'm.h5'}', {len(found)} norms)"
        assert len(found) > 20
        assert all(norm.scale is not None for norm in found[:3])
        with pytest.raises(BudgetSpent, match="reading arrays of norms"), found.counted():
            assert all(norm.scale is not None for norm in found)
        with pytest.raises(BudgetSpent, match="reading arrays of norms"):
            parameters.save(found, tmp_path / "n.npz")
    assert _run(tmp_path / "m.h5").exit_code == 2


@pytest.mark.parametrize("fixture", models(), ids=name)
def test_every_fixture_gives_a_scale_for_every_norm_that_stores_one(fixture: Fixture) -> None:
    record = normsniff.sniff(fixture.path)
    with normsniff.norms(fixture.path) as found:
        assert [one.name for one in found] == [site.name for site in record.norms]
        for one, site in zip(found, record.norms, strict=True):
            assert (one.scale is not None, one.shift is not None) == (site.has_scale, site.has_shift)
            for array, statistics in ((one.scale, site.scale), (one.shift, site.shift)):
                if array is not None and statistics is not None:
                    assert array.dtype == np.float32
                    assert float(array.mean(dtype=np.float64)) == pytest.approx(statistics.mean, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("path", [MODEL, FIXTURES / "gemma-rms.F32.gguf"])
def test_the_effective_scale_is_the_same_whether_or_not_a_converter_has_added_the_one(path: Path) -> None:
    expected = sorted(float((v + np.float32(1)).sum()) for key, v in STORED.items() if key.endswith("norm.weight"))
    given = sorted(float(one.scale.sum()) for one in normsniff.norms(path) if one.scale is not None)
    assert len(given) == 5
    np.testing.assert_allclose(given, expected, rtol=1e-6)


def test_stored_values_and_how_they_are_meant_are_given_apart() -> None:
    one = normsniff.norms(MODEL, norm="model.norm")[0]  # held alone: its model stays open
    assert (one.zero_centred, one.offset, one.scale_dtype, one.epsilon) == (True, 1.0, "F32", 1e-6)
    assert one.epsilon_from == "rms_norm_eps"
    assert one.stored is not None
    np.testing.assert_array_equal(one.stored, STORED["model.norm.weight"])
    assert one.shift is None


def test_float64_keeps_what_is_stored_in_float64() -> None:
    gamma = np.random.default_rng(0).normal(1, 0.1, 64)
    state: dict[str, Any] = {f"model.layers.{i}.input_layernorm.weight": gamma for i in range(2)}
    state["model.layers.0.mlp.up_proj.weight"] = np.ones((128, 64))
    wide, narrow = (normsniff.norms(state, dtype=kind)[0].scale for kind in (np.float64, np.float32))
    assert wide is not None
    assert narrow is not None
    np.testing.assert_array_equal(wide, gamma)
    np.testing.assert_array_equal(narrow, gamma.astype(np.float32))
    with pytest.raises(ValueError, match="float32 or float64"):
        normsniff.norms(state, dtype=np.float16)


def test_a_closed_model_says_so() -> None:
    with normsniff.norms(FIXTURES / "gpt2-ln") as found:
        pass
    with pytest.raises(normsniff.SourceError, match="closed"):
        _ = found[0].scale


@pytest.mark.parametrize(
    ("path", "epsilon"),
    [
        ("gpt2-ln.F32.gguf", 1e-5),
        ("gpt2-ln.dynamo23.f16.onnx", 1e-5),
        ("plain-rms.dynamo18.f16.onnx", 1e-5),
        ("gpt2-ln.f16.keras", 1e-5),
        ("bert-ln", 1e-12),
        ("gpt2-ln.bf16.safetensors", None),
    ],
)
def test_epsilon_is_given_where_it_is_declared(path: str, epsilon: float | None) -> None:
    found = normsniff.norms(FIXTURES / path)
    assert {None if one.epsilon is None else float(f"{one.epsilon:.3g}") for one in found} == {epsilon}
    assert all(bool(one.epsilon_from) == (epsilon is not None) for one in found)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_the_export_is_read_by_the_library_of_its_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"norms{suffix}"
    done = _run(MODEL, "-o", path)
    assert done.exit_code == 0, done.output
    arrays: dict[str, Any]
    if suffix == ".npz":
        arrays = dict(np.load(path))
        about = json.loads(str(arrays.pop("__metadata__")))
    else:
        arrays = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            about = file.metadata()
    rows = json.loads(about["norms"])
    assert [row["name"] for row in rows] == [one.name for one in normsniff.norms(MODEL)]
    for row in rows:
        np.testing.assert_array_equal(arrays[f"{row['name']}.stored"], STORED[row["scale_tensor"]])
        np.testing.assert_allclose(arrays[f"{row['name']}.scale"], STORED[row["scale_tensor"]] + 1.0, rtol=1e-6)
    assert len(arrays) == 2 * len(rows)


def test_the_command_prints_a_table_and_records() -> None:
    table = _run(MODEL)
    assert table.output.split()[:4] == ["norm", "d", "role", "stored"]
    assert "γ − 1" in table.output
    records = [json.loads(line) for line in _run(MODEL, "--json", "--norm", "*.1.*").output.splitlines()]
    assert [record["layer"] for record in records] == [1, 1]
    failed = _run(MODEL, "--norm", "x")
    assert failed.exit_code == 2
    assert "no norm is called 'x'; it has " in failed.output
    assert _run(FIXTURES / "none").exit_code == 2


def test_what_cannot_be_read_is_an_error_of_ours_and_leaves_no_file(tmp_path: Path) -> None:
    arrays = {**STORED, "model.norm.weight": np.full(64, 1e300)}
    wide = normsniff.norms(arrays, norm="model.norm")[0].scale
    assert wide is not None
    assert np.isinf(wide).all()
    found = normsniff.norms(STORED, limits=normsniff.Limits(tensor_bytes=16))
    with pytest.raises(normsniff.LimitExceeded):
        parameters.save(found, tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_all_arrays_of_a_remote_model_take_few_requests(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((FIXTURES / "gpt2-ln" / "model.safetensors").read_bytes())
    with normsniff.norms(server.url("model.safetensors")) as found:
        found.fetch()
        scales = [one.scale for one in found]
    assert all(scale is not None for scale in scales)
    assert len(server.paths) <= 6
