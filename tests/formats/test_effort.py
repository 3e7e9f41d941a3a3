"""The header path takes work in proportion to the header: lines of Python that run are counted, so no clock decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.conformance.cases import Case
from benchmarks.headers import experts
from benchmarks.synthetic import write_gguf
from normsniff import sniff
from tests.helpers.lines import lines_run

_SMALL, _FACTOR = 1_000, 8
_SLACK = 1.15


def grows_linearly(write: Callable[[int], Path]) -> bool:
    paths = [write(_SMALL), write(_SMALL * _FACTOR)]
    sniff(paths[0])  # imports and tables are loaded once
    small, large = (lines_run(lambda path=path: sniff(path, evidence=("declared", "layout"))) for path in paths)  # type: ignore[misc]
    return _SMALL < large <= _SLACK * _FACTOR * small


def test_experts(tmp_path: Path) -> None:
    def write(tensors: int) -> Path:
        folder = tmp_path / str(tensors)
        folder.mkdir()
        return Case("experts", "transformers", "", "", {}, dict(experts(tensors, width=16))).write(folder)

    assert grows_linearly(write)


def test_a_vocabulary(tmp_path: Path) -> None:
    def write(tokens: int) -> Path:
        path = tmp_path / f"{tokens}.gguf"
        write_gguf(path, tokens)
        return path

    assert grows_linearly(write)


def test_counting_notices_more_than_linear_work() -> None:
    def quadratic(n: int) -> int:
        return lines_run(lambda: [None for _ in range(n) for _ in range(n)])

    assert quadratic(80) > 30 * quadratic(10)
