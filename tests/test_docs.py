"""Every command and snippet of README.md and docs/ is run, and prints what the page shows.

In a ``console`` block lines that start with ``$`` are commands, the others what they print; ``...`` stands for any
text, alone on a line for any lines. ``python`` blocks of a page share their names. ``<!-- setup: command -->`` runs
unseen, and so does the Python of ``<!-- given: code -->``; ``<!-- needs: modules -->`` before a block leaves it out
where they are absent, and the test then counts as skipped; ``<!-- not run: reason -->`` says why it is never run.
``pip install`` is left to ``.ci/run``.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import normsniff
from tests.helpers.manifest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = ("needs the network", "needs a GPU", "needs PostgreSQL", "needs the extra", "takes minutes", "a pattern")
COMMANDS = re.compile(r"^(?:    |\t)\$? ?(normsniff|python3?|pip) .*", re.MULTILINE)

_PIECE = re.compile(
    r"<!-- (?P<note>setup|given|needs|not run): (?P<text>.*?) -->|^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def pieces(page: Path, absent: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what is to run, its kind and its text; add the modules that a block lacks to `absent`."""
    excused = False
    for match in _PIECE.finditer(page.read_text("utf-8")):
        if match["note"] in ("setup", "given"):
            yield match["note"], match["text"]
        elif match["note"] == "needs":
            missing = {name for name in match["text"].split() if importlib.util.find_spec(name) is None}
            absent |= missing
            excused = bool(missing)
        elif match["note"]:
            assert match["text"].startswith(REASONS), f"{page.name}: {match['text']!r} is no reason"
            excused = True
        else:
            if not excused:
                yield match["language"], match["body"]
            excused = False


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with the output that the page shows."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            rest, _, shown = shown.partition("\n")
            command = f"{command}\n{rest}"
        yield command, shown


def pattern(shown: str) -> str:
    """Return a regular expression for the output that a page shows."""
    lines = []
    for line in shown.rstrip().splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r"\s*?\n")
    return "".join(lines)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normsniff_on_path: None) -> Path:
    """Return a folder with what the pages use: model files, and the folders of this repository that they name."""
    for name in ("fixtures", "examples", "benchmarks", "calibration", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "fixtures" / "gpt2-ln.Q8_0.gguf", tmp_path / "model.gguf")
    shutil.copy(ROOT / "fixtures" / "gpt2-ln" / "model.safetensors", tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_is_what_happens(page: Path, desk: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    absent: set[str] = set()
    for kind, text in pieces(page, absent):
        if kind in ("setup", "console"):
            for command, shown in commands(text) if kind == "console" else [(text, "")]:
                if not command.startswith("pip install"):
                    run(command, shown, desk)
        elif kind in ("python", "given"):
            exec(compile(text, str(page), "exec"), names)  # noqa: S102 - our own documentation
        elif kind == "sql":
            importlib.import_module("duckdb").sql(text).fetchall()
        elif kind == "json":
            json.loads(text)
        elif kind == "toml":
            tomllib.loads(text)
        elif kind == "yaml":
            yaml.safe_load(text)
        else:
            assert kind == "text", f"{page.name}: a block of {kind or 'no language'}: nobody runs or checks it"
    if absent:
        pytest.skip(f"blocks were left out, they need {', '.join(sorted(absent))}")


def run(command: str, shown: str, folder: Path) -> None:
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, f"$ {command}\n{printed}"
    if shown.strip():
        assert re.fullmatch(pattern(shown), printed.rstrip() + "\n"), (
            f"$ {command}\n{printed}\n--- the page shows\n{shown}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_where_they_are_run(page: Path) -> None:
    prose = _PIECE.sub("", page.read_text("utf-8"))
    assert not COMMANDS.findall(prose), "put commands into a console block"


def test_the_comparison_can_fail() -> None:
    assert re.fullmatch(pattern("a ... c\n...\nz\n"), "a b c\n1\n2\nz\n")
    assert not re.fullmatch(pattern("a ... c\n"), "a b d\n")
    assert not re.fullmatch(pattern("a\n"), "a\nb\n")


def test_every_command_of_the_program_is_documented() -> None:
    from normsniff.cli import COMMANDS as OURS

    everything = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in OURS if name != "sniff" and f"normsniff {name}" not in everything] == []
    shown = re.findall(r":module: normsniff\.cli\.(\w+)", page("reference/command-line"))
    assert shown == list(OURS)  # the default command first


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("mkdocs_click")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "python" / "index.html").read_text("utf-8")
    assert "Classify one model" in reference
    assert [name for name in normsniff.__all__ if f'.{name}"' not in reference] == []  # each has an anchor
    assert "--evidence" in (tmp_path / "reference" / "command-line" / "index.html").read_text("utf-8")


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def test_families_columns_options_and_scalars_are_those_of_the_program() -> None:
    from click.testing import CliRunner
    from safetensors.numpy import load_file

    from normsniff.cli import cli
    from normsniff.dead.wirings import table
    from normsniff.kernel.spectrum import ROUND_OFF
    from normsniff.render import run_table

    for row in table().wiring:
        assert [name for name in row.model_types if not re.search(rf"\b{re.escape(name)}\b", page("prune"))] == []
    assert ROUND_OFF == 1e-6
    assert "10⁻⁶ of the largest" in page("readout")
    assert run_table.HEADER in page("track")
    text = CliRunner().invoke(cli, ["track", "--help"]).output
    assert [
        option for option in ("--json", "--budget", "-o") if option not in text or option not in page("track")
    ] == []
    scalars = normsniff.monitor(load_file(ROOT / "fixtures" / "gpt2-ln" / "model.safetensors"), prefix="")
    assert [name for name in scalars if name.replace("_error", "") not in page("track")] == []
