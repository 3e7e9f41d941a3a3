"""docs/direction.md, docs/readout.md and docs/prune.md: their commands and snippets run and print what they show."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from normsniff.cli import cli
from normsniff.spectrum import ROUND_OFF
from normsniff.wirings import table

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("direction", "readout", "prune")}
SNIPPETS = [
    (name, code) for name, text in PAGES.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory beside the fixtures and the examples."""
    for name in ("fixtures", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "code"), SNIPPETS, ids=[page for page, _ in SNIPPETS])
def test_snippets_run(page: str, code: str, place: Path) -> None:
    exec(compile(code, f"docs/{page}.md", "exec"), {})  # noqa: S102 - our own text


@pytest.mark.parametrize("page", PAGES)
def test_commands_print_what_is_shown(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page != "direction":
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    commands = re.findall(r"^    ((?:normsniff|python) .*)$", PAGES[page], re.MULTILINE)
    printed = ""
    for command in commands:
        program, *args = shlex.split(command)
        if program == "python":
            monkeypatch.setattr(sys, "argv", args)
            runpy.run_path(args[0], run_name="__main__")
            continue
        done = CliRunner().invoke(cli, args)
        assert done.exit_code == 0, done.output
        printed += done.output
    (shown,) = re.findall(r"prints\n\n```\n(.*?)```", PAGES[page], re.DOTALL)
    number = re.compile(r"\d\.\de-\d+")  # round-off is another on every machine
    for line in shown.splitlines():
        assert number.sub("#", line) in number.sub("#", printed)


def test_the_families_and_the_columns_are_those_of_the_program() -> None:
    for row in table().wiring:
        for name in row.model_types:
            assert re.search(rf"\b{re.escape(name)}\b", PAGES["prune"])
    assert ROUND_OFF == 1e-6
    assert "10⁻⁶ of the largest" in PAGES["readout"]
