"""The harnesses of ``python -m fuzz`` reach both ends, answers and refusals, and a seed gives the same file again."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import fields
from fuzz.__main__ import fuzz
from fuzz.harnesses import HARNESSES, corpus, mutated
from fuzz.seeds import ctranslate2, flax, ggml, gguf_bytes, nemo, tflite
from fuzz.trial import Trial

NEVER_REFUSED = ("configs", "shards")  # what is wrong with them is a warning; shards are found by their names


@pytest.fixture
def trial() -> Iterator[Trial]:
    one = Trial()
    yield one
    one.close()


def rng(run: int) -> random.Random:
    return random.Random(f"a test {run}")  # noqa: S311 - no secret


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", HARNESSES)
def test_a_harness_reaches_answers_and_refusals(name: str, trial: Trial) -> None:
    trees = corpus(name)
    if not trees:
        pytest.skip("what writes its files is not installed")
    for tree in trees:
        assert trial(tree, {}) is None
        assert trial(tree, {}, whole=False) is None
    assert trial.ends["read"] == len(trees)
    assert trial.ends["answered"] == len(trees), "the corpus itself is answered"
    for run in range(60):
        tree, changed = mutated(name, rng(run))
        assert mutated(name, rng(run)) == (tree, changed), "a seed gives the same file again"
        assert trial(tree, changed) is None
    assert trial.ends["refused"] > 0 or name in NEVER_REFUSED


@pytest.mark.parametrize(
    ("walk", "data"),
    [
        (fields.gguf, gguf_bytes()),
        (fields.ggml, ggml()[0]["ggml-model.bin"]),
        (fields.ctranslate2, ctranslate2()[0]["model.bin"]),
        (fields.flatbuffer, tflite()[0]["m.tflite"]),
        (fields.msgpack, flax()[0]["flax_model.msgpack"]),
    ],
)
def test_a_walker_finds_the_fields_of_a_file_and_ends_where_it_is_damaged(walk: fields.Walker, data: bytes) -> None:
    found = list(walk(data))
    assert len(found) > 20
    assert all(0 <= one.at <= len(data) - one.width for one in found)
    mutate = fields.numbers(walk)
    changes = [mutate(data, rng(run)) for run in range(50)]
    assert all(len(one) == len(data) for one in changes)
    assert len(set(changes)) > 40
    for cut in (0, 1, 9, len(data) // 2, len(data) - 1):
        mutate(data[:cut], rng(cut))


def test_a_finding_is_kept_with_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_source: object) -> None:
        raise ZeroDivisionError("of a test")

    monkeypatch.setattr("normsniff.sniff", broken)
    ends, found = fuzz("tar", 60, 7, tmp_path, most=3, whole=True)
    assert ends.total() == 0
    assert set(found) == {"ZeroDivisionError: of a test"}
    (first,) = tmp_path.glob("tar-7-1-*")
    assert first.read_bytes() != nemo()


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is not installed")
def test_mutations_that_are_led_by_what_they_reach_go_on_from_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "fuzz.guided", "shards", "--most", "300", "--keep", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Done 300 runs" in ran.stderr
    assert "NEW" in ran.stderr, "a mutation reached what none had before"
    assert not list(tmp_path.iterdir())
