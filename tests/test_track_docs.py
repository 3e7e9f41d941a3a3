"""docs/track.md: its snippets run, its words for options and scalars are those of the program."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

import normsniff
from normsniff.cli import cli
from normsniff.render import run_table

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "track.md").read_text("utf-8")
# The callbacks' own tests train with the real libraries.
SNIPPETS = [code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "callbacks" not in code]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(ROOT)
    example = runpy.run_path("examples/penalty.py")
    model = example["Model"](torch.nn.LayerNorm)
    scope = {"model": model, "loss": example["loss_of"](model, torch.arange(130).view(2, 65) % 64)}
    exec(compile(code, "docs/track.md", "exec"), scope)  # noqa: S102 - our own text
    assert scope.keys() - {"model", "loss", "__builtins__"}


def test_every_snippet_was_found() -> None:
    assert len(SNIPPETS) == 3
    assert TEXT.count("```python") == 6


def test_the_table_and_the_options_are_those_of_the_program() -> None:
    assert run_table.HEADER in TEXT
    text = CliRunner().invoke(cli, ["track", "--help"]).output
    for option in ("--json", "--budget", "-o"):
        assert option in text
        assert option in TEXT


def test_the_scalars_are_those_of_a_monitor() -> None:
    path = ROOT / "fixtures" / "gpt2-ln" / "model.safetensors"
    numpy = pytest.importorskip("safetensors.numpy")
    for name in normsniff.monitor(numpy.load_file(path), prefix=""):
        assert name.replace("_error", "") in TEXT
