from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner, Result

from normsniff.checks.codes import codes
from normsniff.cli import cli
from tests.helpers.faults import CONFIG, llama, save
from tests.helpers.manifest import FIXTURES, ROOT
from tools.build_check_docs import FOLDER, pages


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, ["check", *map(str, args)])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model with an error and a warning."""
    state = llama()
    state["model.norm.weight"][3] = np.nan
    return save(state, {**CONFIG, "rms_norm_eps": 0.0}, tmp_path / "broken")


def test_findings_are_told_with_where_and_what_to_do(broken: Path) -> None:
    done = run(broken)
    assert done.exit_code == 1
    assert done.output.startswith("error    not-finite")
    assert "at: model.norm" in done.output
    assert "fix: convert again" in done.output
    assert "1 error, 1 warning; RMSNorm" in done.output
    assert run(broken, "--quiet").output == ""


@pytest.mark.parametrize(("level", "code"), [("error", 0), ("warning", 1), ("note", 1), ("never", 0)])
def test_fail_on_says_how_grave_a_finding_must_be(level: str, code: int) -> None:
    assert run(FIXTURES / "random-ln", "--fail-on", level).exit_code == code


def test_codes_are_selected_and_ignored(broken: Path) -> None:
    assert run(broken, "--ignore", "not-finite").exit_code == 0
    assert "epsilon" not in run(broken, "--select", "not-finite,dtype").output
    wrong = run(broken, "--select", "nonsense")
    assert wrong.exit_code == 2
    assert "scale-offset" in wrong.output


def test_json_has_one_object_a_model(broken: Path) -> None:
    lines = run(broken, FIXTURES / "llama-rms", "--json").output.splitlines()
    first, second = map(json.loads, lines)
    assert [one["code"] for one in first["findings"]] == ["not-finite", "epsilon"]
    assert first["findings"][0]["norms"] == ["model.norm"]
    assert second["findings"] == []
    assert second["norms"] == 5


def test_sarif_has_a_rule_a_code_and_follows_its_schema(broken: Path, tmp_path: Path) -> None:
    log = json.loads(run(broken, tmp_path / "none", "--format", "sarif").stdout)
    schema = json.loads((ROOT / "tests" / "render" / "schemas" / "sarif-2.1.0-rtm.5.json").read_text())
    jsonschema.validate(log, schema)
    (ran,) = log["runs"]
    assert {rule["id"] for rule in ran["tool"]["driver"]["rules"]} == {*codes(), "unreadable"}
    assert [result["ruleId"] for result in ran["results"]] == ["not-finite", "epsilon", "unreadable"]


def test_a_baseline_keeps_what_is_known_from_failing(broken: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    assert run(broken, "--baseline", known, "--update-baseline").exit_code == 0
    done = run(broken, "--baseline", known)
    assert (done.exit_code, done.output.startswith("nothing found")) == (0, True)
    state = llama()
    state["model.norm.weight"][3] = state["model.layers.0.input_layernorm.weight"][0] = np.nan
    save(state, {**CONFIG, "rms_norm_eps": 0.0}, broken)
    assert run(broken, "--baseline", known).exit_code == 1, "another norm is new"
    known.write_text("{}")
    assert "not a baseline" in run(broken, "--baseline", known).output
    assert run(broken, "--baseline", tmp_path / "none").exit_code == 2
    assert run(broken, "--update-baseline").exit_code == 2


def test_an_input_that_cannot_be_read_fails_and_the_others_are_checked(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    done = run(tmp_path / "bad.gguf", FIXTURES / "llama-rms")
    assert done.exit_code == 2
    assert "nothing found" in done.output
    assert "error: " in done.stderr


def test_explain_says_what_a_code_means() -> None:
    every = CliRunner().invoke(cli, ["explain"]).output.splitlines()
    assert [line.split()[0] for line in every] == list(codes())
    assert "Cure." in CliRunner().invoke(cli, ["explain", "scale-offset"]).output
    assert "Cure." in CliRunner().invoke(cli, ["explain", "Scale-Offset"]).output
    wrong = CliRunner().invoke(cli, ["explain", "x"])
    assert (wrong.exit_code, "scale-offset" in wrong.output) == (2, True)


def test_the_pages_of_the_codes_are_those_of_the_table() -> None:
    assert {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")} == dict(pages())
