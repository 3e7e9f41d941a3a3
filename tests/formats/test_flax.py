from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint, recognise
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent
from tests.helpers.flax_files import array, binary, extension, number, text, tree


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m"), limits or Limits())


W = np.arange(12, dtype=np.float32).reshape(3, 4)
PARAMS = {"encoder": {"layers_0": {"LayerNorm_0": {"scale": W[0], "bias": W[1]}, "Dense_0": {"kernel": W}}}}


def test_arrays_are_byte_ranges_and_are_not_read() -> None:
    big = np.zeros(50_000, np.float32)
    source = BytesSource(tree({"params": {**PARAMS, "big": {"kernel": big, "bias": big}}}))
    checkpoint = read_checkpoint(source, Limits())
    assert checkpoint.format == "Flax"
    prefix = "params/encoder/layers_0/"
    assert [(t.name, t.dtype, t.shape) for t in checkpoint.tensors.values()] == [
        (f"{prefix}LayerNorm_0/scale", "F32", (4,)),
        (f"{prefix}LayerNorm_0/bias", "F32", (4,)),
        (f"{prefix}Dense_0/kernel", "F32", (3, 4)),
        ("params/big/kernel", "F32", (50_000,)),
        ("params/big/bias", "F32", (50_000,)),
    ]
    assert source.bytes_read < 5_000
    kernel = checkpoint.tensors[f"{prefix}Dense_0/kernel"]
    assert isinstance(kernel.storage, Extent)
    np.testing.assert_array_equal(decode.read(kernel, Limits()), W)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", "F16"), ("bfloat16", "BF16"), ("float64", "F64"), ("int8", "I8"), ("bool", "BOOL"), ("uint32", "U32"),
     ("float8_e4m3fn", "F8_E4M3"), ("complex64", "C64")],
)  # fmt: skip
def test_types(dtype: str, expected: str) -> None:
    import ml_dtypes

    width = np.dtype(getattr(ml_dtypes, dtype, None) or dtype).itemsize
    found = read(tree({"params": {"x": array((3,), dtype, bytes(3 * width))}})).tensors["params/x"]
    assert (found.dtype, found.nbytes) == (expected, 3 * width)


def chunked(pieces: list[bytes], shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "__msgpack_chunked_array__": b"\xc3",
        "shape": {str(i): n for i, n in enumerate(shape)},
        "chunks": {str(i): piece for i, piece in enumerate(pieces)},
    }


def test_arrays_in_chunks() -> None:
    pieces = [array((5,), "float32", W.reshape(-1)[:5].tobytes()), array((7,), "float32", W.reshape(-1)[5:].tobytes())]
    found = read(tree({"params": {"x": chunked(pieces, (3, 4)), "y": W}})).tensors
    assert list(found) == ["params/x", "params/y"]
    np.testing.assert_array_equal(decode.read(found["params/x"], Limits()), W)
    columns = np.concatenate(list(decode.vectors(found["params/x"], 0, Limits())))
    np.testing.assert_array_equal(columns, W.T)


def test_a_training_state() -> None:
    value = {
        "step": 5,
        "params": PARAMS,
        "opt_state": {"0": {"mu": PARAMS}},
        "ema_params": PARAMS,
        "batch_stats": {"m": W},
    }
    checkpoint = read(tree(value))
    assert len(checkpoint.tensors) == 4
    assert checkpoint.warnings == (
        "1 entry left out, state of a training run: opt_state",
        "1 entry left out, averaged copies of the weights: ema_params",
    )
    alone = read(tree({"step": 5, "ema_params": PARAMS, "opt_state": {}}))
    assert len(alone.tensors) == 3
    assert next(iter(alone.tensors)).startswith("ema_params/")


def test_what_else_may_be_in_a_tree() -> None:
    others = {
        "nil": b"\xc0", "true": b"\xc3", "float": b"\xcb" + bytes(8), "text": text("x" * 40), "minus": b"\xff",
        "scalar": array((), "float32", bytes(4), code=3), "complex": extension(b"\x92\x01\x02", 2),
        "bytes": binary(b"abc"),
        "short": b"\xd4\x05\x00", "empty": {}, "none": [], "long": b"\xd3" + b"\xff" * 8,
    }  # fmt: skip
    checkpoint = read(tree({"params": {**others, "list": [W, W], "odd": array((2,), "int4", b"ab")}}))
    assert list(checkpoint.tensors) == ["params/list/0", "params/list/1"]
    assert checkpoint.warnings == ("1 array left out, of an unknown type or name: params/odd (int4)",)


