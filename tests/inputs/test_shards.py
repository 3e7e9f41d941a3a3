from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.errors import FormatError, LimitExceeded, NormsniffError, SourceError
from normsniff.inputs.shards import open_model, shard_group
from normsniff.limits import Limits


def safetensors(values: Mapping[str, float], **metadata: str) -> bytes:
    """One float32 element a tensor."""
    header: dict[str, Any] = {"__metadata__": metadata}
    for i, name in enumerate(values):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + struct.pack(f"<{len(values)}f", *values.values())


def write_index(directory: Path, weight_map: Mapping[str, Any], name: str = "model.safetensors.index.json") -> Path:
    path = directory / name
    path.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards, an index and a configuration."""
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(safetensors({"a": 1, "b": 2}, format="pt"))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(safetensors({"c": 3}))
    write_index(tmp_path, {"a": shard(1), "b": shard(1), "c": shard(2)})
    (tmp_path / "config.json").write_text('{"model_type": "bert", "limit": Infinity}')
    return tmp_path


def shard(number: int, count: int = 2) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


@pytest.mark.parametrize("name", ["model.safetensors.index.json", shard(1), shard(2)])
@pytest.mark.parametrize("indexed", [True, False])
def test_any_file_of_a_model_opens_all_of_it(model: Path, name: str, indexed: bool) -> None:
    if not indexed:
        (model / "model.safetensors.index.json").unlink()
        if name.endswith(".json"):
            with pytest.raises(SourceError, match="No such file"):
                open_model(model / name)
            return
    checkpoint = open_model(model / name)
    assert checkpoint.format == "safetensors"
    assert {n: float(decode.read(t, Limits())[0]) for n, t in checkpoint.tensors.items()} == {
        "a": 1.0,
        "b": 2.0,
        "c": 3.0,
    }
    assert checkpoint.config == {"model_type": "bert", "limit": float("inf")}
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.warnings == ()
    assert checkpoint.file_size == sum(source.size for source in checkpoint.sources)
    files = {Path(source.name).name for source in checkpoint.sources}
    assert {shard(1), shard(2), "config.json"} <= files
    assert ("model.safetensors.index.json" in files) == indexed
    assert checkpoint.sources[0].name.endswith(shard(1))
    checkpoint.close()


def test_the_digest_covers_every_shard(model: Path) -> None:
    before = open_model(model / shard(1)).header_sha256
    assert before == open_model(model / "model.safetensors.index.json").header_sha256
    (model / shard(2)).write_bytes(safetensors({"d": 3}))
    assert open_model(model / shard(1)).header_sha256 != before


def test_missing_shards_are_a_warning_and_the_rest_is_read(model: Path) -> None:
    (model / shard(1)).unlink()
    for name in ("model.safetensors.index.json", shard(2)):
        checkpoint = open_model(model / name)
        assert list(checkpoint.tensors) == ["c"]
        assert checkpoint.warnings[0] == f"1 of 2 shards are missing: {shard(1)}"
        assert checkpoint.warnings[1] == "2 tensors of the index are in no shard at hand: a, b"
    (model / "model.safetensors.index.json").unlink()
    assert open_model(model / shard(2)).warnings == ("1 of 2 shards are missing: number 1",)


def test_no_shard_at_all_is_an_error_that_names_them(model: Path) -> None:
    for number in (1, 2):
        (model / shard(number)).unlink()
    with pytest.raises(SourceError, match=f"none of its 2 shards is there: {shard(1)}, {shard(2)}"):
        open_model(model / "model.safetensors.index.json")


def test_a_broken_shard_is_an_error(model: Path) -> None:
    (model / shard(2)).write_bytes((model / shard(2)).read_bytes()[:-1])
    with pytest.raises(FormatError, match="cut off: 1 of"):
        open_model(model / shard(1))
    (model / shard(2)).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(FormatError, match="git lfs pull"):
        open_model(model / shard(1))


def test_an_index_that_disagrees_with_the_shards(model: Path) -> None:
    (model / shard(2)).write_bytes(safetensors({"b": 20, "c": 3, "extra": 4}))
    index = write_index(model, {"a": shard(1), "b": shard(2), "c": shard(2), "gone": shard(2)})
    checkpoint = open_model(index)
    assert float(decode.read(checkpoint.tensors["b"], Limits())[0]) == 20.0, "the index says which of two counts"
    assert checkpoint.warnings == (
        "1 tensor is in two shards: b",
        "1 tensor of the index is in no shard at hand: gone",
        "1 tensor is not in the index: extra",
    )
    index.unlink()
    assert float(decode.read(open_model(model / shard(2)).tensors["b"], Limits())[0]) == 2.0


def test_a_shard_that_its_index_does_not_know(model: Path) -> None:
    write_index(model, {"x": "other.safetensors"})
    checkpoint = open_model(model / shard(1))
    assert set(checkpoint.tensors) == {"a", "b", "c"}
    assert "does not list" in checkpoint.warnings[0]
    (model / "model.safetensors.index.json").write_text("{")
    checkpoint = open_model(model / shard(1))
    assert set(checkpoint.tensors) == {"a", "b", "c"}
    assert "joined by name" in checkpoint.warnings[0]


@pytest.mark.parametrize(
    "file",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "a/../../b",
        "a/../b",
        "..",
        "",
        "a\\b",
        "C:b",
        "nul\0byte",
        "link.safetensors",
        "dir/x",
    ],
)
def test_an_index_cannot_name_a_file_outside_of_its_directory(tmp_path: Path, file: str) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(safetensors({"secret": 1}))
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "link.safetensors").symlink_to(secret)
    (inside / "dir").symlink_to(tmp_path)
    with pytest.raises(FormatError) as caught:
        open_model(write_index(inside, {"secret": file}))
    assert caught.value.code == "unsafe-path"


def test_a_shard_that_links_out_of_the_directory_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(safetensors({"secret": 1}))
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / shard(1)).write_bytes(safetensors({"a": 1}))
    (inside / shard(2)).symlink_to(tmp_path / "secret")
    checkpoint = open_model(inside / shard(1))
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.warnings == ("1 of 2 shards are missing: number 2",)


def test_shards_in_a_sub_folder_and_long_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "s.safetensors").write_bytes(safetensors({"a": 1}))
    assert list(open_model(write_index(tmp_path, {"a": "sub/s.safetensors"})).tensors) == ["a"]
    with pytest.raises(SourceError, match="none of its 1 shards"):
        open_model(write_index(tmp_path, {"a": "x" * 5000}))


def test_a_hugging_face_cache(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "123"
    blobs.mkdir(parents=True)
    (snapshot / "onnx").mkdir(parents=True)
    for number, values in enumerate(({"a": 1.0}, {"b": 2.0}), 1):
        (blobs / f"hash{number}").write_bytes(safetensors(values))
        (snapshot / shard(number)).symlink_to(Path("../../blobs") / f"hash{number}")
    (blobs / "config").write_text('{"model_type": "llama"}')
    (snapshot / "config.json").symlink_to(blobs / "config")
    index = write_index(snapshot, {"a": shard(1), "b": shard(2)})
    for path in (index, snapshot / shard(2)):
        checkpoint = open_model(path)
        assert list(checkpoint.tensors) == ["a", "b"]
        assert checkpoint.config == {"model_type": "llama"}


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "{", "\xff", '{"weight_map": 1}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}',
        '{"weight_map": []}', '{"weight_map": {"a": ["x", 1]}}', '{"weight_map": {"a": null}}',
        "[" * 100_000, '{"a":' * 100_000,
    ],
)  # fmt: skip
def test_hostile_indexes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(FormatError) as caught:
        open_model(path)
    assert caught.value.code == "bad-index"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"version": "1.0", "added_tokens": [], "model": {"vocab": {}}}', "a tokenizer"),
        ('{"model_type": "bert"}', "a configuration"),
    ],
)
def test_other_json_is_named_for_what_it_is(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "some.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=f"it is {what}, without weights"):
        open_model(tmp_path / "some.json")


def test_limits_on_indexes_and_shards(model: Path) -> None:
    index = model / "model.safetensors.index.json"
    for limits, resource in (
        (Limits(header_bytes=10), "bytes of the index"),
        (Limits(files=1), "files of a model"),
        (Limits(tensors=2), "tensors"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            open_model(index, limits)
        assert caught.value.resource == resource
    write_index(model, {f"t{i}": shard(1) for i in range(2000)})
    with pytest.raises(LimitExceeded) as caught:
        open_model(index, Limits(tensors=100))
    assert caught.value.resource == "entries of the index"
    index.unlink()
    for limits in (Limits(files=1), Limits(tensors=2)):
        with pytest.raises(LimitExceeded):
            open_model(model / shard(1), limits)


def test_names_of_shards() -> None:
    assert shard_group(Path("d/model-00002-of-000163.safetensors")) == ("model-*-of-163.safetensors", 2)
    assert shard_group(Path("q-00001-of-00002.gguf")) == ("q-*-of-2.gguf", 1)
    for name in ("model.safetensors", "model-00003-of-00002.safetensors", "m-00000-of-00002.gguf", "m-1-of-2.onnx"):
        assert shard_group(Path(name)) is None
    assert shard_group(Path("a-00001-of-00002.gguf")) != shard_group(Path("a-00001-of-00003.gguf"))


def test_other_models_with_shards_in_the_same_folder_stay_apart(model: Path) -> None:
    (model / "model.safetensors.index.json").unlink()
    (model / "other-00001-of-00002.safetensors").write_bytes(safetensors({"x": 1}))
    (model / "model-00003-of-00003.safetensors").write_bytes(safetensors({"y": 1}))
    assert set(open_model(model / shard(1)).tensors) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "not a JSON object"),
        ("{", "malformed"),
        ("", "malformed"),
        ("\xff", "UTF-8"),
        ('{"a":' * 100_000, "too deeply"),
        ('{"a":' * 70 + "1" + "}" * 70, "deeper than 64"),
        ('{"a": "' + "x" * 3000 + '"}', "is over the limit"),
    ],
)
def test_a_broken_configuration_is_a_warning(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors({"a": 1}))
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    limit = 2000 if "over" in complaint else 16_000_000
    checkpoint = open_model(tmp_path / "m.safetensors", Limits(value_bytes=limit))
    assert checkpoint.config is None
    (warning,) = checkpoint.warnings
    assert warning.startswith("the configuration is not used: ")
    assert complaint in warning


def test_which_configuration_belongs_to_a_file(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    (model / "m.safetensors").write_bytes(safetensors({"a": 1}))
    (tmp_path / "config.json").write_text('{"from": "above"}')
    assert open_model(model / "m.safetensors").config is None, "not from outside of the model's directory"
    (model / "params.json").write_text('{"norm_eps": 1e-5}')
    assert open_model(model / "m.safetensors").config == {"norm_eps": 1e-5}, "Mistral's own layout"
    (model / "config.json").symlink_to(tmp_path / "config.json")
    checkpoint = open_model(model / "m.safetensors")
    assert checkpoint.config is None
    assert "leaves the model's directory" in checkpoint.warnings[0]
    (model / "config.json").unlink()
    (model / "config.json").write_text('{"from": "here"}')
    assert open_model(model / "m.safetensors").config == {"from": "here"}


def test_onnx_exports_use_the_configuration_of_their_repository(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1])],
        [onnx.helper.make_tensor_value_info("y", 1, [1])],
    )
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for folder in ("onnx", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert open_model(tmp_path / "onnx" / "model.onnx").config == {"model_type": "bert"}
    assert open_model(tmp_path / "other" / "model.onnx").config is None


def test_gguf_splits_are_joined(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        writer.add_tensor(name, np.full(4, value, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "config.json").write_text("{}")
    for number in (1, 3):
        checkpoint = open_model(tmp_path / f"m-0000{number}-of-00003.gguf")
        assert checkpoint.format == "GGUF"
        assert checkpoint.metadata["general.architecture"] == "llama"
        assert {n: float(decode.read(t, Limits())[0]) for n, t in checkpoint.tensors.items()} == {
            "a": 1.0,
            "b": 2.0,
            "c": 3.0,
        }
        assert checkpoint.config is None, "GGUF carries its own metadata"
        checkpoint.close()
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    checkpoint = open_model(tmp_path / "m-00001-of-00003.gguf")
    assert list(checkpoint.tensors) == ["a", "c"]
    assert checkpoint.warnings


def test_keras_shards_and_the_configuration_beside_them(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for number, layer in enumerate(("layer_normalization", "dense")):
        with h5py.File(tmp_path / f"model_0000{number}.weights.h5", "w") as file:
            file[f"layers/{layer}/vars/0"] = np.full(4, number, np.float32)
    index = write_index(
        tmp_path,
        {
            "/layers/layer_normalization/vars": "model_00000.weights.h5",
            "/layers/dense/vars": ["model_00001.weights.h5"],
        },
        "model.weights.json",
    )
    layers = [
        {"class_name": name, "config": {"name": f"my_{name}"}, "module": "keras.layers", "registered_name": None}
        for name in ("LayerNormalization", "Dense")
    ]
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
    checkpoint = open_model(index)
    assert checkpoint.format == "Keras"
    assert set(checkpoint.tensors) == {"layers/layer_normalization/vars/0", "layers/dense/vars/0"}
    assert checkpoint.config is not None
    found = {layer.path: layer.class_name for layer in checkpoint.layers}
    assert found == {"layers/layer_normalization": "LayerNormalization", "layers/dense": "Dense"}


def test_a_keras_archive_keeps_its_own_configuration(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
        file["model_weights/ln/ln/gamma"] = np.ones(4, np.float32)
    (tmp_path / "config.json").write_text('{"other": 1}')
    checkpoint = open_model(tmp_path / "m.h5")
    assert checkpoint.config is not None
    assert checkpoint.config["class_name"] == "Sequential"


def test_shards_of_different_formats_are_no_model(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones(4, np.float32)
    (tmp_path / "a.safetensors").write_bytes(safetensors({"a": 1}))
    with pytest.raises(FormatError, match="cannot be joined: Keras, safetensors"):
        open_model(write_index(tmp_path, {"a": "a.safetensors", "b": "b.h5"}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["model.safetensors.index.json", shard(1), "config.json"]),
    at=st.integers(0, 400),
    value=st.integers(0, 255),
    cut=st.booleans(),
)
def test_any_flip_or_cut_gives_an_answer_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, value: int, cut: bool
) -> None:
    directory = tmp_path_factory.mktemp("m")
    (directory / shard(1)).write_bytes(safetensors({"a": 1, "b": 2}))
    (directory / shard(2)).write_bytes(safetensors({"c": 3}))
    (directory / "config.json").write_text('{"model_type": "bert"}')
    write_index(directory, {"a": shard(1), "b": shard(1), "c": shard(2)})
    data = bytearray((directory / name).read_bytes())
    at = min(at, len(data) - 1)
    data[at] = value
    (directory / name).write_bytes(data[:at] if cut else data)
    for start in ("model.safetensors.index.json", shard(1), shard(2)):
        try:
            checkpoint = open_model(directory / start)
        except NormsniffError:
            continue
        assert checkpoint.tensors
        checkpoint.close()


@pytest.mark.models
def test_minilm_with_its_configuration(real_model: Callable[[str], Path]) -> None:
    checkpoint = open_model(real_model("minilm"))
    assert checkpoint.config is not None
    assert checkpoint.config["model_type"] == "bert"
    assert checkpoint.bytes_read < 50_000
    assert checkpoint.file_size > 40_000_000
