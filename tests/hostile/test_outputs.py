"""What is written is harmless to whoever opens it, goes where it was asked to go, and says so when it cannot."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from fuzz.seeds import safetensors_bytes
from normsniff.cli import COMMANDS, cli
from normsniff.cli.report import _digest
from normsniff.record import Failure
from normsniff.render.table import write_csv
from tests.helpers.manifest import FIXTURES

GGUF = str(FIXTURES / "gpt2-ln.Q8_0.gguf")


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in args], catch_exceptions=False)


@given(path=st.text(min_size=1), message=st.text())
@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_a_csv_is_a_formula(
    first: str, path: str, message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    answer = Failure.of(first + path, ValueError(first + message))
    with file.open("wb") as to:
        write_csv([answer], to)
    with file.open(newline="", encoding="utf-8") as back:
        (row,) = csv.DictReader(back)
    assert row["path"] == "'" + answer.path
    assert row["error_message"] == "'" + answer.error.message
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row.values())


def test_a_number_of_a_csv_stays_a_number(tmp_path: Path) -> None:
    shutil.copy(GGUF, tmp_path / "-1.gguf")
    shutil.copy(FIXTURES / "llama-rms.Q8_0.gguf", tmp_path / "b.gguf")
    assert run("scan", tmp_path, "-o", tmp_path / "labels.csv", "-j", "1").exit_code == 0
    with (tmp_path / "labels.csv").open(newline="") as file:
        odds = [float(row["declared_log_odds"]) for row in csv.DictReader(file)]
    assert min(odds) < 0 < max(odds)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("leads", ["nowhere", "to a file"])
def test_a_link_in_the_place_of_the_journal_is_not_followed(leads: str, resume: bool, tmp_path: Path) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    if leads == "to a file":
        victim.write_text("mine")
    (tmp_path / "out.jsonl.partial").symlink_to(victim)
    result = run("scan", GGUF, "-o", output, *(["--resume"] if resume else []))
    assert result.exit_code == 2
    assert "symbolic link" in result.stderr or "is there from an earlier scan" in result.stderr
    assert not output.exists()
    assert not victim.exists() if leads == "nowhere" else victim.read_text() == "mine"


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_link_beside_the_journal_is_not_followed(end: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / f"out.jsonl.partial{end}").symlink_to(victim)
    run("scan", GGUF, "-o", tmp_path / "out.jsonl")
    assert not victim.exists()


def test_a_link_in_the_place_of_an_output_is_replaced(tmp_path: Path) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    output.symlink_to(victim)
    assert run("scan", GGUF, "-o", output).exit_code == 0
    assert not victim.exists()
    assert not output.is_symlink()


@pytest.mark.parametrize("verb", ["sniff", "check", "norms", "plan", "direction"])
def test_no_name_in_json_controls_a_terminal(verb: str, tmp_path: Path) -> None:
    name, path = "a\x7fb\x9b31m\x1b[2J\x85é.norm", tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    tensors = {f"{name}.weight": rng.normal(1, 0.1, 16), f"{name}.bias": rng.normal(0, 0.1, 16)}
    tensors |= {f"h.{i}.mlp.down_proj.weight": rng.normal(size=(16, 32)) for i in range(4)}
    path.write_bytes(safetensors_bytes({key: value.astype(np.float32) for key, value in tensors.items()}))
    said = run(verb, "--json", path).stdout
    assert said
    assert not any(unicodedata.category(one) == "Cc" for one in said.replace("\n", ""))
    if verb in ("norms", "direction"):
        assert json.loads(said.splitlines()[0])["name" if verb == "norms" else "norm"] == name


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="such files are Linux's")
def test_a_file_that_says_that_it_is_empty_is_not_read_to_its_end_for_a_digest() -> None:
    assert _digest(Path("/proc/self/status")) == hashlib.sha256().hexdigest()
    assert _digest(Path(GGUF)) == hashlib.sha256(Path(GGUF).read_bytes()).hexdigest()


def test_a_report_lists_no_thousands_of_files_and_minds_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    folder, page = tmp_path / "models", tmp_path / "page.html"
    folder.mkdir()
    shutil.copy(GGUF, folder / "m.gguf")
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "loop.txt").symlink_to("loop.txt")
    assert run("report", "-o", page, folder).exit_code == 0
    assert hashlib.sha256(Path(GGUF).read_bytes()).hexdigest() in page.read_text()
    for i in range(1_000):
        (folder / f"a{i}.txt").touch()
    assert run("report", "-o", page, folder).exit_code == 0
    assert "a7.txt" not in page.read_text()
    assert "whole files are not hashed (--hash does, 1,003 files)" in page.read_text()


def test_an_output_has_every_name_that_fits(tmp_path: Path) -> None:
    longest = 255 - len(".partial-journal")  # the journal stands beside it
    for name in ("a" * (longest - 6) + ".jsonl", "ä" * ((longest - 6) // 2) + ".jsonl"):
        assert run("scan", GGUF, "-o", tmp_path / name).exit_code == 0
        assert (tmp_path / name).exists()
    assert run("scan", GGUF, "-o", tmp_path / ("a" * longest + ".jsonl")).exit_code == 2
    assert len(list(tmp_path.iterdir())) == 2, "nothing is begun that could not be ended"
    assert run("norms", GGUF, "-o", tmp_path / ("a" * 251 + ".npz")).exit_code == 0


READING = {
    "sniff": (), "check": (), "norms": (), "plan": (), "direction": ("-o", "x.npz"), "report": ("-o", "x.html"),
    "prune": ("-o", "x"), "track": (), "readout": (GGUF,), "scan": ("-o", "x.jsonl"),
}  # fmt: skip
WRITING = {
    "scan": ("-o", ".jsonl"), "norms": ("-o", ".npz"), "report": ("-o", ".html"), "direction": ("-o", ".npz"),
    "track": ("-o", ".svg"), "prune": ("-o", ""), "check": ("--baseline", ""),
}  # fmt: skip
NAMES = ("a" * 300, "/a" * 3000)


@pytest.mark.parametrize("name", NAMES, ids=["long", "deep"])
@pytest.mark.parametrize("command", READING)
def test_an_input_that_no_file_system_holds_is_said_to_be_so(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(command, name, *READING[command])
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    if command == "sniff":
        assert run(name).exit_code == 2, "as the default command"


@pytest.mark.parametrize("name", NAMES, ids=["long", "deep"])
@pytest.mark.parametrize("command", WRITING)
def test_an_output_that_no_file_system_holds_is_said_to_be_so(
    command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if command == "track":
        pytest.importorskip("matplotlib")
    option, ending = WRITING[command]
    for more in [(), ("--update-baseline",)] if command == "check" else [()]:
        result = run(command, GGUF, option, name + ending, *more)
        assert result.exit_code == 2
        assert "rror: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_tables_above_name_every_command() -> None:
    assert set(READING) == set(COMMANDS) - {"explain", "schema", "serve"}


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (["norms", "model/model.safetensors", "-o"], "model/model.safetensors"),
        (["norms", "model", "-o"], "model/model.safetensors"),
        (["direction", "model", "-o"], "model/../model/model.safetensors"),
        (["direction", "model/model.safetensors", "-o"], "link.safetensors"),
        (["report", "model/model.safetensors", "-o"], "model/model.safetensors"),
        (["check", "model/model.safetensors", "--update-baseline", "--baseline"], "model/model.safetensors"),
        (["prune", "model/model.safetensors", "-o"], "model/model.safetensors"),
    ],
)
def test_no_output_replaces_what_is_read(
    args: list[str], output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURES / "gpt2-ln", "model")
    Path("link.safetensors").hardlink_to("model/model.safetensors")
    before = Path("model/model.safetensors").read_bytes()
    result = run(*args, output)
    assert result.exit_code == 2
    assert output in result.stderr
    assert Path("model/model.safetensors").read_bytes() == before


def test_a_page_may_be_written_again_beside_its_model(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "gpt2-ln", tmp_path / "model")
    for _ in range(2):
        assert run("report", tmp_path / "model", "-o", tmp_path / "model" / "page.html").exit_code == 0
