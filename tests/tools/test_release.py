"""What `python -m tools.release` holds a release against, short of building one, which needs the network."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from pathlib import Path

import normsniff
from tests.helpers.manifest import ROOT
from tools.release import JOBS, interpreters, missing, problems, version


def test_the_version_stands_in_one_place() -> None:
    assert version() == normsniff.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]


def test_a_tag_must_fit_version_and_changelog() -> None:
    assert list(problems(None, "", "1.2.3")) == []
    assert list(problems("v1.2.3", "## [1.2.3]", "1.2.3")) == []
    assert len(list(problems("v1.2.4", "## [Unreleased]", "1.2.3"))) == 2


def test_a_python_that_does_not_start_is_not_there() -> None:
    own = "{}.{}".format(*sys.version_info[:2])
    found = interpreters((own, "2.99"))
    assert found["2.99"] is None


def test_a_wheel_that_lacks_a_file_is_seen(tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("normsniff/__init__.py", "")
    lacking = missing(wheel)
    assert "src/normsniff/data/families.json" in lacking
    assert "src/normsniff/__init__.py" not in lacking


def test_the_jobs_name_files_that_exist() -> None:
    named = [word for job in JOBS for word in job if word.startswith("fixtures/")]
    assert named
    assert all((ROOT / word).exists() for word in named)
