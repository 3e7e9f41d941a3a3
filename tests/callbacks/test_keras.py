"""A short run of Keras whose history, CSV file and MLflow metrics hold the shadows."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normsniff

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", os.devnull)  # nothing is read from or written to a home directory
keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries

KEYS = ("normsniff/rho_writers", "normsniff/rho_readers", "normsniff/rho_embeddings", "normsniff/scale_spread")


def train(*callbacks: Any) -> tuple[Any, dict[str, list[float]]]:
    from normsniff.callbacks.keras import MonitorCallback

    keras.utils.set_random_seed(0)
    layers = keras.layers
    ids = layers.Input((8,), dtype="int32")
    x = layers.Embedding(64, 32)(ids)
    h = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 16)(h, h)])
    h = layers.Dense(64, activation="relu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(32)(h)]))
    model = keras.Model(ids, layers.Dense(64)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = np.random.default_rng(0).integers(0, 64, (16, 8)).astype("int32")
    history = model.fit(data, data, batch_size=4, epochs=2, verbose=0, callbacks=[MonitorCallback(), *callbacks])
    return model, history.history


def test_history_and_csv_get_every_value(tmp_path: Path) -> None:
    model, history = train(keras.callbacks.CSVLogger(str(tmp_path / "log.csv")))
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    final = normsniff.monitor({w.path: w.value for w in model.weights}, config={"class_name": "Model", "config": {}})
    for key in KEYS:
        assert len(history[key]) == 2
        assert [float(row[key]) for row in rows] == pytest.approx(history[key])
    assert history[KEYS[0]][-1] == final[KEYS[0]]
    model.save(tmp_path / "model.keras")
    record = normsniff.sniff(tmp_path / "model.keras")
    writers = [shadow.rho for shadow in record.shadows if shadow.role == "writer"]
    assert history[KEYS[0]][-1] == pytest.approx(np.exp(np.mean(np.log(writers))), rel=1e-4)


def test_mlflow_gets_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'mlruns'}")
    mlflow_keras = pytest.importorskip("mlflow.keras")
    with mlflow.start_run() as run:
        _, history = train(mlflow_keras.MlflowCallback())
    for key in KEYS:
        stored = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
        assert [one.value for one in stored] == pytest.approx(history[key])
