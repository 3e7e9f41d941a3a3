"""The generated classes of TensorFlow Lite's schema (package `tflite`) read the same file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from normsniff.formats import read_checkpoint
from normsniff.formats.tflite.ops import NAMES
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.tflite_files import flatbuffer, transformer


@pytest.fixture(scope="module")
def tflite() -> Any:
    return pytest.importorskip("tflite")


@pytest.mark.parametrize("quantised", [False, True])
def test_every_tensor_is_where_the_schema_says(tflite: Any, quantised: bool) -> None:
    data = flatbuffer(transformer("LayerNorm", quantised=quantised))
    checkpoint = read_checkpoint(BytesSource(data), Limits())
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    stored = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength():
            stored[tensor.Name().decode()] = (tensor, buffer.DataAsNumpy())
    assert stored.keys() >= checkpoint.tensors.keys()
    assert {"table", "up", "down", "head"} <= checkpoint.tensors.keys()
    for name, ours in checkpoint.tensors.items():
        theirs, raw = stored[name]
        assert isinstance(ours.storage, Extent)
        assert ours.shape == tuple(theirs.ShapeAsNumpy())
        assert bytes(raw) == data[ours.storage.start : ours.storage.stop]
        quantisation = theirs.Quantization()
        if ours.affine is None:
            assert quantisation is None
        else:
            assert ours.affine.axis == quantisation.QuantizedDimension()
            assert ours.affine.scale.shape == quantisation.ScaleAsNumpy().shape


def test_operator_codes_are_those_of_the_schema(tflite: Any) -> None:
    codes = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    same = {code: ours for code, ours in NAMES.items() if codes[code].replace("_", "").lower() == ours.lower()}
    renamed = {codes[code]: ours for code, ours in NAMES.items() if code not in same}
    assert len(same) > 20
    assert renamed["MEAN"] == "ReduceMean"
    assert renamed["FULLY_CONNECTED"] == "Gemm"
    assert renamed["MAXIMUM"] == "Max"
    assert renamed["STABLEHLO_COMPOSITE"] == "Composite"


def test_types_are_those_of_the_schema(tflite: Any) -> None:
    from normsniff.formats.tflite.reader import _DTYPES

    names = {value: name for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
    known = {code: dtype for code, dtype in _DTYPES.items() if code in names}
    words = {"F": "FLOAT", "I": "INT", "U": "UINT", "C": "COMPLEX", "BF": "BFLOAT"}
    for code, dtype in known.items():
        letters = dtype.rstrip("0123456789")
        assert names[code] == words.get(letters, letters) + dtype[len(letters) :]
    assert len(known) >= np.int64(16)
