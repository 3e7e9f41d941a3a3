"""The table of formats: a format that nobody knows is one row and one file, and works wherever another one does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from normsniff import formats, sniff
from normsniff.checkpoint import Checkpoint
from normsniff.cli.sniff import sniff as command
from normsniff.formats import FORMATS, Format, Shards
from normsniff.inputs.opening import open_source
from normsniff.inputs.walk import survey
from tests.helpers.servers import RangeServer

MODULE = """
import hashlib, json

from normsniff.anatomy.parts import Anatomy, Site
from normsniff.checkpoint import Checkpoint, TensorInfo
from normsniff.source.views import Extent


def read(source, limits):
    n = int.from_bytes(source.read_at(4, 4), "little")
    head = bytes(source.read_at(8, n))
    tensors, at = {}, 8 + n
    for name, size in json.loads(head).items():
        tensors[name] = TensorInfo(name, "F32", (size,), Extent(source, at, at + 4 * size))
        at += 4 * size
    return Checkpoint("Toy", "1", tensors, (source,), hashlib.sha256(head).hexdigest())


def describe(checkpoint):
    sites = [Site(name, tensor, None, kind="RMSNorm", why="a toy") for name, tensor in checkpoint.tensors.items()]
    return Anatomy(tuple(sites), (), {"main": 8}, "names") if sites else None
"""
ROW = Format(
    "Toy",
    lambda prefix, _size: prefix[:4] == b"TOY2",
    "toy_format",
    suffixes=(".toy",),
    shards=Shards(".toy.index.json", ".toy"),
    configs=("config.json",),
    canonical=("model.toy",),
    anatomy="toy_format",
)


def toy(*names: str) -> bytes:
    head = ("{" + ", ".join(f'"{name}": 8' for name in names) + "}").encode()
    return b"TOY2" + len(head).to_bytes(4, "little") + head + np.ones(8 * len(names), "<f4").tobytes()


@pytest.fixture(autouse=True)
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "toy_format.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, ROW))
    monkeypatch.delitem(sys.modules, "toy_format", raising=False)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    return folder


def names(checkpoint: Checkpoint) -> set[str]:
    checkpoint.close()
    return set(checkpoint.tensors)


def test_it_is_recognised_by_its_content_and_described_by_its_own_anatomy(lake: Path) -> None:
    (lake / "anything").write_bytes(toy("odd"))
    record = sniff(lake / "anything")
    assert (record.format, record.label) == ("Toy", "RMSNorm")
    assert record.norms[0].name == "odd"


def test_what_its_anatomy_leaves_open_is_described_like_everything_else(lake: Path) -> None:
    (lake / "empty").write_bytes(toy())
    assert sniff(lake / "empty").label == "undetermined"


def test_a_walk_finds_it(lake: Path) -> None:
    (lake / "a.toy").write_bytes(toy("x"))
    (lake / "b").write_bytes(toy("x"))
    assert [(one.path.name, one.format) for one in survey(lake).inputs] == [("a.toy", "Toy"), ("b", "Toy")]


def test_a_directory_that_holds_its_canonical_file_and_a_configuration_is_one_model(lake: Path) -> None:
    for name in ("a.toy", "model.toy"):
        (lake / name).write_bytes(toy("x"))
    (lake / "config.json").write_text('{"model_type": "llama"}')
    checkpoint = open_source(lake)
    checkpoint.close()
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.sources[0].name.endswith("model.toy")


def test_its_shards_are_joined_by_an_index_and_by_name(lake: Path) -> None:
    files = [f"m-{n:05}-of-00002.toy" for n in (1, 2)]
    for file, tensor in zip(files, ("x", "y"), strict=True):
        (lake / file).write_bytes(toy(tensor))
    assert names(open_source(lake / files[1])) == {"x", "y"}
    (lake / "m.toy.index.json").write_text(f'{{"weight_map": {{"x": "{files[0]}", "y": "{files[1]}"}}}}')
    assert names(open_source(lake)) == {"x", "y"}
    assert [one.path.name for one in survey(lake).inputs] == ["m.toy.index.json"]


def test_a_url_lists_it_by_its_suffix(lake: Path, server: RangeServer) -> None:
    (lake / "only.toy").write_bytes(toy("x"))
    (lake / "about.txt").write_text("toys")
    assert names(open_source(server.url("lake/"))) == {"x"}


def test_names_and_modules_of_formats_are_their_own() -> None:
    assert len({row.name for row in FORMATS}) == len({row.module for row in FORMATS}) == len(FORMATS)
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]
    assert len(set(suffixes)) == len(suffixes)


def test_the_help_names_every_format() -> None:
    assert command.help is not None
    assert [row.name for row in FORMATS if row.name not in command.help] == []