GOOD = array((2,), "float32", bytes(8))
REFUSED: list[tuple[str, bytes, str]] = [
    ("cut off in the data", tree({"params": PARAMS})[:-1], "truncated"),
    ("cut off in a key", tree({"params": PARAMS})[:12], "truncated|unknown-format"),
    ("trailing bytes", tree({"params": PARAMS}) + b"\0", "trailing-bytes"),
    ("no array", tree({"params": {"a": 1, "b": 2}}), "no-tensors|unknown-format"),
    ("bytes that do not fill the shape", tree({"params": {"x": array((3,), "float32", bytes(8))}}), "bad-size"),
    ("a shape that wraps", tree({"params": {"x": array((1 << 62, 4), "float32", b"")}}), "bad-size"),
    ("65 axes", tree({"params": {"x": array((1,) * 65, "float32", bytes(4))}}), "bad-array"),
    ("an extension too long", tree({"params": {"x": extension(GOOD[6:] + b"\0")}}), "bad-array"),
    ("an extension too short", tree({"params": {"x": extension(GOOD[6:-1]) + b"\0"}}), "bad-array"),
    ("an extension of 4 GiB",
     tree({"params": {"x": b"\xc9\xff\xff\xff\xff\x01" + GOOD[6:]}}), "unknown-format|bad-array"),
    ("a negative length",
     tree({"params": {"x": extension(b"\x93\x91\xff" + text("int8") + binary(b""))}}), "bad-shape"),
    ("a tag that is none", tree({"params": {"x": GOOD, "y": b"\xc1"}}), "bad-tag"),
    ("a map of 4 billion", tree({"params": {"x": GOOD, "y": b"\xdf\xff\xff\xff\xff"}}), "truncated"),
    ("a list of 4 billion", tree({"params": {"x": GOOD, "y": b"\xdd\xff\xff\xff\xff"}}), "truncated"),
    ("a key that is a map", tree({"params": {"x": GOOD, "y": b"\x81\x80\x00"}}), "bad-key"),
    ("a key of 60 kB", tree({"params": {"x": GOOD, "a" * 60_000: 1}}), "bad-key"),
    ("one name twice", b"\x81" + text("params") + b"\x82" + 2 * (text("x") + GOOD), "duplicate-key"),
    ("deep maps", tree({"params": {"x": GOOD, "y": (b"\x81" + text("a")) * 5000 + b"\xc0"}}), "too-deep"),
    ("deep lists", tree({"params": {"x": GOOD, "y": b"\x91" * 5000 + b"\xc0"}}), "too-deep"),
    ("chunks out of order", tree({"p": {"x": {**chunked([GOOD], (2,)), "chunks": {"1": GOOD}}}}), "bad-array"),
    ("chunks that are too few", tree({"p": {"x": chunked([GOOD], (4,))}}), "bad-size"),
    ("chunks of two types", tree({"p": {"x": chunked([GOOD, array((8,), "int8", bytes(8))], (4,))}}), "bad-array"),
    ("no chunks", tree({"p": {"w": GOOD, "x": chunked([], (4,))}}), "bad-array"),
    ("chunks that are numbers", tree({"p": {"w": GOOD, "x": {**chunked([], (4,)), "chunks": {"0": 5}}}}), "bad-array"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_files_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code in code.split("|")
    assert len(str(caught.value)) < 1000


def test_limits() -> None:
    data = tree({"params": {f"x{i}": GOOD for i in range(20)}})
    assert len(read(data, Limits(tensors=20)).tensors) == 20
    with pytest.raises(LimitExceeded):
        read(data, Limits(tensors=19))
    with pytest.raises(LimitExceeded):
        read(tree({"params": {"x": GOOD, "y": [1] * 2000}}), Limits(tensors=100))


@pytest.mark.parametrize(
    "data",
    [b"\x81\xa3abc\x01", b"\x80", b"\x81\x01\x02", b"\x82\xa1a\xa1b\xa1c\xa1d", b"\xde\xff\xff", b"\x81\xa1\x00\xc7",
     bytes(4096), b"\x85" * 4096, b"\x81\xa1a" * 2000],
)  # fmt: skip
def test_other_messagepack_is_not_taken_for_flax(data: bytes) -> None:
    row = recognise(BytesSource(data), Limits())
    assert row is None or row.name != "Flax"


SMALL = tree({"params": PARAMS, "x": chunked([GOOD], (2,))})


@given(at=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255), cut=st.booleans())
@example(at=0, value=0, cut=False)
@settings(max_examples=60, deadline=None)
def test_damage_is_survived(at: int, value: int, cut: bool) -> None:
    data = bytearray(SMALL)
    data[at] = value
    try:
        for found in read(bytes(data[:at] if cut else data)).tensors.values():
            if found.size < 1000:
                decode.read(found, Limits())
    except NormsniffError:
        pass


def test_the_weights_that_an_optimiser_holds() -> None:
    target = {"target": PARAMS, "state": {"step": 5, "param_states": PARAMS}}
    checkpoint = read(tree({"version": 3, "optimizer": target}))
    assert next(iter(checkpoint.tensors)) == "target/encoder/layers_0/LayerNorm_0/scale"
    assert len(checkpoint.tensors) == 3
    assert checkpoint.warnings == ("1 entry left out, state of a training run: optimizer/state",)


def stream(*entries: tuple[tuple[str, ...], bytes]) -> bytes:
    """As EasyLM writes it: keys and the bytes of a tree, packed one after the other."""
    return b"".join(
        b"\x92" + bytes([0x90 | len(keys)]) + b"".join(map(text, keys)) + binary(packed) for keys, packed in entries
    )


STREAM = stream(
    (("step",), number(5)),
    (("params", "params", "ln_f", "kernel"), tree(W[0])),
    (("params", "params", "h", "0", "wq", "kernel"), tree(W)),
    (("opt_state", "1", "0", "mu", "ln_f", "kernel"), tree(W[0])),
    (("params", "params", "big"), tree(chunked([tree(W.reshape(-1)[:5]), tree(W.reshape(-1)[5:])], (3, 4)))),
)


def test_a_stream_of_keys_and_arrays() -> None:
    checkpoint = read(STREAM)
    prefix = "params/params/"
    assert [(t.name, t.shape) for t in checkpoint.tensors.values()] == [
        (f"{prefix}ln_f/kernel", (4,)),
        (f"{prefix}h/0/wq/kernel", (3, 4)),
        (f"{prefix}big", (3, 4)),
    ]
    np.testing.assert_array_equal(decode.read(checkpoint.tensors[f"{prefix}big"], Limits()), W)
    assert checkpoint.warnings == ("2 entries left out, state of a training run: step, opt_state",)


def test_a_stream_of_msgpack_itself() -> None:
    msgpack = pytest.importorskip("msgpack")
    inner = msgpack.packb(msgpack.ExtType(1, msgpack.packb((W.shape, W.dtype.name, W.tobytes()))))
    data = msgpack.Packer().pack((("params", "wte", "embedding"), inner))
    (found,) = read(data).tensors.values()
    np.testing.assert_array_equal(decode.read(found, Limits()), W)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (STREAM[:-1], "truncated"),
        (STREAM + b"\x00", "bad-pair|truncated"),
        (STREAM + b"\x92", "truncated"),
        (STREAM + stream((("x",), tree(W)[:-1])), "bad-array|truncated"),
        (STREAM + stream((("x",), tree(W) + b"\xc0")), "bad-pair"),
        (STREAM + b"\x92\xdd\xff\xff\xff\xff", "bad-pair"),
        (STREAM + b"\x92\x91\xa1x\xa1y", "bad-pair"),
        (STREAM + stream((("params", "params", "big"), tree(W))), "duplicate-key"),
    ],
)
def test_broken_streams_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code in code.split("|")


@given(at=st.integers(0, len(STREAM) - 1), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=60, deadline=None)
def test_damage_to_a_stream_is_survived(at: int, value: int, cut: bool) -> None:
    data = bytearray(STREAM)
    data[at] = value
    with contextlib.suppress(NormsniffError):
        read(bytes(data[:at] if cut else data))
