from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normsniff.errors import FormatError, LimitExceeded, NormsniffError, SourceError
from normsniff.inputs.opening import open_source
from normsniff.inputs.walk import survey, walk
from normsniff.limits import Limits
from tests.helpers.lines import lines_run
from tests.helpers.manifest import FIXTURES

GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
ONNX = (FIXTURES / "mlp-none.dynamo18.f32.onnx").read_bytes()
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def safetensors(*names: str) -> bytes:
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names or "a")
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * len(header))


def archive(*members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member in members:
            file.writestr(member, "{}")
    return buffer.getvalue()


def index(*files: str) -> bytes:
    return json.dumps({"weight_map": {f"t{i}": file for i, file in enumerate(files)}}).encode()


def build(root: Path, tree: dict[str, bytes]) -> Path:
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


SHARDS = {f"model-0000{i}-of-00003.safetensors": safetensors(f"t{i - 1}") for i in (1, 2, 3)}
INDEX = {"model.safetensors.index.json": index(*SHARDS)}

# name -> (files, the inputs that they are)
TREES: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "a Hugging Face repository is one model, in its best form": (
        {
            "config.json": b"{}",
            "model.safetensors": safetensors(),
            "tf_model.h5": HDF5,
            "pytorch_model.bin": archive("archive/data.pkl"),
            "model.gguf": GGUF,
            "onnx/model.gguf": GGUF,
            "README.md": b"#",
        },
        ["model.safetensors"],
    ),
    "an index is one model": ({**SHARDS, **INDEX}, ["model.safetensors.index.json"]),
    "an index wins over a consolidated copy": (
        {**SHARDS, **INDEX, "config.json": b"{}", "consolidated.safetensors": safetensors()},
        ["model.safetensors.index.json"],
    ),
    "an index without any shard is a model that fails": (
        {**INDEX, "other.gguf": GGUF},
        ["model.safetensors.index.json", "other.gguf"],
    ),
    "an index without any shard beside the model itself": (
        {**INDEX, "config.json": b"{}", "pytorch_model.bin": archive("archive/data.pkl")},
        ["pytorch_model.bin"],
    ),
    "a broken index with the shards of another model": (
        {**SHARDS, "mode.safetensors.index.json": b"{", "model.bin.index.json": b"{"},
        ["mode.safetensors.index.json", "model-00001-of-00003.safetensors", "model.bin.index.json"],
    ),
    "an index hides no model that it merely names": (
        {"m.safetensors.index.json": index("x.gguf"), "n.bin.index.json": index("x.gguf"), "x.gguf": GGUF},
        ["m.safetensors.index.json", "n.bin.index.json", "x.gguf"],
    ),
    "a broken index leaves the shards": (
        {**SHARDS, "model.safetensors.index.json": b"{"},
        ["model-00001-of-00003.safetensors"],
    ),
    "shards without an index are one model": (SHARDS, ["model-00001-of-00003.safetensors"]),
    "the first shard is missing": (
        {name: data for name, data in SHARDS.items() if "-00001-" not in name},
        ["model-00002-of-00003.safetensors"],
    ),
    "shards with unrelated names, known by their index": (
        {"model.safetensors.index.json": index("x.safetensors", "y.safetensors"), "x.safetensors": safetensors("t0"),
         "y.safetensors": safetensors("t1")},
        ["model.safetensors.index.json"],
    ),
    "quantisations are several models": (
        {"m.Q4_K_M.gguf": GGUF, "m.Q8_0.gguf": GGUF, "config.json": b"{}", "imatrix.dat": b"x"},
        ["m.Q4_K_M.gguf", "m.Q8_0.gguf"],
    ),
    "split quantisations in folders": (
        {f"{q}/m-{q}-0000{i}-of-00002.gguf": GGUF for q in ("Q4", "Q8") for i in (1, 2)},
        ["Q4/m-Q4-00001-of-00002.gguf", "Q8/m-Q8-00001-of-00002.gguf"],
    ),
    "a saved Keras directory": (
        {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": HDF5, "assets/x.txt": b""},
        ["model.weights.h5"],
    ),
    "a sharded Keras directory": (
        {"config.json": b"{}", "model.weights.json": index("model_00000.weights.h5"), "model_00000.weights.h5": HDF5},
        ["model.weights.json"],
    ),
    "one odd name beside a configuration": (
        {"config.json": b"{}", "weights-final.safetensors": safetensors(), "sub/x.gguf": GGUF},
        ["weights-final.safetensors"],
    ),
    "two odd names beside a configuration": (
        {"config.json": b"{}", "a.safetensors": safetensors(), "b.safetensors": safetensors(), "sub/x.gguf": GGUF},
        ["a.safetensors", "b.safetensors", "sub/x.gguf"],
    ),
    "a lake": (
        {
            "b/config.json": b"{}",
            "b/model.safetensors": safetensors(),
            "b/checkpoint-5/model.safetensors": safetensors(),
            "a/x.gguf": GGUF,
            "a/z/deep/y.safetensors": safetensors(),
            "c.keras": archive("metadata.json", "config.json", "model.weights.h5"),
            "no-extension": safetensors(),
            "wrong.bin": GGUF,
        },
        ["c.keras", "no-extension", "wrong.bin", "a/x.gguf", "a/z/deep/y.safetensors", "b/model.safetensors"],
    ),
    "training state is no model": (
        {
            "optimizer.safetensors": safetensors(),
            "optimizer.bin": safetensors(),
            "training_args.bin": archive("training_args/data.pkl"),
            "scheduler.pt": safetensors(),
            "rng_state_0.pth": safetensors(),
            "notes.bin": archive("notes.txt"),
            "optimizers-in-my-name.safetensors": safetensors(),
        },
        ["optimizers-in-my-name.safetensors"],
    ),
    "hidden folders and tools' folders": (
        {".git/lfs/x.safetensors": safetensors(), ".cache/x.gguf": GGUF, "__pycache__/x.gguf": GGUF, "y.gguf": GGUF},
        ["y.gguf"],
    ),
    "a Hugging Face cache": (
        {"models--a/blobs/0123": safetensors(), "models--a/snapshots/r/other.gguf": GGUF, "models--a/refs/main": b"r"},
        ["models--a/snapshots/r/other.gguf"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_what_a_directory_is(tmp_path: Path, name: str) -> None:
    files, inputs = TREES[name]
    build(tmp_path, files)
    found = survey(tmp_path).inputs
    assert [str(one.path.relative_to(tmp_path)) for one in found] == inputs
    assert found == survey(tmp_path).inputs, "in a stable order"
    if name.startswith(("an index is", "shards ")):
        assert survey(tmp_path).skipped == [], "shards are no models of their own"
    if len(inputs) == 1 and inputs[0].endswith("safetensors.index.json"):
        assert open_source(tmp_path).tensors


def test_everything_that_is_passed_over_has_a_reason(tmp_path: Path) -> None:
    build(
        tmp_path,
        {
            "one/config.json": b"{}",
            "one/model.safetensors": safetensors(),
            "one/model.gguf": GGUF,
            "one/onnx/model.gguf": GGUF,
            "two/array.npy": b"\x93NUMPY\1\0",
            "two/java.bin": archive("META-INF/MANIFEST.MF"),
            "two/optimizer.bin": b"x",
            "two/noise.dat": b"nothing at all",
            "two/empty.dat": b"",
            "two/x.safetensors.index.json": b"{",
            "two/x-00001-of-00002.safetensors": safetensors(),
            "one/x.safetensors.index.json": index("gone.safetensors"),
            "two/.hidden/x.gguf": GGUF,
            "two/notes.txt": b"",
        },
    )
    reasons = {str(path.relative_to(tmp_path)): reason for path, reason in survey(tmp_path).skipped}
    expected = {
        "one/model.gguf": "another file of the model in model.safetensors",
        "one/onnx": "not searched: the directory above it is one model",
        "two/array.npy": "a single array",
        "two/java.bin": "a Java archive",
        "two/optimizer.bin": "state of a training run",
        "two/noise.dat": "not a format that normsniff reads",
        "two/empty.dat": "empty",
        "two/x.safetensors.index.json": "bad-index",
        "one/x.safetensors.index.json": "another file of the model in model.safetensors",
        "two/.hidden": "hidden",
    }
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name]


def test_a_file_is_one_input_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    (only,) = survey(path).inputs
    assert only.path == path
    assert only.format is None


def test_nothing_there_is_an_error_never_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        survey(tmp_path / "absent")
    with pytest.raises(SourceError, match=r"no model file below this directory$"):
        survey(tmp_path)
    build(tmp_path, {"a/README.md": b"", "a/notes.txt": b"", "config.json": b"{}"})
    with pytest.raises(SourceError, match=r"no model file below this directory$"):
        survey(tmp_path)
    build(tmp_path, {"a/notes.dat": LFS[:7]})
    with pytest.raises(SourceError, match=r"no model file below this directory \(notes.dat: not a format"):
        survey(tmp_path)


DAMAGED = {
    "pointer.safetensors": (LFS, "Git LFS pointer"),
    "empty.gguf": (b"", "the file is empty"),
    "zeros.safetensors": (bytes(100), "nothing but zeros"),
    "page.safetensors": (b"<!doctype html>", "a text file"),
    "short.safetensors": (safetensors()[:30], "truncated"),
    "short.gguf": (GGUF[:10], "truncated"),
    "short.onnx": (ONNX[:60], "an ONNX model by its head, cut off at 60 bytes"),
    "noise.pt": (b"noise", "not a format"),
    "lost.safetensors.index.json": (index("gone.safetensors"), "none of its 1 shards is there: gone.safetensors"),
    "lost.bin.index.json": (index("gone.bin", "too.bin"), "none of its 2 shards is there: gone.bin, too.bin"),
    "model.safetensors.index.json": (index("gone.safetensors"), "none of its 1 shards is there"),
    "cut.safetensors.index.json": (index("gone.safetensors")[:-3], "not an index of shards"),
    "empty.bin.index.json": (b"{}", "not an index of shards"),
    "none.bin.index.json": (index(), "the index lists no file"),
    "out.safetensors.index.json": (index("../../b/good.gguf"), "not a file below its directory"),
    "pointer.safetensors.index.json": (LFS, "not an index of shards"),
    "short.pt": (archive("archive/data.pkl", "archive/version")[:-30], "cut off"),
    "short.npz": (archive("a.npy")[:-30], "cut off"),
    "short.keras": (archive("metadata.json", "model.weights.h5")[:-30], "cut off"),
    "short.h5": (HDF5[:40], "m"),
    "named-like-none": (b"\0" * 64 + b"\xef\xbe\xad\xde", "CoreML"),
    "pickle.ckpt": (b"\x80\x02}q\x00.", "no PyTorch checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_should_be_a_model_is_an_input_that_fails_with_its_reason(tmp_path: Path, name: str) -> None:
    data, reason = DAMAGED[name]
    build(tmp_path, {f"a/{name}": data, "b/good.gguf": GGUF})
    found = survey(tmp_path)
    assert [one.path.name for one in found.inputs] == [name, "good.gguf"]
    assert found.skipped == []
    for path in (tmp_path / "a" / name, tmp_path / "a"):
        with pytest.raises(NormsniffError, match=reason):
            open_source(path)


def test_symbolic_links(tmp_path: Path) -> None:
    outside = build(tmp_path / "outside", {"secret.gguf": GGUF})
    root = build(tmp_path / "root", {"real/m.gguf": GGUF})
    (root / "alias.gguf").symlink_to(root / "real" / "m.gguf")
    (root / "leaves.gguf").symlink_to(outside / "secret.gguf")
    (root / "outside").symlink_to(outside)
    (root / "real" / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "dangling.gguf").symlink_to(root / "absent.gguf")
    found = survey(root)
    assert [str(one.path.relative_to(root)) for one in found.inputs] == ["alias.gguf", "dangling.gguf", "real/m.gguf"]
    reasons = {str(path.relative_to(root)): reason for path, reason in found.skipped}
    assert reasons.keys() == {"leaves.gguf", "outside", "real/loop", "self"}
    assert "leaves the directory" in reasons["leaves.gguf"]
    assert reasons["real/loop"] == "a symbolic link to a directory"
    assert [one.path for one in survey(root / "outside").inputs] == [root / "outside" / "secret.gguf"], (
        "the caller named it"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_special_files_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    build(tmp_path, {"m.gguf": GGUF})
    found = survey(tmp_path)
    assert [one.path.name for one in found.inputs] == ["m.gguf"]
    assert "not a regular file" in found.skipped[0][1]


def test_a_walk_is_bounded(tmp_path: Path) -> None:
    build(tmp_path, {f"{i}/m.gguf": GGUF for i in range(5)} | {f"{i}.txt": b"" for i in range(50)})
    assert len(survey(tmp_path, Limits(files=11)).inputs) == 5
    with pytest.raises(LimitExceeded) as caught:
        survey(tmp_path, Limits(files=10))
    assert caught.value.resource == "files and directories"


def test_a_walk_is_lazy(tmp_path: Path) -> None:
    build(tmp_path, {"a/x.gguf": GGUF, "b/y.gguf": GGUF})
    skipped: dict[Path, str] = {}
    models = walk(tmp_path, Limits(), skipped.setdefault)
    assert next(models).path == tmp_path / "a" / "x.gguf"
    (tmp_path / "b" / "y.gguf").rename(tmp_path / "b" / "z.gguf")
    assert [one.path.name for one in models] == ["z.gguf"], "the second directory was not looked at before"


def test_a_deep_tree_is_walked_without_recursion(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 500)
    deep.mkdir(parents=True)
    (deep / "m.gguf").write_bytes(GGUF)
    assert len(survey(tmp_path).inputs) == 1


def test_open_source_takes_paths_bytes_files_and_arrays(tmp_path: Path) -> None:
    data = safetensors("w")
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    sources: list[Any] = [path, str(path), tmp_path, data, bytearray(data), memoryview(data), io.BytesIO(data)]
    for source in sources:
        checkpoint = open_source(source)
        assert list(checkpoint.tensors) == ["w"]
        assert checkpoint.format == "safetensors"
        checkpoint.close()
    with path.open("rb") as file:
        assert open_source(file).tensors["w"].shape == (1,)
    assert open_source({"w": np.ones((2, 3))}).tensors["w"].shape == (2, 3)
    for wrong in (None, 5, ["a"]):
        with pytest.raises(TypeError, match="a path, bytes"):
            open_source(wrong)  # type: ignore[arg-type]  # what a caller may do


def test_open_source_wants_exactly_one_model(tmp_path: Path) -> None:
    build(tmp_path, {f"m{i:02d}/x.gguf": GGUF for i in range(12)})
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert caught.value.detail.startswith("holds 12 models, name one of them: m00/x.gguf, m01/x.gguf")
    assert caught.value.detail.endswith("m09/x.gguf ...")
    with pytest.raises(SourceError):
        open_source(tmp_path / "absent")
    with pytest.raises(SourceError):
        open_source("nul\0byte")
    with pytest.raises(FormatError, match="empty"):
        open_source(b"")


def test_config_of_a_directory_comes_with_it(tmp_path: Path) -> None:
    build(tmp_path, {"config.json": b'{"model_type": "bert"}', "model.safetensors": safetensors()})
    assert open_source(tmp_path).config == {"model_type": "bert"}


@pytest.mark.models
def test_the_package_of_a_real_model(real_model: Callable[[str], Path]) -> None:
    path = real_model("minilm")
    assert [one.path for one in survey(path.parent).inputs] == [path]
    decoder = real_model("flan-t5-decoder")
    assert decoder in [one.path for one in survey(decoder.parent).inputs]


def test_a_directory_takes_work_by_its_size_whatever_its_files_are_named(tmp_path: Path) -> None:
    """Twice the files, twice the lines that run: nothing is looked for in a list of all."""
    names = (
        "__{}_0.distcp",
        "a{}.txt",
        "model-{:05d}-of-99999.safetensors",
        "a{}.npy",
        "optimizer-{}.pt",
        "m{}.xml",
        "m{}.bin",
    )
    for name in names:
        lines = []
        for n in (60, 120):
            folder = tmp_path / f"{n}{name}"
            folder.mkdir()
            for i in range(n):
                (folder / name.format(i)).write_bytes(b"x")
            lines.append(lines_run(lambda folder=folder: list(walk(folder, Limits(), lambda *_: None))))  # type: ignore[misc]
        assert lines[1] < 2.2 * lines[0], name


def test_broken_indexes_beside_models_are_each_looked_at_once(tmp_path: Path) -> None:
    lines = []
    for n in (50, 100):
        folder = tmp_path / str(n)
        folder.mkdir()
        for i in range(n):
            (folder / f"a{i}.safetensors.index.json").write_bytes(b"{")
            (folder / f"b{i}.safetensors").write_bytes(safetensors())
        lines.append(lines_run(lambda folder=folder: list(walk(folder, Limits(), lambda *_: None))))  # type: ignore[misc]
    assert lines[1] < 2.2 * lines[0]
