"""A run as rows, as a table, as JSON Lines and as a picture."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import normsniff
from normsniff.cli import cli
from normsniff.render import run_plot
from normsniff.training.summary import mean_rho
from tests.helpers.manifest import FIXTURES


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["track", *map(str, args)], prog_name="normsniff")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained network, a trained one, and a broken file between them."""
    for step, name in ((0, "random-ln"), (1000, "gpt2-ln")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        shutil.copy(FIXTURES / f"{name}.bf16.safetensors", tmp_path / f"checkpoint-{step}" / "model.safetensors")
    data = (FIXTURES / "gpt2-ln.bf16.safetensors").read_bytes()
    (tmp_path / "checkpoint-500.safetensors").write_bytes(data[:-100])
    return tmp_path


def test_rows_come_by_step_and_a_broken_checkpoint_stops_none(run: Path) -> None:
    first, broken, last = normsniff.track(run)
    assert [first.step, broken.step, last.step] == [0, 500, 1000]
    assert broken.error is not None
    assert (broken.error.type, broken.error.code, broken.summary) == ("FormatError", "truncated", None)
    assert first.summary is not None
    assert last.summary is not None
    assert 0.7 < first.summary.rho["writers"].rho < 1.4
    assert last.summary.rho["writers"].rho < 0.15
    assert first.summary.scale_spread == 0.0
    assert last.summary.scale_spread == pytest.approx(0.065, abs=0.02)
    assert last.summary.p_layernorm == pytest.approx(0.99, abs=0.02)
    assert last.label == "LayerNorm"


def test_rows_agree_with_the_record() -> None:
    path = FIXTURES / "llama-rms.bf16.safetensors"
    (row,) = normsniff.track(str(path))
    record = normsniff.sniff(path)
    writers = [shadow.rho for shadow in record.shadows if shadow.role == "writer"]
    kernel = next(e for e in record.evidence if e.kind == "kernel")
    assert row.summary is not None
    assert row.summary.rho["writers"].rho == pytest.approx(math.prod(writers) ** (1 / len(writers)))
    assert row.summary.rho["writers"].matrices == len(writers)
    assert row.summary.p_layernorm == pytest.approx(1 / (1 + math.exp(-kernel.log_odds)))
    assert (row.label, row.confidence, row.step) == (record.label, record.confidence, None)


def test_one_checkpoint_is_open_at_a_time(run: Path) -> None:
    rows = normsniff.track(run)
    assert next(rows).step == 0
    (run / "checkpoint-1000" / "model.safetensors").unlink()  # not opened yet
    assert [row.error.type if row.error else None for row in rows] == ["FormatError", "SourceError"]


def test_the_standard_error_of_a_mean() -> None:
    mean = mean_rho([(1.0, 0.0), (math.e, 0.0)])
    assert mean.rho == pytest.approx(math.exp(0.5))
    assert mean.error == pytest.approx(mean.rho * math.sqrt(0.5) / math.sqrt(2))  # standard deviation over √n
    alike = mean_rho([(0.5, 0.1)] * 4)
    assert alike.error == pytest.approx(0.5 * 0.1 / 2)  # the vectors sampled of each: it cannot be sharper
    assert mean_rho([(0.5, 0.1)]).error == pytest.approx(0.05)
    assert mean_rho([(0.5, None)]).error is None


def test_the_table(run: Path) -> None:
    done = invoke(run)
    header, *rows = done.stdout.splitlines()
    assert done.exit_code == 2  # one could not be read
    assert [row.split()[0] for row in rows] == ["0", "500", "1,000"]
    assert "unreadable" in rows[1]
    assert "truncated" in rows[1]
    for word in ("LayerNorm", "±"):
        assert word in rows[2]
    assert rows[2].index(str(run)) == header.index("checkpoint")


def test_a_name_is_not_obeyed_by_the_terminal(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "gpt2-ln.bf16.safetensors", tmp_path / "step_1\x1b[31m.safetensors")
    assert "\x1b" not in invoke(tmp_path).stdout


def test_json_lines(run: Path) -> None:
    rows = [json.loads(line) for line in invoke("--json", run).stdout.splitlines()]
    assert [row["step"] for row in rows] == [0, 500, 1000]
    assert rows[2]["summary"]["rho"]["writers"]["matrices"] > 1
    assert rows[1]["summary"] is None
    assert rows[1]["error"]["code"] == "truncated"


def test_unknown_steps_are_said(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "gpt2-ln.bf16.safetensors", tmp_path / "last.safetensors")
    done = invoke(tmp_path)
    assert done.exit_code == 0
    assert "1 of 1 have no known step" in done.stderr


@pytest.mark.parametrize(("name", "magic"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")])
def test_a_picture(run: Path, tmp_path: Path, name: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    invoke("-o", tmp_path / name, run)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(magic)
    assert len(data) > 10_000


def test_the_picture_shows_what_was_measured(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    kept = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: kept.append(self))
    rows = list(normsniff.track(run))
    run_plot.plot(rows, tmp_path / "curve.png")
    lines = {line.get_label(): line for line in kept[0].axes[0].lines}
    assert list(lines["writers"].get_xdata()) == [0, 1000]  # the broken one leaves a gap
    assert list(lines["writers"].get_ydata()) == [row.summary.rho["writers"].rho for row in rows if row.summary]


def test_refusals(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must end in .png or .svg" in invoke("-o", tmp_path / "curve.gif", run).stderr
    lost = invoke("-o", tmp_path / "no" / "curve.png", run)
    monkeypatch.setattr(run_plot, "find_spec", lambda _: None)
    missing = invoke("-o", tmp_path / "curve.png", run)
    assert "[plot]'" in missing.stderr
    assert missing.stdout == ""  # said before any work
    assert lost.exit_code == missing.exit_code == 2
    assert "Traceback" not in lost.output
