"""A family, an output and a command from outside the package, as docs/extending.md shows them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from normsniff import families, plugins, sniff
from normsniff.cli import cli
from normsniff.errors import FormatError
from normsniff.families.tables import plugged_in
from normsniff.formats import plugged_in as formats_plugged_in
from tests.helpers.manifest import FIXTURES, ROOT

DOCS = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
MODULES = dict(re.findall(r"^```python\n# (toy_\w+)\.py\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL))
TABLES = re.findall(r"^```toml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
ENTRIES = next(body for body in TABLES if "normsniff.commands" in body)
MODEL = str(FIXTURES / "llama-rms.bf16.safetensors")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package of the modules that the page shows."""
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    entries = re.sub(r'\[project\.entry-points\."(.*?)"\]', r"[\1]", ENTRIES).replace('"', "")
    (info / "entry_points.txt").write_text(entries.replace("[normsniff.formats]\ntoy = toy_reader:FORMAT\n", ""))
    for name, body in MODULES.items():
        (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    plugged_in.cache_clear()
    yield tmp_path
    plugged_in.cache_clear()
    formats_plugged_in.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_forty_lines_are_enough(name: str) -> None:
    assert len(MODULES[name].splitlines()) <= 40


def test_the_page_shows_a_module_of_each_kind() -> None:
    assert sorted(MODULES) == ["toy_command", "toy_families", "toy_output"]


def test_a_family_of_another_package_is_known(site: Path) -> None:
    for fact in (families.from_config({"model_type": "toyformer"}), families.gguf_architecture("toyformer", {})):
        assert fact is not None
        assert (fact.norm, fact.shift, fact.source) == ("LayerNorm", "never", "toyformer 1.0, modeling.py")
    assert families.from_config({"model_type": "toyformer2"}) is None


def test_an_output_of_another_package_is_printed(site: Path) -> None:
    done = run("--format", "tsv", MODEL)
    assert (done.exit_code, done.output) == (0, f"{MODEL}\tRMSNorm\n")


def test_a_command_of_another_package_runs(site: Path) -> None:
    done = run("names", MODEL)
    assert done.exit_code == 0
    assert done.output.splitlines() == [norm.name for norm in sniff(MODEL).norms]


def test_a_file_of_that_name_is_no_command(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names").write_bytes(Path(MODEL).read_bytes())
    assert run("names").output.startswith("RMSNorm")


def test_what_nobody_offers_is_an_error_of_usage(site: Path) -> None:
    assert "'csv' is not one of" in run("--format", "csv", MODEL).output
    assert "no file and no command is called 'nomes'" in run("nomes").output


BROKEN = [("toy_output", ["--format", "tsv", MODEL]), ("toy_command", ["names", MODEL])]


@pytest.mark.parametrize(("kind", "args"), BROKEN)
def test_a_broken_plug_in_is_named(site: Path, kind: str, args: list[str]) -> None:
    (site / f"{kind}.py").write_text("tsv = names = 1\n")
    done = run(*args)
    assert done.exit_code in (1, 2)
    assert "plug-in" in done.output
    assert "Traceback" not in done.output


def test_broken_rows_of_a_family_are_named(site: Path) -> None:
    (site / "toy_families.py").write_text("ROWS = [{'model_types': 'toyformer'}]\n")
    with pytest.raises(FormatError, match="plug-in toy"):
        families.from_config({"model_type": "toyformer"})


def test_packages_are_not_searched_for_words_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "offered", lambda kind: pytest.fail(f"{kind} are searched"))
    assert run(MODEL).exit_code == 0
    assert run("--json", MODEL).exit_code == 0
    assert run("schema").exit_code == 0
    fact = families.from_config({"model_type": "llama"})
    assert fact is not None
    assert fact.norm == "RMSNorm"
