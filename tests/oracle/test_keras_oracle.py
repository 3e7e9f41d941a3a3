"""Our reading of HDF5 against h5py: the same names, shapes and values, without h5py reading any value."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest

from normsniff import decode
from normsniff.formats.keras import reader as keras
from normsniff.limits import Limits
from normsniff.source.local import BytesSource

OPTIONS: list[dict[str, Any]] = [
    {},
    {"libver": "latest"},
    {"libver": "earliest", "userblock_size": 2048},
]
STORAGE: list[dict[str, Any]] = [
    {},
    {"chunks": True},
    {"chunks": (5, 7), "compression": "gzip"},
    {"chunks": (3, 100), "compression": 9, "shuffle": True},
    {"chunks": (64, 1), "fletcher32": True},
    {"chunks": (16, 16), "maxshape": (None, None)},
]
DTYPES = ["<f4", ">f4", "<f2", "<f8", "i1", "<u2", ">i4", "?"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("storage", STORAGE, ids=str)
def test_every_tensor_equals_what_h5py_returns(options: dict[str, Any], storage: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        for i, dtype in enumerate(DTYPES):
            values = (rng.standard_normal((64, 100)) * 50).astype(dtype)
            file.create_dataset(f"layers/dense_{i}/vars/0", data=values, **storage)
        file["scalar"] = np.float32(3)
    checkpoint = keras.read(BytesSource(buffer.getvalue()), Limits())
    assert checkpoint.warnings == ()
    with h5py.File(buffer, "r") as file:
        expected: dict[str, Any] = {}
        file.visititems(
            lambda name, item: expected.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    assert set(checkpoint.tensors) == set(expected)
    for name, values in expected.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == values.shape
        np.testing.assert_array_equal(decode.read(tensor, Limits()), values.astype(np.float32))


@pytest.mark.parametrize("storage", STORAGE, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_sampled_vectors_are_those_of_the_matrix(storage: dict[str, Any], axis: int) -> None:
    values = np.random.default_rng(1).standard_normal((64, 100)).astype("<f4")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("kernel", data=values, **storage)
    tensor = keras.read(BytesSource(buffer.getvalue()), Limits()).tensors["kernel"]
    found = np.concatenate(list(decode.vectors(tensor, axis, Limits())))
    expected = np.moveaxis(values, axis, -1)
    np.testing.assert_array_equal(found[found[:, 0].argsort()], expected[expected[:, 0].argsort()])


@pytest.mark.parametrize("attribute", ["layer_names", "layer_names0"])
@pytest.mark.parametrize(
    "names", [["a", "bcd", "é" * 40], np.array([b"a", b"bc"], "S7"), ["x" * 10] * 300], ids=range(3)
)
def test_text_attributes_equal_what_h5py_returns(attribute: str, names: Any) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["backend"] = "tensorflow"
        file.attrs[attribute] = names
        file["a/a/kernel"] = np.ones((4, 4), "<f4")
    checkpoint = keras.read(BytesSource(buffer.getvalue()), Limits())
    with h5py.File(buffer, "r") as file:
        expected = [n.decode() if isinstance(n, bytes) else n for n in file.attrs[attribute]]
    assert checkpoint.metadata["layer_names"] == ("array", len(expected))
    assert checkpoint.metadata["backend"] == "tensorflow"
    paths = {entry.path for entry in checkpoint.layers} - {"a/a"}  # of the tensor
    assert paths == set(expected) - {"a"}
