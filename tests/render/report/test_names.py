"""Names on a page: short, and different wherever the paths are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from normsniff.render.report.names import distinct


def test_a_file_is_called_by_its_own_name_where_that_is_enough() -> None:
    assert distinct(["a/b/model.gguf", "a/b/other.gguf"]) == ["model.gguf", "other.gguf"]
    assert distinct(["a\\b\\model.gguf"]) == ["model.gguf"]


def test_folders_tell_files_of_one_name_apart() -> None:
    assert distinct(["x/a/m", "y/a/m", "x/b/m", "m"]) == ["x/a/m", "y/a/m", "b/m", "m"]
    assert distinct(["same/m", "same/m"]) == ["same/m", "same/m"]


parts = st.lists(st.sampled_from("ab"), min_size=1, max_size=5).map("/".join)


@given(st.lists(parts, max_size=8))
def test_different_paths_have_different_names(paths: list[str]) -> None:
    names = distinct(paths)
    for path, name in zip(paths, names, strict=True):
        assert path.endswith(name)
    assert len(set(names)) == len(set(paths))
