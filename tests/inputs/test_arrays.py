from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from normsniff import decode
from normsniff.checkpoint import TensorInfo
from normsniff.dtypes import UNITS
from normsniff.errors import FormatError, LimitExceeded
from normsniff.inputs.arrays import from_arrays
from normsniff.limits import Limits
from normsniff.source.views import Extent


def read_part(tensor: TensorInfo, index: tuple[slice, ...]) -> np.ndarray[Any, Any]:
    assert not isinstance(tensor.storage, Extent)
    return tensor.storage.read(index)


def test_numpy_arrays() -> None:
    kinds: dict[str, Any] = {
        "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32,
        "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
        "BF16": ml_dtypes.bfloat16, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    }  # fmt: skip
    arrays = {dtype: np.ones((2, 3)).astype(kind) for dtype, kind in kinds.items()}
    checkpoint = from_arrays(arrays)
    assert checkpoint.format == "arrays"
    assert checkpoint.sources == ()
    assert checkpoint.file_size == checkpoint.bytes_read == 0
    assert list(checkpoint.tensors) == list(arrays)
    for dtype, tensor in checkpoint.tensors.items():
        assert tensor.dtype == dtype
        assert tensor.dtype in UNITS
        assert tensor.shape == (2, 3)
        assert tensor.nbytes == arrays[dtype].nbytes
        np.testing.assert_array_equal(decode.read(tensor, Limits()), np.ones((2, 3), np.float32))
    checkpoint.close()


def test_byte_order_and_strides_of_the_array_count() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    checkpoint = from_arrays({"big": array, "transposed": array.T, "scalar": np.float32(2.5)})
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["big"], Limits()), array)
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["transposed"], Limits()), array.T)
    assert float(decode.read(checkpoint.tensors["scalar"], Limits())) == 2.5
    np.testing.assert_array_equal(read_part(checkpoint.tensors["transposed"], np.s_[1:3, 0:2]), array.T[1:3, :2])


def test_what_is_no_array_is_left_out_with_a_warning() -> None:
    checkpoint = from_arrays(
        {
            "w": np.ones(2),
            "epoch": 3,
            "name": "x",
            "list": [1.0],
            "text": np.array(["a"]),
            "date": np.array(["2020"], "M8[Y]"),
        }
    )
    assert list(checkpoint.tensors) == ["w"]
    (warning,) = checkpoint.warnings
    assert warning == "5 entries are no arrays and were left out: epoch, name, list, text, date"


def test_python_objects_are_refused() -> None:
    with pytest.raises(FormatError) as caught:
        from_arrays({"w": np.array([object()], dtype=object)})
    assert caught.value.code == "object-array"


def test_nested_mappings_are_flattened() -> None:
    checkpoint = from_arrays({"params": {"ln": {"scale": np.ones(2)}, "w": np.ones(3)}, "step": 1})
    assert list(checkpoint.tensors) == ["params.ln.scale", "params.w"]
    assert checkpoint.tensors["params.w"].name == "params.w"


def test_hostile_mappings() -> None:
    loop: dict[str, Any] = {"w": np.ones(1)}
    loop["loop"] = loop
    with pytest.raises(FormatError, match="too-deep"):
        from_arrays(loop)
    with pytest.raises(FormatError, match="duplicate-key"):
        from_arrays({"a": {"b": np.ones(1)}, "a.b": np.ones(1)})
    with pytest.raises(LimitExceeded):
        from_arrays({str(i): np.ones(1) for i in range(5)}, Limits(tensors=4))


class Device:
    """Like a CuPy array: no implicit copy, and `get` brings what was sliced to the host."""

    copied = 0

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index: Any) -> Device:
        return Device(self._array[index])

    def __array__(self, *_: Any, **__: Any) -> np.ndarray[Any, Any]:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def get(self) -> np.ndarray[Any, Any]:
        Device.copied += self._array.size
        return self._array


def test_only_what_is_read_leaves_the_device() -> None:
    Device.copied = 0
    array = np.arange(40_000, dtype=np.float32).reshape(400, 100)
    tensor = from_arrays({"w": Device(array)}).tensors["w"]
    assert Device.copied == 0, "describing copies nothing"
    np.testing.assert_array_equal(read_part(tensor, np.s_[10:12, 0:100]), array[10:12])
    assert Device.copied == 200


class Capsule:
    """Knows DLPack only, as minimal array libraries do; cannot be sliced."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, "float32"

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_dlpack_alone_is_enough() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = from_arrays({"w": Capsule(array)}).tensors["w"]
    np.testing.assert_array_equal(decode.read(tensor, Limits()), array)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    mapping = {
        "parameter": torch.nn.Parameter(base),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "float8": base.to(torch.float8_e4m3fn),
        "int8": base.to(torch.int8),
        "transposed": base.T,
        "scalar": torch.tensor(2.0),
    }
    checkpoint = from_arrays(mapping)
    assert [t.dtype for t in checkpoint.tensors.values()] == ["F32", "F16", "BF16", "F8_E4M3", "I8", "F32", "F32"]
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(decode.read(tensor, Limits()), mapping[name].detach().float().numpy())
    with pytest.raises(FormatError):
        decode.read(from_arrays({"meta": torch.empty(3, device="meta")}).tensors["meta"], Limits())


def test_a_torch_module_state() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4))
    checkpoint = from_arrays(module.state_dict())
    assert checkpoint.tensors["0.weight"].shape == (4,)
    assert checkpoint.tensors["1.num_batches_tracked"].dtype == "I64"
    assert not checkpoint.warnings
