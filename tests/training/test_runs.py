"""Which files of a training run are checkpoints, and in which order they come."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from normsniff.errors import SourceError
from normsniff.training.runs import find, step_of
from tests.helpers.manifest import FIXTURES

MODEL = FIXTURES / "gpt2-ln.bf16.safetensors"


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(MODEL, path)
    return path


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("run/checkpoint-500/model.safetensors", 500),
        ("run/step_1000.safetensors", 1000),
        ("run/step10k/model.safetensors", 10_000),
        ("epoch=3-step=1200.ckpt", 1200),
        ("step-143000-tokens4B/model.safetensors", 143_000),
        ("global_step1000/mp_rank_00_model_states.pt", 1000),
        ("iter_0001000/mp_rank_00/model_optim_rng.pt", 1000),
        ("checkpoint-500/model-00001-of-00002.safetensors", 500),
        ("step_3_of_training/checkpoint-700/model.bin", 3),
        ("epoch_07.pt", 7),
        ("0001000/model.safetensors", 1000),
        ("weights_200.npz", 200),
        ("model.safetensors", None),
        ("gpt2.Q8_0.gguf", None),
        ("weights.03-0.25.keras", None),
        ("footstep5model/model.bin", None),
        ("model-00001-of-00002.safetensors", None),
    ],
)
def test_the_step_of_a_name(path: str, step: int | None) -> None:
    assert step_of(Path(path)) == step


def test_the_step_of_a_file_beside(tmp_path: Path) -> None:
    path = put(tmp_path / "final" / "model.safetensors")
    assert step_of(path) is None
    state = path.parent / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 1500, "log_history": []}))
    assert step_of(path) == 1500
    state.write_text("{")
    assert step_of(path) is None
    state.unlink()
    os.mkfifo(state)  # waited for, it would never end
    assert step_of(path) is None


def test_natural_order_and_unknown_steps_last(tmp_path: Path) -> None:
    for name in ("step_1000", "step_200", "b10", "b9x", "checkpoint-30/model"):
        put(tmp_path / f"{name}.safetensors")
    assert [(one.path.relative_to(tmp_path).as_posix(), one.step) for one in find([tmp_path])] == [
        ("checkpoint-30/model.safetensors", 30),
        ("step_200.safetensors", 200),
        ("step_1000.safetensors", 1000),
        ("b9x.safetensors", None),
        ("b10.safetensors", None),
    ]


def test_a_run_that_ends_in_a_model_keeps_its_checkpoints(tmp_path: Path) -> None:
    for directory, step in (("", 30), ("checkpoint-10", 10), ("checkpoint-20", 20)):
        put(tmp_path / directory / "model.safetensors")
        (tmp_path / directory / "config.json").write_text('{"model_type": "gpt2"}')
        (tmp_path / directory / "optimizer.pt").write_bytes(b"PK")
        (tmp_path / directory / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    assert [one.step for one in find([tmp_path])] == [10, 20, 30]


def test_what_is_named_like_a_checkpoint_and_is_none_stays_in_the_list(tmp_path: Path) -> None:
    put(tmp_path / "checkpoint-10" / "model.safetensors")
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-20" / "model.safetensors").write_bytes(b"cut")
    (tmp_path / "step_30.pt").write_bytes(b"")
    (tmp_path / "readme_40.txt").write_text("no model")
    assert [one.step for one in find([tmp_path])] == [10, 20, 30]


def test_a_path_that_leads_nowhere_and_one_given_twice(tmp_path: Path) -> None:
    path = put(tmp_path / "step_1.safetensors")
    found = find([path, tmp_path, tmp_path / "step_2.safetensors"])
    assert [one.step for one in found] == [1, 2]
    assert isinstance(found[1].error, SourceError)
