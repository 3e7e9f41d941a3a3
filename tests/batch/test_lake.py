"""`normsniff.scan`: the command's engine for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import normsniff
from normsniff.errors import OutputError
from tests.helpers.manifest import FIXTURES


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    place = tmp_path / "lake"
    place.mkdir()
    shutil.copy(FIXTURES / "gpt2-ln.Q8_0.gguf", place / "a.gguf")
    shutil.copy(FIXTURES / "gpt2-ln.Q8_0.gguf", place / "copy.gguf")
    shutil.copy(FIXTURES / "llama-rms.Q8_0.gguf", place / "b.gguf")
    (place / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    (place / "noise").write_bytes(b"noise")
    return place


def test_every_input_gives_one_record(lake: Path) -> None:
    passed: list[str] = []
    found = list(normsniff.scan(lake, jobs=2, skip=lambda path, _reason: passed.append(str(path))))
    kinds = {Path(str(one.path)).name: type(one).__name__ for one in found}
    assert kinds.pop("a.gguf") != kinds.pop("copy.gguf")
    assert kinds == {"b.gguf": "Classification", "broken.gguf": "Failure"}
    assert passed == [str(lake / "noise")]
    again = list(normsniff.scan([lake, lake / "a.gguf"], dedupe=False))
    assert len(again) == 4, "an input that is named twice is answered once"
    assert not any(isinstance(one, normsniff.Duplicate) for one in again)


def test_nothing_is_done_before_it_is_asked_for(lake: Path, tmp_path: Path) -> None:
    normsniff.scan(lake, tmp_path / "o.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_what_was_interrupted_goes_on(lake: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    scan = normsniff.scan(lake, output, jobs=1)
    first = next(scan)
    scan.close()  # type: ignore[attr-defined]  # as any generator
    assert not output.exists()
    with pytest.raises(OutputError, match="is there from an earlier scan: resume it, or delete it"):
        normsniff.scan(lake, output)
    rest = list(normsniff.scan(lake, output, resume=True, jobs=1))
    assert first in rest
    assert len(rest) == 4
    assert {json.loads(line)["path"] for line in output.read_text().splitlines()} == {one.path for one in rest}
    assert [path.name for path in tmp_path.iterdir() if path != lake] == ["o.jsonl"]


def test_the_command_goes_on_with_what_the_function_began(lake: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from normsniff.cli import cli

    output = tmp_path / "o.jsonl"
    scan = normsniff.scan(lake, output)
    next(scan)
    scan.close()  # type: ignore[attr-defined]  # as any generator
    CliRunner().invoke(cli, ["scan", str(lake), "-o", str(output), "--resume"])
    assert len(output.read_text().splitlines()) == 4


def test_what_cannot_be_is_refused_before_any_work(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must end in"):
        normsniff.scan(lake, tmp_path / "o.txt")
    with pytest.raises(ValueError, match="only a scan with an output"):
        normsniff.scan(lake, resume=True)
