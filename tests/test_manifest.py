"""The manifest of the trained fixtures is complete and true to the files."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from typing import Any

import pytest

from tests.helpers.manifest import FIXTURES

NOT_FIXTURES = {".py", ".pyc", ".md", ".toml"}
ROWS: list[dict[str, Any]] = tomllib.loads((FIXTURES / "manifest.toml").read_text("utf-8"))["file"]
BY_PATH = {row["path"]: row for row in ROWS}
FILE_CAP = 600_000
TEXT = ("path", "input", "format", "model", "dtype", "truth", "truth_kernel", "family", "provenance", "sha256")
NUMBERS = ("steps", "seed", "d_model", "sites", "bytes")


def test_every_file_is_listed_once() -> None:
    on_disk = {
        p.relative_to(FIXTURES).as_posix()
        for p in FIXTURES.rglob("*")
        if p.is_file() and p.suffix not in NOT_FIXTURES and "__pycache__" not in p.parts
    }
    assert set(BY_PATH) == on_disk
    assert len(BY_PATH) == len(ROWS)


@pytest.mark.parametrize("path", BY_PATH)
def test_row_describes_its_file(path: str) -> None:
    row = BY_PATH[path]
    data = (FIXTURES / path).read_bytes()
    assert set(row) == {*TEXT, *NUMBERS}
    assert all(isinstance(row[key], str) and row[key] for key in TEXT)
    assert all(type(row[key]) is int and row[key] >= 0 for key in NUMBERS)
    assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert len(data) <= FILE_CAP
    assert BY_PATH[row["input"]]["input"] == row["input"], "an input is its own input"
    assert row["format"] in {"safetensors", "gguf", "onnx", "keras"}
    assert row["truth"] in {"LayerNorm", "RMSNorm", "mixed", "none"}


@pytest.mark.parametrize("path", BY_PATH)
def test_truth_of_the_parameters_alone_is_honest(path: str) -> None:
    """Parameters can show what training left there, and never more than the whole truth."""
    row = BY_PATH[path]
    legible = row["steps"] > 0 and row["truth"] in {"LayerNorm", "RMSNorm"}
    assert row["truth_kernel"] == (row["truth"] if legible else "undetermined")
    assert (row["sites"] == 0) == (row["truth"] == "none")


def test_one_model_has_one_truth() -> None:
    keys = ("truth", "truth_kernel", "family", "d_model", "sites", "steps", "seed")
    facts = {row["model"]: [row[key] for key in keys] for row in ROWS}
    assert all([row[key] for key in keys] == facts[row["model"]] for row in ROWS)


def test_both_norms_are_there_in_every_format() -> None:
    kinds = Counter((row["format"], row["truth"]) for row in ROWS if row["input"] == row["path"])
    for container in ("safetensors", "gguf", "onnx", "keras"):
        assert min(kinds[container, "LayerNorm"], kinds[container, "RMSNorm"]) >= 3


@pytest.mark.parametrize("path", [p for p in BY_PATH if p.endswith((".onnx", ".keras", ".h5", ".gguf", ".json"))])
def test_no_machine_path_is_in_a_file(path: str) -> None:
    data = (FIXTURES / path).read_bytes()
    assert not any(trace in data for trace in (b"/site-packages/", b"/home/", b"/root/", b"/work/", b".py:"))
