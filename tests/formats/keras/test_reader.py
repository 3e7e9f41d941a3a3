"""Keras archives and HDF5 files, built as keras 3.15 and Keras 2.15 lay them out, and hostile ones."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError, SourceError
from normsniff.formats.keras import reader as keras
from normsniff.formats.keras.layers import class_of, snake_case
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource
from normsniff.source.views import Extent
from tests.helpers.keras_files import archive, layer, model, node

D = 8
ONES = np.ones(D, "<f4")


def hdf5(fill: Callable[[h5py.File], Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return keras.read(BytesSource(data, "model"), limits or Limits())


def weights(file: h5py.File) -> None:
    layer(file, "layers/layer_normalization", "ln_a", ONES, ONES * 0)
    layer(file, "layers/layer_normalization_1", "ln_b", ONES * 2)
    layer(file, "layers/dense", "up", np.arange(D * 2 * D, dtype="<f4").reshape(D, 2 * D))
    layer(file, "layers/functional/layers/dense", "inner_dense", np.zeros((D, D), "<f4"))
    file["layers/functional"].create_group("vars").attrs["name"] = "inner"
    layer(file, "optimizer", None, np.zeros(3, "<f4"))


CONFIG = model(
    node("InputLayer", "x"),
    node("LayerNormalization", "ln_a", "x", center=True, scale=True, rms_scaling=False),
    node("Dense", "up", "ln_a"),
    {"class_name": "Functional", "config": {"name": "inner", "layers": [node("Dense", "inner_dense")]}},
    node("LayerNormalization", "ln_b", "up", "x", center=False),
)  # fmt: skip
METADATA = {"keras_version": "3.15.1", "date_saved": "2026-11-23@22:30:58"}
MEMBERS = {
    "metadata.json": json.dumps(METADATA).encode(),
    "config.json": json.dumps(CONFIG).encode(),
    "model.weights.h5": hdf5(weights),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_keras_archive(compression: int) -> None:
    checkpoint = read(archive(MEMBERS, compression))
    assert (checkpoint.format, checkpoint.version, checkpoint.warnings) == ("Keras", "3.15.1", ())
    assert checkpoint.metadata == METADATA
    assert checkpoint.config == CONFIG
    assert not any(name.startswith("optimizer") for name in checkpoint.tensors)
    np.testing.assert_array_equal(
        decode.read(checkpoint.tensors["layers/layer_normalization_1/vars/0"], Limits()), ONES * 2
    )
    found = {entry.path: (entry.class_name, entry.inputs) for entry in checkpoint.layers}
    assert found["layers/layer_normalization"] == ("LayerNormalization", ("x",))
    assert found["layers/layer_normalization_1"] == ("LayerNormalization", ("layers/dense", "x"))
    assert found["layers/functional/layers/dense"] == ("Dense", ())
    by_path = {entry.path: entry for entry in checkpoint.layers}
    assert by_path["layers/layer_normalization_1"].config["center"] is False


def test_stored_member_is_not_copied() -> None:
    data = archive(MEMBERS)
    source = BytesSource(data)
    checkpoint = keras.read(source, Limits())
    before = source.bytes_read
    tensor = checkpoint.tensors["layers/dense/vars/0"]
    decode.read(tensor, Limits())
    assert source.bytes_read - before <= tensor.nbytes
    assert checkpoint.sources == (source,)


def test_layers_without_configuration_come_from_names() -> None:
    def fill(file: h5py.File) -> None:
        weights(file)
        layer(file, "layers/llama_transformer_decoder", "transformer_layer_0")
        layer(file, "layers/llama_transformer_decoder/_norm", "self_attention_layernorm", ONES)
        layer(file, "blocks/my_block/ln1", "layer_normalization_7", ONES)

    found = {entry.path: entry.class_name for entry in read(hdf5(fill)).layers}
    assert found["layers/layer_normalization_1"] == "LayerNormalization"
    assert found["layers/llama_transformer_decoder"] == "LlamaTransformerDecoder"
    assert found["blocks/my_block/ln1"] == "LayerNormalization"
    assert "layers/llama_transformer_decoder/_norm" not in found


def test_groups_are_joined_by_position_where_names_are_missing() -> None:
    def fill(file: h5py.File) -> None:
        layer(file, "layers/layer_normalization", None, ONES)
        layer(file, "layers/layer_normalization_1", None, ONES)

    config = model(node("LayerNormalization", "a"), node("RMSNormalization", "r"), node("LayerNormalization", "b"))
    checkpoint = read(archive({"config.json": json.dumps(config).encode(), "model.weights.h5": hdf5(fill)}))
    found = {str(entry.config["name"]): entry.path for entry in checkpoint.layers}
    assert found == {"a": "layers/layer_normalization", "b": "layers/layer_normalization_1", "r": "r"}


def legacy(file: h5py.File, home: str = "model_weights", suffix: str = "") -> None:
    group = file.require_group(home)
    group.attrs["layer_names0"] = ["x", "ln_2"]
    group.attrs["layer_names1"] = ["dense", "inner"]
    group[f"dense/dense/kernel{suffix}"] = np.ones((D, D), "<f4")
    group[f"ln_2/ln_2/gamma{suffix}"] = ONES
    group[f"ln_2/ln_2/beta{suffix}"] = ONES * 0
    group[f"inner/inner_ln/gamma{suffix}"] = ONES
    group.create_group("x")


def test_legacy_file_with_configuration() -> None:
    config = model(
        node("InputLayer", "x"),
        {"class_name": "LayerNormalization", "config": {"name": "ln_2"}, "inbound_nodes": [[["x", 0, 0, {}]]]},
        {"class_name": "Dense", "config": {"name": "dense"}, "inbound_nodes": [[["ln_2", 0, 0, {"m": ["x", 0, 0]}]]]},
        {"class_name": "Functional", "config": {"name": "inner", "layers": [node("LayerNormalization", "inner_ln")]}},
    )  # fmt: skip

    def fill(file: h5py.File) -> None:
        legacy(file)
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = np.bytes_(b"2.15.0")
        file["optimizer_weights/iter"] = np.float32(1)

    checkpoint = read(hdf5(fill))
    assert checkpoint.version == "2.15.0"
    assert list(checkpoint.tensors) == [
        "ln_2/ln_2/beta",
        "ln_2/ln_2/gamma",
        "dense/dense/kernel",
        "inner/inner_ln/gamma",
    ]
    assert checkpoint.metadata["layer_names"] == ("array", 4)
    found = {entry.path: (entry.class_name, entry.inputs) for entry in checkpoint.layers}
    assert found["ln_2/ln_2"] == ("LayerNormalization", ("x",))
    assert found["dense/dense"] == ("Dense", ("ln_2/ln_2", "x"))
    assert found["inner/inner_ln"] == ("LayerNormalization", ())


def test_legacy_weights_keep_the_order_of_the_layers() -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["layer_names"] = np.array([b"layer_normalization", b"dense_1", b"add"], "S20")
        file.create_group("add")
        file["dense_1/dense_1/kernel:0"] = np.ones((D, D), "<f4")
        file["layer_normalization/layer_normalization/gamma:0"] = ONES

    layers = read(hdf5(fill)).layers
    assert [(entry.path, entry.class_name) for entry in layers] == [
        ("layer_normalization/layer_normalization", "LayerNormalization"),
        ("dense_1/dense_1", "Dense"),
        ("add", "Add"),
    ]


def test_plain_hdf5_and_user_block() -> None:
    values = np.arange(6, dtype=">f8").reshape(2, 3)
    data = hdf5(lambda file: file.__setitem__("any/where", values), userblock_size=1024)
    tensor = read(data).tensors["any/where"]
    assert (tensor.dtype, tensor.shape, tensor.byteorder) == ("F64", (2, 3), ">")
    assert isinstance(tensor.storage, Extent)
    assert data[tensor.storage.start : tensor.storage.stop] == values.tobytes()


def test_attributes_survive_a_user_block_and_the_new_header_format() -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["keras_version"] = "3.0.0"
        for i in range(6):
            file.attrs[f"other{i}"] = i
        weights(file)

    for options in ({"userblock_size": 512}, {"libver": "latest"}, {"libver": "v110"}):
        checkpoint = read(hdf5(fill, **options))
        assert checkpoint.version == "3.0.0"
        assert "layers/layer_normalization" in {entry.path for entry in checkpoint.layers}


@pytest.mark.parametrize(
    ("stored", "label", "dtype"),
    [
        (np.arange(4, dtype="<f2"), None, "F16"),
        (np.arange(4, dtype="i1"), None, "I8"),
        (np.array([True, False]), None, "BOOL"),
        (np.array([0x3F80, 0x4000], "<u2").view("V2"), "bfloat16", "BF16"),
        (np.array([0x3F80, 0x4000], "<u2").view("V2"), None, "BF16"),
    ],
    ids=["f2", "i1", "bool", "bfloat16", "bfloat16 without label"],
)
def test_dtypes(stored: Any, label: str | None, dtype: str) -> None:
    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset("a", data=stored)
        if label:
            dataset.attrs["dtype"] = label

    tensor = read(hdf5(fill)).tensors["a"]
    assert tensor.dtype == dtype
    expected = [1.0, 2.0] if dtype == "BF16" else stored.astype("f4")
    np.testing.assert_array_equal(decode.read(tensor, Limits()), expected)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
def test_chunked_slices(options: dict[str, Any]) -> None:
    values = np.arange(13 * 9, dtype="<f4").reshape(13, 9)
    data = hdf5(lambda file: file.create_dataset("a", data=values, chunks=(4, 5), **options))
    tensor = read(data).tensors["a"]
    assert not isinstance(tensor.storage, Extent)
    for index in ((slice(0, 13), slice(0, 9)), (slice(3, 9), slice(4, 6)), (slice(12, 13), slice(0, 0))):
        np.testing.assert_array_equal(tensor.storage.read(index), values[index])


def test_compact_and_empty_datasets() -> None:
    def fill(file: h5py.File) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        dataset = h5py.h5d.create(file.id, b"c", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((D,)), plan)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, ONES)
        file["e"] = np.zeros((0, 3), "<f4")

    tensors = read(hdf5(fill)).tensors
    np.testing.assert_array_equal(decode.read(tensors["c"], Limits()), ONES)
    assert (tensors["e"].shape, tensors["e"].nbytes) == ((0, 3), 0)


def test_merge_of_shards() -> None:
    first = read(hdf5(lambda file: layer(file, "layers/dense", "up", np.ones((D, D), "<f4"))))
    second = read(hdf5(lambda file: layer(file, "layers/layer_normalization", "ln", ONES)))
    whole = keras.merge([first, second])
    assert set(whole.tensors) == {"layers/dense/vars/0", "layers/layer_normalization/vars/0"}
    assert [entry.class_name for entry in whole.layers] == ["Dense", "LayerNormalization"]
    assert len(whole.sources) == 2
    with pytest.raises(FormatError, match="two shards"):
        keras.merge([first, first])


def test_shards_inside_an_archive() -> None:
    parts = {
        "model_00000.weights.h5": hdf5(lambda file: layer(file, "layers/dense", "up", np.ones((D, D), "<f4"))),
        "model_00001.weights.h5": hdf5(lambda file: layer(file, "layers/layer_normalization", "ln", ONES)),
    }
    assert len(read(archive(parts)).tensors) == 2


def test_header_hash_depends_on_content_only() -> None:
    stored, deflated = read(archive(MEMBERS)), read(archive(MEMBERS, zipfile.ZIP_DEFLATED))
    assert stored.header_sha256 == deflated.header_sha256
    assert stored.header_sha256 != read(MEMBERS["model.weights.h5"]).header_sha256


# --- hostile files -----------------------------------------------------------------------------------------------


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(D,), dtype="<f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(D,))
    file.create_virtual_dataset("bad", layout)


def _bomb(file: h5py.File) -> None:
    dataset = file.create_dataset("bad", shape=(D,), dtype="<f4", chunks=(D,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(4096 * 9), 9))


REFUSED: dict[str, tuple[str, Callable[[h5py.File], Any]]] = {
    "soft link": ("[link]", lambda f: f.__setitem__("bad", h5py.SoftLink("/good"))),
    "external link": ("[link]", lambda f: f.__setitem__("bad", h5py.ExternalLink("/etc/hostname", "/"))),
    "cycle": ("[cycle]", lambda f: f.create_group("bad").__setitem__("again", f["bad"])),
    "external storage": (
        "[external]",
        lambda f: f.create_dataset("bad", (D,), "<f4", external=[("/etc/hostname", 0, 4 * D)]),
    ),
    "virtual": ("[virtual]", _virtual),
    "sparse contiguous": ("[no-data]", lambda f: f.create_dataset("bad", (1 << 40,), "<f4")),
    "sparse chunks": ("[no-data]", lambda f: f.create_dataset("bad", (1 << 20,), "<f4", chunks=(1 << 16,))),
    "many chunks": ("[many-chunks]", lambda f: f.create_dataset("bad", (1 << 40,), "<f4", chunks=(1,))),
    "large chunk": ("[large-chunk]", lambda f: f.create_dataset("bad", (1 << 29,), "<f4", chunks=(1 << 28,))),
    "lzf": ("[filter]", lambda f: f.create_dataset("bad", data=np.ones(64, "<f4"), compression="lzf")),
    "strings": ("[not-numbers]", lambda f: f.__setitem__("bad", "pickle")),
    "opaque": ("[opaque-dtype]", lambda f: f.__setitem__("bad", np.array([b"\x80\x04N."], "V4"))),
    "compound": ("[opaque-dtype]", lambda f: f.__setitem__("bad", np.zeros(3, [("a", "<f4"), ("b", "<i4")]))),
    "null": ("[empty]", lambda f: f.__setitem__("bad", h5py.Empty("<f4"))),
    "long path": ("[bad-name]", lambda f: f.create_group("/".join(["n" * 250] * 20))),
}


@pytest.mark.parametrize(("code", "fill"), REFUSED.values(), ids=REFUSED)
def test_refused_members_are_named_and_the_rest_is_read(code: str, fill: Callable[[h5py.File], Any]) -> None:
    def with_good(file: h5py.File) -> None:
        file["good"] = ONES
        fill(file)

    checkpoint = read(hdf5(with_good))
    assert list(checkpoint.tensors) == ["good"]
    assert any(code in warning for warning in checkpoint.warnings)
    with pytest.raises(FormatError, match="nothing could be read"):
        read(hdf5(lambda file: fill(file)))


def test_inflating_chunk_is_bounded() -> None:
    data = hdf5(_bomb)
    with pytest.raises(FormatError, match="bad-chunk"):
        decode.read(read(data, Limits()).tensors["bad"], Limits())


def test_many_refusals_are_counted_not_listed() -> None:
    def fill(file: h5py.File) -> None:
        file["good"] = ONES
        for i in range(50):
            file[f"bad{i}"] = h5py.SoftLink("/good")

    warnings = read(hdf5(fill)).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "30 more members were skipped"


def test_limits() -> None:
    def deep(file: h5py.File) -> None:
        file["/".join(["g"] * 10 + ["x"])] = ONES

    with pytest.raises(LimitExceeded, match="depth"):
        read(hdf5(deep), Limits(nesting=9))
    with pytest.raises(LimitExceeded, match="members"):
        read(hdf5(deep), Limits(tensors=5))
    zeros = archive({"config.json": b"{}", "model.weights.h5": bytes(1 << 22)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(LimitExceeded, match="ratio"):
        read(zeros)
    with pytest.raises(LimitExceeded, match="bytes of an archive member"):
        read(archive(MEMBERS), Limits(value_bytes=10))


def test_bad_length_of_a_string_is_not_allocated() -> None:
    """HDF5 itself allocates and clears 4 GB for this file before it fails."""
    data = bytearray(hdf5(lambda f: (f.attrs.__setitem__("keras_version", "3.15.1"), f.__setitem__("x", ONES))))
    at = data.find(b"\x06\0\0\0", data.find(b"keras_version\0"))
    data[at : at + 4] = b"\xf0\xff\xff\xff"
    with pytest.raises(FormatError, match="bad-heap"):
        read(bytes(data))


def test_heap_with_free_space_of_no_size_ends() -> None:
    """HDF5 2.0 loops for ever when it reads a string from this file."""
    data = bytearray(hdf5(lambda f: (f.attrs.__setitem__("keras_version", "3.15.1"), f.__setitem__("x", ONES))))
    at = data.find(b"GCOL") + 16
    data[at : at + 2] = b"\0\0"  # the first object becomes free space
    data[at + 8 : at + 16] = bytes(8)  # of size zero
    with pytest.raises(FormatError, match="bad-heap"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"saved_model.pb": b""}, "SavedModel"),
        ({"word/document.xml": b"", "[Content_Types].xml": b""}, "Office"),
        ({"config.json": b"{}", "model.weights.npz": b""}, "pickled"),
        ({"readme.txt": b""}, "holds no model of Keras"),
    ],
)
def test_other_archives_are_named(members: dict[str, bytes], words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        read(archive(members))
    assert caught.value.code == "unsupported"


def test_bad_configuration_is_a_warning() -> None:
    checkpoint = read(archive({**MEMBERS, "config.json": b"{" * 100_000}))
    assert checkpoint.config is None
    assert len(checkpoint.warnings) == 1
    assert len(checkpoint.tensors) == 5


def test_deeply_nested_configuration_ends() -> None:
    config: Any = node("Dense", "up")
    for _ in range(150):
        config = {"class_name": "Functional", "config": {"name": "f", "layers": [config]}}
    checkpoint = read(archive({**MEMBERS, "config.json": json.dumps(config).encode()}))
    assert len(checkpoint.tensors) == 5


def test_names_of_classes() -> None:
    pairs = {
        "LayerNormalization": "layer_normalization",
        "RMSNormalization": "rms_normalization",
        "keras_hub>Qwen3_5LayerNorm": "qwen3_5_layer_norm",
        "GPT2Backbone": "gpt2_backbone",
        "MultiHeadAttention": "multi_head_attention",
    }
    assert {name: snake_case(name) for name in pairs} == pairs
    assert class_of("layer_normalization_12") == "LayerNormalization"
    assert class_of("my_layer") is None


@pytest.mark.parametrize("group", ["qwen3_5_decoder", "llama_layer_norm", "t5_layer_norm", "gemma3n_block", "my_block"])
def test_group_names_become_classes_that_give_the_same_group_name(group: str) -> None:
    (found,) = read(hdf5(lambda file: layer(file, f"layers/{group}_3", "x", ONES))).layers
    assert snake_case(found.class_name) == group


def test_local_file_is_released(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(archive(MEMBERS, zipfile.ZIP_DEFLATED))
    source = FileSource(path)
    checkpoint = keras.read(source, Limits())
    checkpoint.close()
    with pytest.raises(SourceError):
        source.read_at(0, 1)


# --- laws --------------------------------------------------------------------------------------------------------

SAMPLES = {
    "weights": hdf5(weights),
    "legacy": hdf5(legacy),
    "stored": archive(MEMBERS),
    "deflated": archive(MEMBERS, zipfile.ZIP_DEFLATED),
    "chunked": hdf5(
        lambda f: f.create_dataset("a", data=np.ones((16, 16), "<f4"), chunks=(4, 16), compression="gzip"),
        libver="latest",
    ),
}


def _read_everything(data: bytes) -> None:
    checkpoint = read(data)
    for tensor in itertools.islice(checkpoint.tensors.values(), 50):
        if decode.is_decodable(tensor.dtype):
            decode.read(tensor, Limits())


@pytest.mark.parametrize("sample", SAMPLES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_an_answer_or_our_error(sample: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[sample])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1) | st.integers(0, min(len(damaged) - 1, 2000)))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with contextlib.suppress(NormsniffError):
        _read_everything(bytes(damaged))
