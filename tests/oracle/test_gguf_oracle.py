"""Our GGUF reader against ggml's own Python package: names, shapes, types, places and bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normsniff.checkpoint import Checkpoint
from normsniff.dtypes import UNITS
from normsniff.formats import gguf as ours
from normsniff.limits import Limits
from normsniff.source.local import FileSource
from normsniff.source.views import Extent

gguf = pytest.importorskip("gguf")

QUANTISED = ["BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def write(path: Path, big_endian: bool = False, alignment: int | None = None, version: int = 3) -> Path:
    """Write a small model with the reference writer; version 2 differs from 3 in nothing but the number."""
    rng = np.random.default_rng(0)
    endian = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, "gpt2", endianess=endian)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_layer_norm_eps(1e-5)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_int64("test.negative", -(2**40))
    writer.add_float64("test.double", 0.1)
    writer.add_token_list(["<s>", "", "é", "x" * 300])
    writer.add_token_scores([0.0, -1.0, -2.0, -3.0])
    writer.add_array("test.flags", [True, False, True])
    writer.add_tensor("vector", rng.standard_normal(10, dtype=np.float32))
    writer.add_tensor("matrix", rng.standard_normal((3, 64), dtype=np.float32))
    writer.add_tensor("half", rng.standard_normal((5, 7)).astype(np.float16))
    writer.add_tensor("cube", rng.standard_normal((2, 3, 5), dtype=np.float32))
    writer.add_tensor("four", rng.standard_normal((2, 3, 2, 32), dtype=np.float32))
    writer.add_tensor("five", rng.standard_normal((2, 3, 2, 2, 8), dtype=np.float32))  # a kernel of a video model
    for dtype in ("int8", "int16", "int32", "int64", "float64"):
        writer.add_tensor(dtype, rng.integers(-100, 100, (3, 3)).astype(dtype))
    for kind in () if big_endian else QUANTISED:
        qtype = gguf.GGMLQuantizationType[kind]
        values = rng.standard_normal((4, 96), dtype=np.float32)
        writer.add_tensor(kind, gguf.quants.quantize(values, qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != 3:
        with path.open("r+b") as file:
            file.seek(4)
            file.write(version.to_bytes(4, "big" if big_endian else "little"))
    return path


def compare(checkpoint: Checkpoint, path: Path) -> None:
    reference = gguf.GGUFReader(path)
    assert [t.name for t in reference.tensors] == list(checkpoint.tensors)
    for theirs in reference.tensors:
        tensor = checkpoint.tensors[theirs.name]
        assert isinstance(tensor.storage, Extent)
        assert tensor.dtype == theirs.tensor_type.name
        assert tensor.shape == tuple(reversed(theirs.shape.tolist()))
        assert tensor.size == theirs.n_elements
        assert (tensor.storage.start, tensor.nbytes) == (theirs.data_offset, theirs.n_bytes)
        assert tensor.byteorder == (">" if reference.byte_order == "S" else "<")
        stored = checkpoint.sources[0].read_at(tensor.storage.start, tensor.nbytes)
        assert bytes(stored) == theirs.data.tobytes()
    fields = {key: field for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(checkpoint.metadata)
    for key, field in fields.items():
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            assert checkpoint.metadata[key] == ("array", len(field.data))
        else:
            assert checkpoint.metadata[key] == field.contents()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("alignment", [None, 64])
def test_written_files(tmp_path: Path, version: int, big_endian: bool, alignment: int | None) -> None:
    path = write(tmp_path / "tiny.gguf", big_endian=big_endian, alignment=alignment, version=version)
    checkpoint = ours.read(FileSource(path), Limits())
    assert checkpoint.version == str(version)
    assert checkpoint.warnings == ()
    assert len(checkpoint.tensors) == (11 if big_endian else 17)
    compare(checkpoint, path)


def test_split_files(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gpt2", split_max_tensors=2)
    tensors = {f"blk.{i}.weight": np.full((2, 4), i, np.float32) for i in range(5)}
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    paths = sorted(tmp_path.glob("model-0000?-of-00003.gguf"))
    assert len(paths) == 3
    parts = [ours.read(FileSource(path), Limits()) for path in paths]
    for part, path in zip(parts, paths, strict=True):
        compare(part, path)
    merged = ours.merge(parts[::-1])
    assert merged.warnings == ()
    assert merged.metadata["general.architecture"] == "gpt2"
    assert list(merged.tensors) == list(tensors)
    for name, values in tensors.items():
        storage = merged.tensors[name].storage
        assert isinstance(storage, Extent)
        assert bytes(storage.source.read_at(storage.start, storage.stop - storage.start)) == values.tobytes()


@pytest.mark.parametrize("kind", list(gguf.GGMLQuantizationType), ids=lambda kind: kind.name)
def test_block_sizes(kind: int) -> None:
    qtype = gguf.GGMLQuantizationType(kind)
    assert ours.TYPES[int(qtype)] == qtype.name
    assert UNITS[qtype.name] == gguf.GGML_QUANT_SIZES[qtype]


@pytest.mark.models
def test_real_model(real_model: Callable[[str], Path]) -> None:
    path = real_model("smollm2")
    checkpoint = ours.read(FileSource(path), Limits())
    assert checkpoint.warnings == ()
    compare(checkpoint, path)
