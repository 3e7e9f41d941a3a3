from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import normsniff
from normsniff.record import Finding
from tests.helpers.faults import CONFIG, VALUE_FAULTS, ValueFault, inject, llama, save
from tests.helpers.manifest import FIXTURES


def offsets(state: dict[str, Any], config: Any, folder: Path) -> list[Finding]:
    report = normsniff.check(save(state, config, folder / "model"))
    return [one for one in report.findings if one.code == "scale-offset"]


def moved(state: dict[str, Any], number: int, *places: str) -> dict[str, Any]:
    """Add a number to the scales at some places, in float32."""
    return {
        key: (value + np.float32(number)).astype(np.float32) if key.endswith(places) else value
        for key, value in state.items()
    }


@pytest.mark.parametrize("number", [1, -1])
def test_a_shift_at_one_place_of_the_blocks_is_told_of_that_place_alone(number: int, tmp_path: Path) -> None:
    state = moved(llama(query_key=True), number, "input_layernorm.weight")
    (found,) = offsets(state, CONFIG, tmp_path)
    assert found.severity == "error"
    assert set(found.norms) == {f"model.layers.{i}.input_layernorm" for i in range(6)}
    assert found.details["groups"].keys() == {"model.layers.#.input_layernorm"}


def test_places_of_two_shifts_are_two_findings(tmp_path: Path) -> None:
    state = moved(llama(), 1, "input_layernorm.weight")
    found = offsets(moved(state, -1, "post_attention_layernorm.weight"), CONFIG, tmp_path)
    assert {len(one.norms) for one in found} == {6}
    assert len({name for one in found for name in one.norms}) == 12
    assert {one.reason.split(" in ")[0] for one in found} == {
        "1 was added to the stored scale after training",
        "1 was subtracted from the stored scale after training",
    }


def test_a_place_whose_values_do_not_tell_is_left_open_and_named(tmp_path: Path) -> None:
    state = llama()
    state["model.norm.weight"] = np.linspace(1.62, 1.66, 64).astype(np.float32).round(2)  # six values, on no grid
    (found,) = offsets(moved(state, 1, "layernorm.weight"), CONFIG, tmp_path)
    assert "model.norm" not in found.norms
    assert found.details["not_told"] == ["model.norm"]
    assert "of 1 more the values do not tell" in found.reason


@pytest.mark.parametrize("kind", ["model.layers.#.input_layernorm", "model.layers.#.self_attn.q_norm"])
def test_norms_that_a_converter_left_out_are_told_by_those_it_did_not(kind: str, tmp_path: Path) -> None:
    place = f"{kind.rpartition('.')[2]}.weight"
    random, state = np.random.default_rng(0), llama(blocks=8, query_key=True)
    for key in state:
        if key.endswith("norm.weight"):
            w = random.normal(0.0, 0.25, state[key].shape).astype(ml_dtypes.bfloat16).astype(np.float32)
            state[key] = w if key.endswith(place) else w + np.float32(1)
    folder = save(state, {"model_type": "qwen3_next", "rms_norm_eps": 1e-6}, tmp_path / "model")
    as_mlx_writes_it = {"format": "mlx"}  # mlx-lm has added the 1 to files of this family
    safetensors.numpy.save_file(state, folder / "model.safetensors", as_mlx_writes_it)
    (found,) = [one for one in normsniff.check(folder).findings if one.code == "scale-offset"]
    assert (found.severity, found.details["convention"]) == ("error", "added")
    assert {name.rpartition(".")[2] for name in found.norms} == {place.removesuffix(".weight")}
    assert found.reason.startswith("1 was not added to the stored scale")


def test_a_graph_that_adds_nothing_holds_what_the_family_trained(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(FIXTURES / "llama-rms.dynamo23.f16.onnx", model / "model.onnx")
    fault = next(one for one in VALUE_FAULTS if one.name == "one subtracted")
    assert [one.severity for one in _graph(model, fault, tmp_path / "nameless")] == ["note"]
    (model / "config.json").write_text(json.dumps(dict(CONFIG)))
    assert normsniff.check(model).count("error") == 0
    assert [one.severity for one in _graph(model, fault, tmp_path / "named")] == ["error"]


def _graph(model: Path, fault: ValueFault, folder: Path) -> list[Finding]:
    folder.mkdir()
    return [one for one in normsniff.check(inject(model, fault, folder)).findings if one.code == "scale-offset"]


@pytest.mark.parametrize("model", ["plain-rms.f16.keras", "gpt2-ln.f16.keras"])
def test_the_class_of_a_layer_says_what_it_computes_with(model: str, tmp_path: Path) -> None:
    fault = next(one for one in VALUE_FAULTS if one.name == "one subtracted")
    found = [one for one in _graph(FIXTURES / model, fault, tmp_path / "broken") if one.severity != "note"]
    assert [one.details["convention"] for one in found] == ["plain"]
    assert found[0].reason.count("the network computes with the stored scale as it is") == 1


@pytest.mark.parametrize(("number", "severities"), [(-1, ["warning"]), (0, [])])
def test_the_values_of_one_place_are_believed_where_they_are_far_out(
    number: int, severities: list[str], tmp_path: Path
) -> None:
    """In bfloat16 w - 1 of a small w leaves next to no trace."""
    random, state = np.random.default_rng(0), llama()
    for key in state:
        if key.endswith("norm.weight"):
            w = random.normal(0.05, 0.1, 64).astype(ml_dtypes.bfloat16)
            state[key] = (w + w.dtype.type(number if key.endswith("input_layernorm.weight") else 0)).astype(np.float32)
    found = offsets(state, {"model_type": "gemma", "rms_norm_eps": 1e-6}, tmp_path)
    assert [one.severity for one in found] == severities
    for one in found:
        assert set(one.norms) == {f"model.layers.{i}.input_layernorm" for i in range(6)}
        assert one.reason.startswith("by the values, 1 was subtracted")


def test_a_large_final_norm_to_which_the_converter_has_added_its_one_is_sound(tmp_path: Path) -> None:
    """In its last bits 1 and 2 are alike, and its values look like 2: certain is only what is certain against 1."""
    random, state = np.random.default_rng(0), llama()
    for key in state:
        if key.endswith("norm.weight"):
            w = random.normal(0.71 if key == "model.norm.weight" else 0.1, 0.02, 64).astype(ml_dtypes.bfloat16)
            state[key] = w.astype(np.float32) + np.float32(1)
    folder = save(state, {"model_type": "qwen3_next", "rms_norm_eps": 1e-6}, tmp_path / "model")
    safetensors.numpy.save_file(state, folder / "model.safetensors", {"format": "mlx"})
    assert [one for one in normsniff.check(folder).findings if one.code == "scale-offset"] == []
