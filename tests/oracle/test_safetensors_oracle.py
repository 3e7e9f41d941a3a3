"""Agreement with the safetensors library: what it accepts and refuses, and what it reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.errors import NormsniffError
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import BytesSource

safetensors = pytest.importorskip("safetensors")
save = pytest.importorskip("safetensors.numpy").save

T = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}


def pack(header: str, data: bytes) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + data


def reference_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except Exception:  # noqa: BLE001  # the library raises its own error and TypeErrors
        return False
    return True


def we_accept(data: bytes) -> bool:
    try:
        return read_checkpoint(BytesSource(data), Limits()).format == "safetensors"
    except NormsniffError:
        return False


def one(**changes: Any) -> str:
    return json.dumps({"x": {**T, **changes}})


AGREED = [
    ("plain", one(), b"\0"),
    ("scalar", one(shape=[]), b"\0"),
    ("zero-sized", one(shape=[0], data_offsets=[0, 0]), b""),
    ("no tensors", "{}", b""),
    ("metadata", '{"__metadata__":{"a":"b"}}', b""),
    ("space before", " " + one(), b"\0"),
    ("newline after", one() + "\n\n", b"\0"),
    ("unknown field", one(extra=1), b"\0"),
    ("F4", one(dtype="F4", shape=[2]), b"\0"),
    ("F4, odd", one(dtype="F4", shape=[1]), b"\0"),
    ("F6", one(dtype="F6_E2M3", shape=[4], data_offsets=[0, 3]), b"\0\0\0"),
    ("NUL padding", one() + "\0", b"\0"),
    ("lower case", one(dtype="u8"), b"\0"),
    ("unknown dtype", one(dtype="Q4_0"), b"\0"),
    ("negative", one(shape=[-1]), b"\0"),
    ("float", one(shape=[1.0]), b"\0"),
    ("bool", one(shape=[True]), b"\0"),
    ("too large an integer", one(shape=[1 << 64]), b"\0"),
    ("overflow", one(shape=[1 << 32, 1 << 32], data_offsets=[0, 0]), b""),
    ("hole", one(data_offsets=[1, 2]), b"\0\0"),
    ("size does not fit", one(data_offsets=[0, 2]), b"\0\0"),
    ("trailing", one(), b"\0\0"),
    ("cut off", one(), b""),
    ("metadata with a number", '{"__metadata__":{"a":1}}', b""),
    ("array", "[]", b""),
    ("duplicate key of an entry", '{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"),
]

# The library accepts these, we do not.
STRICTER = [
    ("duplicate tensor", f'{{"x":{json.dumps(T)},"x":{json.dumps(T)}}}', b"\0"),  # two readers could see two models
    ("duplicate metadata key", '{"__metadata__":{"a":"b","a":"c"}}', b""),
    ("65 axes", one(shape=[1] * 65), b"\0"),  # no array library holds that
]


@pytest.mark.parametrize(("header", "data"), [row[1:] for row in AGREED], ids=[row[0] for row in AGREED])
def test_same_verdict(header: str, data: bytes) -> None:
    assert we_accept(pack(header, data)) == reference_accepts(pack(header, data))


@pytest.mark.parametrize(("header", "data"), [row[1:] for row in STRICTER], ids=[row[0] for row in STRICTER])
def test_stricter_on_purpose(header: str, data: bytes) -> None:
    assert reference_accepts(pack(header, data))
    assert not we_accept(pack(header, data))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_never_laxer_than_the_library(data: st.DataObject) -> None:
    valid = bytearray(
        pack(json.dumps({"a": T, "b": {"dtype": "F16", "shape": [2, 1], "data_offsets": [1, 5]}}), b"\0" * 5)
    )
    for _ in range(data.draw(st.integers(1, 3))):
        valid[data.draw(st.integers(0, len(valid) - 1))] = data.draw(st.integers(0, 255))
    if we_accept(bytes(valid)):
        assert reference_accepts(bytes(valid))


def test_values_of_every_dtype_that_it_writes() -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        kind: (random.normal(size=(3, 4)) * 10).astype(kind)
        for kind in ("f4", "f2", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?")
    }
    arrays["bf16"] = random.normal(size=(3, 4)).astype(ml_dtypes.bfloat16)
    arrays["empty"] = np.zeros((0, 4), "f4")
    arrays["scalar"] = np.array(2.5, "f4")
    checkpoint = read_checkpoint(BytesSource(save(arrays, {"k": "v"})), Limits())
    assert checkpoint.metadata == {"k": "v"}
    assert set(checkpoint.tensors) == set(arrays)
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(decode.read(tensor, Limits()), arrays[name].astype(np.float32))


def test_the_file_reader_agrees(tmp_path: Path) -> None:
    arrays = {f"layer.{i}.weight": np.full((i, 2), i, "f4") for i in range(20)}
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(arrays))
    checkpoint = read_checkpoint(BytesSource(path.read_bytes()), Limits())
    with safetensors.safe_open(path, framework="np") as reference:
        assert set(reference.keys()) == set(checkpoint.tensors)
        for name in reference.keys():  # noqa: SIM118  # not a dictionary
            assert tuple(reference.get_slice(name).get_shape()) == checkpoint.tensors[name].shape
