"""Names out of files never lead out of a directory, and asking so costs no more than opening would."""

from __future__ import annotations

from pathlib import Path

import pytest

from normsniff.source.places import is_inside
from tests.helpers.lines import lines_run


def chained(folder: Path, n: int) -> Path:
    """A file behind `n` links, each to the one before."""
    folder.mkdir()
    (folder / "0").touch()
    for i in range(n):
        (folder / f"{i + 1}").symlink_to(f"{i}")
    return folder / f"{n}"


def test_what_lies_in_a_directory_is_inside_whether_or_not_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link", "b", "c/d", "n" * 5000):
        assert is_inside(tmp_path, tmp_path / name)


@pytest.mark.parametrize("name", ["..", "../a", "c/../../a", "link", "round", "nul\0"])
def test_what_leads_out_of_a_directory_or_nowhere_is_not_inside(name: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "a").touch()
    (home / "link").symlink_to("../a")
    (home / "round").symlink_to("round")
    assert not is_inside(home, home / name)


def test_links_to_links_are_not_followed_further_than_the_system_does(tmp_path: Path) -> None:
    few, many = chained(tmp_path / "few", 5), chained(tmp_path / "many", 500)
    assert is_inside(few.parent, few)
    assert not is_inside(many.parent, many)
    assert lines_run(lambda: is_inside(many.parent, many)) < 200


def test_a_plain_file_is_not_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of twelve thousand shards resolved its directory as often."""
    (tmp_path / "a").touch()
    monkeypatch.setattr(Path, "resolve", lambda *_: pytest.fail("resolved"))
    assert is_inside(tmp_path, tmp_path / "a")
