"""`normsniff FILE`, `normsniff DIRECTORY` and `normsniff scan` say the same of every file, whole, cut or mutated."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest

import normsniff
from fuzz.harnesses import HARNESSES, corpus, mutated
from fuzz.seeds import Tree
from normsniff.batch.answers import answers
from normsniff.formats import FORMATS, SHARED_SUFFIXES
from normsniff.inputs.walk import Survey, walk
from normsniff.limits import Limits
from normsniff.record import Answer, Classification, Failure
from tests.helpers.costly_files import FILES
from tests.helpers.manifest import FIXTURES, Fixture, models, name

FEW = Limits(steps=20_000)
SUFFIXES = {suffix for row in FORMATS for suffix in row.suffixes}


def told(answer: Answer) -> Answer:
    """Return what must be the same: all but the time that it took."""
    assert msgspec.json.decode(msgspec.json.encode(answer), type=type(answer)) == answer
    return msgspec.structs.replace(answer, seconds=0.0) if isinstance(answer, Classification) else answer


def sniffed(path: Path, steps: int | None = None) -> Answer:
    try:
        return normsniff.sniff(path, limits=Limits(steps=steps))
    except normsniff.NormsniffError as error:
        return Failure.of(path, error)


def renamed(answer: Answer, path: str | None) -> Answer:
    """Return the answer of a directory with the name of its file: a budget that is spent is that of what was asked."""
    if isinstance(answer, Failure):
        message = answer.error.message
        if message.startswith(f"{answer.path}: "):
            message = str(path) + message[len(answer.path) :]
        return msgspec.structs.replace(answer, path=path, error=msgspec.structs.replace(answer.error, message=message))
    return msgspec.structs.replace(answer, path=path)


def assert_agreement(path: Path) -> Answer:
    """Compare what is told of a file that is the main one of its directory; return it."""
    alone = told(sniffed(path))
    ((_, listed),) = answers([path])
    assert told(listed) == alone
    found = Survey()
    found.inputs.extend(walk(path.parent, Limits(), lambda one, why: found.skipped.append((one, why))))
    inputs = [one.path for one in found.inputs]
    if path in inputs:
        if len(inputs) == 1:
            assert renamed(told(sniffed(path.parent)), alone.path) == alone
        return alone
    assert isinstance(alone, Failure), f"what is answered is an input: {inputs}"
    assert path.suffix.lower() not in SUFFIXES - SHARED_SUFFIXES, "what is named like a model is an input"
    assert path in [one for one, _ in found.skipped], "what is no input is named as passed over"
    return alone


@pytest.mark.parametrize("fixture", models(), ids=name)
def test_whole_models(fixture: Fixture, tmp_path: Path) -> None:
    folder, path = tmp_path / "m", tmp_path / "m" / fixture.path.name
    if fixture.path.parent != FIXTURES:  # one directory a model
        shutil.copytree(fixture.path.parent, folder)
    else:
        folder.mkdir()
        for part in FIXTURES.glob(fixture.path.name.replace("00001-of", "*-of")):
            shutil.copy(part, folder)
    answer = assert_agreement(path)
    assert isinstance(answer, Classification)
    assert answer.label == fixture.truth


def write(tree: Tree, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, data in tree.items():
        (folder / file).write_bytes(data)
    return folder / next(iter(tree))


@pytest.mark.parametrize("generator", FILES)
def test_a_file_made_to_cost_is_an_input_like_any_other(generator: str, tmp_path: Path) -> None:
    (path := tmp_path / "m.pt").write_bytes(FILES[generator]())
    assert [one.path for one in walk(tmp_path, Limits(), lambda *_: None)] == [path]
    alone = [told(one) for one in (sniffed(path, steps=20_000), *(one for _, one in answers([path], limits=FEW)))]
    assert alone[0] == alone[1]


@pytest.mark.parametrize("harness", HARNESSES)
def test_cut_and_mutated_models(harness: str, tmp_path: Path) -> None:
    if not corpus(harness):
        pytest.skip("what writes its files is not installed")
    rng = random.Random(harness)  # noqa: S311 - no secret
    for tree in corpus(harness)[:4]:
        assert_agreement(write(tree, tmp_path / "m"))
        file = next(iter(tree))
        data = tree[file]
        cuts = {0, 1, 8, 9, 60, 512, len(data) // 2, len(data) - 1, *(rng.randrange(len(data)) for _ in range(3))}
        for cut in sorted(cuts):
            assert_agreement(write({**tree, file: data[:cut]}, tmp_path / "m"))
    for run in range(25):
        tree, changed = mutated(harness, random.Random(f"{harness} {run}"))  # noqa: S311 - no secret
        assert_agreement(write({**tree, **changed}, tmp_path / "m"))
