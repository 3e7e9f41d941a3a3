"""The pre-commit hook and the GitHub action: what they run exists, and fails where it should."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.manifest import FIXTURES, ROOT

GOOD = str(FIXTURES / "llama-rms.Q8_0.gguf")


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.fixture
def liar(tmp_path: Path) -> str:
    model = tmp_path / "liar"
    model.mkdir()
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", model)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "rms_norm_eps": 1e-5}))
    return str(model / "model.safetensors")


def test_the_hook_takes_model_files_and_fails_on_a_contradiction(
    normsniff_on_path: None, tmp_path: Path, liar: str
) -> None:
    hook, check = load(".pre-commit-hooks.yaml")
    assert check["files"] == hook["files"]
    assert all(re.search(hook["files"], name) for name in (GOOD, liar, "a.onnx", "b/c.keras"))
    assert not re.search(hook["files"], "README.md")
    assert subprocess.run([*shlex.split(hook["entry"]), GOOD], check=False, cwd=tmp_path).returncode == 0
    assert subprocess.run([*shlex.split(hook["entry"]), GOOD, liar], check=False, cwd=tmp_path).returncode == 1
    for paths, code in (([GOOD], 0), ([GOOD, liar], 1)):  # shifts in a family that has none
        assert subprocess.run([*shlex.split(check["entry"]), *paths], check=False, cwd=tmp_path).returncode == code


def test_the_action_writes_its_log_and_fails_on_a_contradiction(
    normsniff_on_path: None, tmp_path: Path, liar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = load("action.yml")
    script = action["runs"]["steps"][-1]["run"]
    assert "${{" not in script  # an input must not become a part of the script
    monkeypatch.setenv("ARGUMENTS", action["inputs"]["arguments"]["default"])
    monkeypatch.setenv("SARIF", str(tmp_path / "log.sarif"))
    for paths, code in ((GOOD, 0), (f"{GOOD} {liar}", 1)):
        monkeypatch.setenv("PATHS", paths)
        assert subprocess.run(["bash", "-e", "-c", script], check=False, cwd=tmp_path).returncode == code
        results = json.loads((tmp_path / "log.sarif").read_text())["runs"][0]["results"]
        assert any(one["ruleId"] == "contradiction" for one in results) == bool(code)


def test_the_action_checks_the_norms_too(normsniff_on_path: None, tmp_path: Path, liar: str) -> None:
    action = load("action.yml")
    script = action["runs"]["steps"][-1]["run"]
    for paths, code in ((GOOD, 0), (liar, 1)):
        environment = {**os.environ, "ARGUMENTS": "--quiet", "SARIF": "", "CHECK": "true", "PATHS": paths}
        ran = subprocess.run(["bash", "-e", "-c", script], check=False, cwd=tmp_path, env=environment)
        assert ran.returncode == code
