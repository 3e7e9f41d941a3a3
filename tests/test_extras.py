"""What messages and pages tell people to install exists, and users see no extra that is only for developers."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from normsniff.source.remote import link
from tests.helpers.manifest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
PAGES = [page for place in (".", "docs", "calibration") for page in sorted((ROOT / place).glob("*.md"))]


def named_in_errors() -> set[str]:
    """Return the extras that `MissingExtra` is raised with."""
    found = set(link._EXTRAS.values())
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MissingExtra":
                found |= {str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant)}
    return found


def test_errors_name_extras_that_exist() -> None:
    assert "parquet" in named_in_errors()
    assert named_in_errors() <= EXTRAS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for names in re.findall(r"(?:normsniff|\.)\[([a-z0-9,-]+)\]", text):
        assert set(names.split(",")) <= EXTRAS.keys()
    assert set(re.findall(r"--group[ =]([a-z-]+)", text)) <= GROUPS.keys()
    assert set(re.findall(r"the group `([a-z-]+)`", text)) <= GROUPS.keys()


def test_an_extra_is_for_users() -> None:
    for_users = "remote s3 gs hf gpu ray dask parquet plot serve transformers lightning keras"
    assert EXTRAS.keys() <= {*for_users.split(), "test"}
