"""Every array that `normsniff.norms` gives of a fixture, against the library that its format comes from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import normsniff
from tests.helpers.manifest import Fixture, models, name

Arrays = Mapping[str, NDArray[Any]]


def of_safetensors(path: Path) -> Arrays:
    files = sorted(path.parent.glob("*.safetensors")) if path.name.endswith(".index.json") else [path]
    return {k: v for file in files for k, v in safetensors.numpy.load_file(file).items()}


def of_gguf(path: Path) -> Arrays:
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in tensors if len(t.shape) == 1}


def of_onnx(path: Path) -> Arrays:
    model = onnx.load(path)
    made = [(node.output[0], one.t) for node in model.graph.node for one in node.attribute if one.name == "value"]
    stored = [(one.name, one) for one in model.graph.initializer]
    return {key: onnx.numpy_helper.to_array(one) for key, one in [*stored, *made]}


def of_hdf5(path: Path) -> Arrays:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as inner, h5py.File(inner) as file:
            return _datasets(file)
    with h5py.File(path) as file:
        return _datasets(file)


def _datasets(file: Any) -> Arrays:
    found: dict[str, NDArray[Any]] = {}

    def keep(key: str, one: Any) -> None:
        if isinstance(one, h5py.Dataset):
            found[key.removeprefix("model_weights/")] = one[()]  # where older files keep the weights

    file.visititems(keep)
    return found


ORACLES: Mapping[str, Callable[[Path], Arrays]] = {
    ".safetensors": of_safetensors, ".json": of_safetensors, ".gguf": of_gguf, ".onnx": of_onnx, ".h5": of_hdf5,
    ".keras": of_hdf5,
}  # fmt: skip
SINGLE = [one for one in models() if one.path.suffix in ORACLES and ".split." not in one.path.name]


@pytest.mark.parametrize("fixture", SINGLE, ids=name)
def test_arrays_of_norms_are_what_the_library_of_the_format_reads(fixture: Fixture) -> None:
    expected = ORACLES[fixture.path.suffix](fixture.path)
    with normsniff.norms(fixture.path, dtype=np.float64) as norms:
        for norm in norms:
            for tensor, given in ((norm.scale_tensor, norm.stored), (norm.shift_tensor, norm.shift)):
                if tensor is not None:
                    assert given is not None
                    np.testing.assert_array_equal(given.reshape(-1), expected[tensor].astype(np.float64).reshape(-1))
            if norm.stored is not None and norm.scale is not None:
                np.testing.assert_array_equal(norm.scale, norm.stored + norm.offset)


def test_the_oracles_see_most_fixtures() -> None:
    assert len({one.path.suffix for one in SINGLE}) >= 5
    assert len(SINGLE) > 0.7 * len(models())
