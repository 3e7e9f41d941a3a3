from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

RANDOM = np.random.default_rng(0)
W: NDArray[np.float32] = RANDOM.normal(size=(40, 30)).astype(np.float32)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(save: Callable[..., None] = np.savez, **arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def header(text: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    layout = "<H" if version == 1 else "<I"
    size = struct.pack(layout, len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + data


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m"), limits or Limits())


def test_one_array_is_a_byte_range() -> None:
    source = BytesSource(npy(W))
    checkpoint = read_checkpoint(source, Limits())
    assert (checkpoint.format, checkpoint.version) == ("NumPy", "npy")
    assert source.bytes_read <= 10_012, "what a header can take, and nothing else"
    assert checkpoint.tensors["array"].storage == Extent(source, 128, 128 + W.nbytes)
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["array"], Limits()), W)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_archives(save: Callable[..., None]) -> None:
    arrays = {"a/b": W, "v": W[0], "fortran": np.asfortranarray(W), "half": W.astype(">f2"), "s": np.float64(3.0)}
    checkpoint = read(npz(save, **arrays))
    assert checkpoint.version == "npz"
    assert list(checkpoint.tensors) == list(arrays)
    assert not checkpoint.warnings
    for name, array in arrays.items():
        found = checkpoint.tensors[name]
        assert found.shape == array.shape
        np.testing.assert_array_equal(decode.read(found, Limits()), np.asarray(array, np.float32))
        for axis in range(array.ndim):
            vectors = np.concatenate(list(decode.vectors(found, axis, Limits())))
            expected = np.moveaxis(np.asarray(array, np.float32), axis, -1).reshape(-1, array.shape[axis])
            np.testing.assert_array_equal(np.sort(vectors, axis=0), np.sort(expected, axis=0))


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8", ">u2"]
)
def test_every_type(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.testing.assert_array_equal(
        decode.read(read(npy(array), Limits()).tensors["array"], Limits()), array.astype(np.float32)
    )


def test_bfloat16_is_two_bytes_without_a_type() -> None:
    import ml_dtypes

    array = W.astype(ml_dtypes.bfloat16)
    for data, name in ((npy(array), "array"), (npz(w=array), "w")):
        checkpoint = read(data)
        assert checkpoint.tensors[name].dtype == "BF16"
        assert "taken for bfloat16" in checkpoint.warnings[0]
        np.testing.assert_array_equal(decode.read(checkpoint.tensors[name], Limits()), array.astype(np.float32))


def test_python_objects_are_never_loaded() -> None:
    objects = np.array({"a": 1}, dtype=object)
    for data in (npy(objects, allow_pickle=True), npz(params=objects)):
        with pytest.raises(FormatError, match="Python objects") as caught:
            read(data)
        assert caught.value.code == "object-array"


def test_members_that_are_no_numbers_are_left_out_with_a_warning() -> None:
    records = np.zeros(2, dtype=[("a", "f4")])
    data = npz(w=W, o=np.array({}, dtype=object), text=np.array(["abc"]), records=records)
    checkpoint = read(data)
    assert list(checkpoint.tensors) == ["w"]
    (note,) = checkpoint.warnings
    assert note.startswith("3 members left out: o.npy (an array of Python objects")


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"
REFUSED: list[tuple[str, bytes, str]] = [
    ("cut off in the data", npy(W)[:-1], "truncated"),
    ("cut off in the header", header(GOOD, length=600), "truncated"),
    ("cut off in the length", b"\x93NUMPY\1\0", "bad-header"),
    ("version 9", header(GOOD, bytes(12), version=9), "unsupported"),
    ("an expression", header(GOOD.replace("3", "9**9**9"), bytes(12)), "malformed"),
    ("a call", header(GOOD.replace("3", "exit()"), bytes(12)), "malformed"),
    ("deep brackets", header("(" * 9000, bytes(12)), "malformed|too-deep|too-large"),
    ("no dictionary", header("[1]"), "bad-header"),
    ("one key too many", header(GOOD.replace("}", "'x': 1}"), bytes(12)), "bad-header"),
    ("a key missing", header("{'descr': '<f4', 'shape': ()}", bytes(4)), "bad-header"),
    ("a negative length", header(GOOD.replace("3", "-3"), bytes(12)), "bad-shape"),
    ("a length of True", header(GOOD.replace("3", "True"), bytes(12)), "bad-shape"),
    ("a list for a shape", header(GOOD.replace("(3,)", "[3]"), bytes(12)), "bad-shape"),
    ("65 axes", header(GOOD.replace("3,", "1," * 65), bytes(12)), "bad-shape"),
    ("lengths that wrap", header(GOOD.replace("3,", f"{1 << 32}, {1 << 32}"), bytes(12)), "truncated"),
    ("a huge length", header(GOOD.replace("3", "9" * 300), bytes(12)), "truncated"),
    ("order of 1", header(GOOD.replace("False", "1"), bytes(12)), "bad-header"),
    ("objects under another order", header(GOOD.replace("<f4", ">O8"), bytes(12)), "object-array"),
    ("dates", header(GOOD.replace("<f4", "<M8[s]"), bytes(12)), "bad-dtype"),
    ("a dtype of numbers", header(GOOD.replace("'<f4'", "4"), bytes(12)), "bad-dtype"),
    ("a nested dtype", header(GOOD.replace("'<f4'", "[('a', '<f4')]"), bytes(12)), "bad-dtype"),
    ("a member cut short", archive({"w.npy": npy(W)[:-1]}), "truncated"),
    ("a compressed member cut short", archive({"w.npy": npy(W)[:-1]}, zipfile.ZIP_DEFLATED), "truncated"),
    ("no arrays in an archive", archive({"w.npy": header(GOOD.replace("f4", "U4"), bytes(50))}), "no-tensors"),
    ("an archive without its directory", npz(w=W)[:-30], "bad-archive"),
    ("another compression", archive({"w.npy": npy(W)}, zipfile.ZIP_LZMA), "unsupported"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_files_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code in code.split("|")
    assert len(str(caught.value)) < 1000


def test_limits() -> None:
    bomb = archive({"w.npy": npy(np.zeros(1 << 21, np.float32))}, zipfile.ZIP_DEFLATED)
    two = archive({f"{i}.npy": npy(W) for i in range(2)}, zipfile.ZIP_DEFLATED)
    for data, limits in (
        (bomb, Limits()),
        (two, Limits(inflated_bytes=6000)),
        (two, Limits(inflated_bytes=3000)),
        (two, Limits(tensors=1)),
        (header(GOOD + " " * 20_000, bytes(12), version=2), Limits()),
    ):
        with pytest.raises(LimitExceeded):
            read(data, limits)


@pytest.mark.parametrize("beyond", [1, 100, 257, 300])
def test_a_repetition_over_the_end_of_a_step_is_inflated_to_its_end(beyond: int) -> None:
    array = np.zeros((1 << 20) + beyond - len(npy(np.zeros(0, np.uint8))), np.uint8)  # the last 258 bytes are one code
    found = read(npz(np.savez_compressed, w=array), Limits(inflation_ratio=2000)).tensors["w"]
    np.testing.assert_array_equal(decode.read(found, Limits()), array)


def test_a_damaged_compressed_member_is_found_when_it_is_read() -> None:
    data = bytearray(npz(np.savez_compressed, w=W))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(FormatError):
        decode.read(read(bytes(data), Limits()).tensors["w"], Limits())


SMALL = [npy(W[:2, :3]), npz(w=W[:2, :3], f=np.asfortranarray(W[:2, :3])), npz(np.savez_compressed, w=W[:2, :3])]


@given(which=st.sampled_from(SMALL), at=st.integers(0, 900), value=st.integers(0, 255), cut=st.booleans())
@example(which=SMALL[1], at=0, value=0, cut=False)
@settings(max_examples=60, deadline=None)
def test_damage_is_survived(which: bytes, at: int, value: int, cut: bool) -> None:
    data = bytearray(which)
    data[at % len(data)] = value
    try:
        for found in read(bytes(data[: at % len(data)] if cut else data)).tensors.values():
            if found.size < 1000:
                decode.read(found, Limits())
    except NormsniffError:
        pass


def test_a_program_of_torch_export_is_called_by_its_name() -> None:
    data = archive({"model/archive_format": b"pt2", "model/data/weights/weight_0": bytes(64)})
    with pytest.raises(FormatError, match=r"torch\.export .*state_dict"):
        read_checkpoint(BytesSource(data), Limits())
