"""A short run of Lightning whose logger's files hold the shadows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import normsniff

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries

KEYS = ("normsniff/rho_writers", "normsniff/rho_readers", "normsniff/rho_embeddings", "normsniff/scale_spread")


def module() -> Any:
    import lightning.pytorch as pl

    class Tiny(pl.LightningModule):  # type: ignore[misc]  # the library is Any for mypy
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(64, 32), torch.nn.Linear(32, 64, bias=False)
            layer = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, norm_first=True, batch_first=True)
            self.layers, self.norm = torch.nn.ModuleList([layer]), torch.nn.LayerNorm(32)

        def training_step(self, batch: Any, _: int) -> Any:
            x = self.norm(self.layers[0](self.embed(batch)))
            loss = torch.nn.functional.cross_entropy(self.head(x).flatten(0, 1), batch.flatten())
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    torch.manual_seed(0)
    return Tiny()


def train(tmp_path: Path, logger: Any, **options: Any) -> Any:
    import lightning.pytorch as pl

    from normsniff.callbacks.lightning import MonitorCallback

    every = pl.callbacks.ModelCheckpoint(tmp_path / "out", every_n_train_steps=2, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=4, log_every_n_steps=2, logger=logger, callbacks=[MonitorCallback(), every],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **options,
    )  # fmt: skip
    tiny = module()
    trainer.fit(tiny, torch.utils.data.DataLoader(torch.randint(64, (48, 8)), batch_size=4))
    return tiny


@pytest.mark.parametrize("batches", [1, 2])
def test_tensorboard_gets_every_value(tmp_path: Path, batches: int) -> None:
    import lightning.pytorch as pl

    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tiny = train(tmp_path, pl.loggers.TensorBoardLogger(str(tmp_path / "logs")), accumulate_grad_batches=batches)
    events = accumulator.EventAccumulator(str(next((tmp_path / "logs").rglob("events.*"))))
    events.Reload()
    final = normsniff.monitor(dict(tiny.named_parameters()))
    assert len(events.Scalars("loss")) == 2
    for key in KEYS:
        stored = events.Scalars(key)
        assert [one.step for one in stored] == [one.step for one in events.Scalars("loss")]
        assert stored[-1].value == pytest.approx(final[key])
    rows = list(normsniff.track(tmp_path / "out"))
    assert [(row.step, row.error) for row in rows] == [(2, None), (4, None)]
    assert rows[-1].summary is not None
    assert rows[-1].summary.rho["writers"].rho == pytest.approx(final["normsniff/rho_writers"], rel=1e-4)


def test_mlflow_gets_every_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning.pytorch as pl

    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = pl.loggers.MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    tiny = train(tmp_path, logger)
    client = mlflow.MlflowClient(f"file:{tmp_path / 'mlruns'}")
    final = normsniff.monitor(dict(tiny.named_parameters()))
    for key in KEYS:
        stored = client.get_metric_history(logger.run_id, key)
        assert len(stored) == 2
        assert stored[-1].value == pytest.approx(final[key])
