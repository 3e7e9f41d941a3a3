"""A short run of Hugging Face's Trainer whose logs, TensorBoard events and MLflow metrics hold the shadows."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import normsniff
from tests.helpers.manifest import ROOT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries

KEYS = {"normsniff/rho_writers", "normsniff/rho_readers", "normsniff/rho_embeddings", "normsniff/scale_spread"}


def train(tmp_path: Path, report_to: str, strategy: str = "steps") -> Any:
    from normsniff.callbacks.transformers import MonitorCallback

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=64, n_positions=16)
    data = [{"input_ids": (row := torch.randint(64, (16,))), "labels": row} for _ in range(24)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=2,
        logging_strategy=strategy,
        save_strategy="no",
        report_to=report_to,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = transformers.Trainer(transformers.GPT2LMHeadModel(config), arguments, train_dataset=data)
    trainer.add_callback(MonitorCallback(trainer))
    trainer.train()
    return trainer


def test_tensorboard_gets_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer = train(tmp_path, "tensorboard")
    logged = [entry for entry in trainer.state.log_history if "normsniff/rho_writers" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6]
    assert all(entry.keys() >= KEYS for entry in logged)
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [2, 4, 6]
    events = accumulator.EventAccumulator(str(next((tmp_path / "logs").rglob("events.*"))))
    events.Reload()
    for key in KEYS:
        stored = events.Scalars(f"train/{key}")
        assert [one.step for one in stored] == [2, 4, 6]
        assert [one.value for one in stored] == pytest.approx([entry[key] for entry in logged])
    final = normsniff.monitor(dict(trainer.model.named_parameters()), config=trainer.model.config.to_dict())
    assert final["normsniff/rho_writers"] == logged[-1]["normsniff/rho_writers"]


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = ROOT / "examples" / "training_run.py"
    monkeypatch.setattr("sys.argv", [str(script), "llama", str(tmp_path), "4"])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.count("normsniff/rho_writers'") == 4
    # what was written on the way can be followed afterwards
    rows = list(normsniff.track(tmp_path))
    assert [(row.step, row.error, row.label) for row in rows] == [(i, None, "RMSNorm") for i in range(5)]


def test_mlflow_gets_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    trainer = train(tmp_path, "mlflow", "epoch")
    logged = [entry for entry in trainer.state.log_history if "normsniff/rho_writers" in entry]
    assert [entry["step"] for entry in logged] == [6]
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [6]
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    for key in KEYS:
        stored = client.get_metric_history(run.info.run_id, key)
        assert {one.step: one.value for one in stored} == {entry["step"]: entry[key] for entry in logged}
