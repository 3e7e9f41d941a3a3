"""Every tensor of every fixture and of every real model equals what the reference library returns."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - safetensors and numpy know bfloat16 only once it is imported
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from tests.helpers.manifest import Fixture, models, name
from tests.helpers.real_models import REAL_MODELS

Tensors = Iterator[tuple[str, NDArray[Any]]]
LIMITS = Limits(tensor_bytes=2**30)


def from_safetensors(path: Path) -> Tensors:
    from safetensors import safe_open

    files = sorted(path.parent.glob("model-*.safetensors")) if path.suffix == ".json" else [path]
    for file in files:
        with safe_open(file, "np") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a mapping
                yield key, opened.get_tensor(key)


def from_gguf(path: Path) -> Tensors:
    from gguf import GGUFReader, quants

    pattern = path.name.replace("00001-of", "*-of")
    for file in sorted(path.parent.glob(pattern)):
        for tensor in GGUFReader(file).tensors:
            values = quants.dequantize(tensor.data, tensor.tensor_type)
            yield tensor.name, values.reshape([int(n) for n in reversed(tensor.shape)])


def from_onnx(path: Path) -> Tensors:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def from_keras(path: Path) -> Tensors:
    import h5py

    opened: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            opened = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(opened, "r") as file:
        found: list[tuple[str, NDArray[Any]]] = []

        def visit(key: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                found.append((key.removeprefix("model_weights/"), node[()]))

        file.visititems(visit)
    yield from (pair for pair in found if not pair[0].startswith("optimizer"))


READERS: dict[str, Callable[[Path], Tensors]] = {
    "safetensors": from_safetensors,
    "GGUF": from_gguf,
    "ONNX": from_onnx,
    "Keras": from_keras,
}


def compare(path: Path) -> None:
    checkpoint: Checkpoint = open_source(path, LIMITS)
    try:
        expected = dict(READERS[checkpoint.format](path))
        stored = {key: msgspec.structs.replace(t, affine=None) for key, t in checkpoint.tensors.items()}
        # small constants of a graph are decoded with it and need not be tensors; nothing else may be missing
        kept = checkpoint.graph.constants if checkpoint.graph is not None else {}
        assert {key for key in expected if expected[key].size} - set(stored) <= set(kept)
        assert set(stored) <= set(expected)
        assert stored
        for key, tensor in stored.items():
            assert tensor.shape == expected[key].shape, key
            values = decode.read(tensor, LIMITS)
            assert np.array_equal(values, expected[key].astype(np.float32), equal_nan=True), key
    finally:
        checkpoint.close()


@pytest.mark.parametrize("fixture", models(), ids=name)
def test_fixture(fixture: Fixture) -> None:
    compare(fixture.path)


@pytest.mark.models
@pytest.mark.parametrize("short", REAL_MODELS)
def test_real_model(short: str, real_model: Callable[[str], Path]) -> None:
    compare(real_model(short))
