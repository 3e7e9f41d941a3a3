"""Every input gives exactly one record, whatever it is and wherever it is read."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import normsniff
from normsniff.batch.answers import answers
from normsniff.batch.content import content_id
from normsniff.batch.identity import Identity
from normsniff.record import Classification, Duplicate, Failure
from tests.helpers.manifest import FIXTURES

LN = FIXTURES / "gpt2-ln.Q8_0.gguf"
RMS = FIXTURES / "llama-rms"
SHARDED = FIXTURES / "llama-rms-sharded"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 40)
    return path


def kinds(records: Iterable[Any]) -> dict[str, str]:
    """Return what was answered, by path; fails if a path was answered twice."""
    found: dict[str, str] = {}
    for record in records:
        assert record.path not in found
        found[record.path] = record.label if isinstance(record, Classification) else type(record).__name__
    return found


@pytest.mark.parametrize("where", ["here", "threads", "workers"])
def test_one_answer_an_input(where: str, broken: Path) -> None:
    inputs: list[str | Path] = [LN, broken, str(RMS), "no-such-file.gguf"]
    expected = {str(LN): "LayerNorm", str(broken): "Failure", str(RMS): "RMSNorm", "no-such-file.gguf": "Failure"}
    executor: Executor | None = None
    if where == "threads":
        executor = ThreadPoolExecutor(2)
    elif where == "workers":
        executor = normsniff.Workers(1, timeout=60)
    try:
        assert kinds(normsniff.sniff_many(inputs, executor, in_flight=2)) == expected
    finally:
        if executor is not None:
            executor.shutdown()


def test_options_are_those_of_sniff() -> None:
    (record,) = normsniff.sniff_many([LN], evidence=("layout",))
    assert isinstance(record, Classification)
    assert {evidence.kind for evidence in record.evidence} == {"layout"}


def test_inputs_are_taken_a_few_ahead_of_the_answers() -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield FIXTURES / f"no-such-{taken}"

    with ThreadPoolExecutor(1) as executor:
        records = normsniff.sniff_many(endless(), executor, in_flight=5)
        for _ in range(20):
            next(records)
        records.close()  # type: ignore[attr-defined]  # a generator
    assert taken <= 20 + 5


def test_records_survive_the_way_to_another_process() -> None:
    import pickle

    for record in normsniff.sniff_many([LN, "no-such-file.gguf"]):
        assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301 - our own


def die(path: Any, **options: Any) -> None:
    os._exit(1)


def test_an_executor_that_is_lost_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normsniff.batch.answers.sniff", die)
    with ProcessPoolExecutor(1) as executor, pytest.raises(BrokenExecutor):
        list(normsniff.sniff_many([LN], executor))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    for name in ("\udcff.gguf", "\udcfe.gguf"):  # how Python spells the bytes FF and FE
        if name.startswith("\udcff"):
            shutil.copy(LN, tmp_path / name)
        (record,) = normsniff.sniff_many([tmp_path / name])
        assert record.path == str(tmp_path / ascii(name[0])[-3:-1].join((r"\x", ".gguf")))


class TestDuplicates:
    def test_content_that_is_known_is_answered_once(self, tmp_path: Path, broken: Path) -> None:
        copy = shutil.copy(LN, tmp_path / "copy.gguf")
        records = [record for _, record in answers([LN, copy, RMS, broken, broken], known={})]
        duplicate = next(record for record in records if isinstance(record, Duplicate))
        assert (duplicate.path, duplicate.duplicate_of) == (str(copy), str(LN))
        assert sum(isinstance(record, Classification) for record in records) == 2
        assert sum(isinstance(record, Failure) for record in records) == 2

    def test_of_files_of_one_size_the_first_is_answered_before_its_copies_are_looked_for(self, tmp_path: Path) -> None:
        copies = [shutil.copy(LN, tmp_path / f"{n}.gguf") for n in range(3)]
        other = tmp_path / "other.gguf"
        data = bytearray(LN.read_bytes())
        data[-2] ^= 1
        other.write_bytes(data)
        with normsniff.Workers(2, timeout=60) as workers:
            found = {
                str(record.path): record
                for _, record in answers([LN, copies[0], other, *copies[1:]], workers, known={}, in_flight=4)
            }
        assert all(isinstance(found[str(one)], Classification) for one in (LN, other))
        for one in copies:
            record = found[str(one)]
            assert isinstance(record, Duplicate)
            assert record.duplicate_of == str(LN)

    def test_what_is_read_to_identify_a_model_is_not_counted_as_read_for_its_label(self) -> None:
        ((_, record),) = answers([RMS / "model.safetensors"], known={})
        alone = normsniff.sniff(RMS / "model.safetensors")
        assert isinstance(record, Classification)
        assert msgspec.structs.replace(record, seconds=0) == msgspec.structs.replace(alone, seconds=0)

    def test_the_same_path_is_no_duplicate_of_itself(self) -> None:
        known: dict[bytes, Identity] = {}
        for _ in range(2):
            ((_, record),) = answers([LN], known=known)
            assert isinstance(record, Classification)

    @pytest.mark.parametrize("name", ["gpt2-ln", "llama-rms-sharded", "gpt2-ln.f16.weights.h5", "gpt2-ln.int8.onnx"])
    def test_a_copy_has_the_same_content(self, name: str, tmp_path: Path) -> None:
        original = FIXTURES / name
        (shutil.copytree if original.is_dir() else shutil.copy)(original, tmp_path / name)
        assert content_id(original) == content_id(tmp_path / name)

    def test_every_fixture_has_a_content_of_its_own(self) -> None:
        files = [file for file in FIXTURES.iterdir() if file.suffix in (".gguf", ".onnx", ".h5", ".safetensors")]
        models = [file for file in files if "-00002-of-" not in file.name]
        assert len({content_id(model) for model in models}) == len(models) > 20

    @pytest.mark.parametrize("what", ["config.json", "a norm", "the middle of a matrix"])
    def test_what_was_changed_is_another_content(self, what: str, tmp_path: Path) -> None:
        """A fine-tune may change the norms alone; a lying configuration changes no weight."""
        import numpy as np
        from safetensors.numpy import load_file, save_file

        model = tmp_path / "model"
        shutil.copytree(FIXTURES / "gpt2-ln", model)
        weights = {"norm.weight": np.ones(64, np.float32), "big": np.zeros((64, 1024), np.float32)}
        save_file(weights, model / "model.safetensors")
        before = content_id(model)
        if what == "config.json":
            (model / "config.json").write_text('{"model_type": "llama"}')
        else:
            weights = load_file(model / "model.safetensors")
            weights["norm.weight" if what == "a norm" else "big"].reshape(-1)[32 if what == "a norm" else 32768] = 2
            save_file(weights, model / "model.safetensors")
        assert content_id(model) != before

    def test_a_uri_is_not_read_twice(self) -> None:
        assert content_id("s3://bucket/model.safetensors") is None

    def test_bytes_that_only_identifying_reads_may_be_damaged(self, tmp_path: Path) -> None:
        """A scan and `sniff` say the same."""
        import h5py
        import numpy as np

        rest = np.arange(400, dtype=np.int64).reshape(4, 10, 10)
        path = tmp_path / "model.weights.h5"
        with h5py.File(path, "w") as file:
            for i in range(2):
                vectors = file.create_group(f"layers/layer_normalization_{i}/vars")
                vectors["0"], vectors["1"] = np.linspace(0.9, 1.1, 16), np.linspace(-0.1, 0.1, 16)
            file.create_dataset("counts", data=rest, chunks=rest.shape, compression="gzip")
        packed = zlib.compress(rest.tobytes(), 4)
        data = path.read_bytes()
        assert data.count(packed) == 1
        path.write_bytes(data.replace(packed, bytes(len(packed))))
        assert content_id(tmp_path) is None
        ((_, record),) = answers([tmp_path], known={})
        assert isinstance(record, Classification)
        assert record.label == normsniff.sniff(tmp_path).label
