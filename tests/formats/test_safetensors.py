from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normsniff import decode
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint, recognise, safetensors
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent


def pack(header: bytes | str | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype: str, shape: list[Any], start: Any, stop: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def open_bytes(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return read_checkpoint(BytesSource(data), limits or Limits())


VALID = pack(
    {
        "__metadata__": {"format": "pt", "note": 'a "quoted" word'},
        "ln.weight": entry("F32", [2], 4, 12),
        "half": entry("BF16", [1, 2], 0, 4),
        "empty": entry("F16", [3, 0], 12, 12),
        "scalar": entry("I64", [], 12, 20),
    },
    b"\x80\x3f\x00\x40" + struct.pack("<2f", 1.5, -2.0) + struct.pack("<q", 7),
)


def test_reads_names_types_shapes_and_places() -> None:
    source = BytesSource(VALID, "m")
    checkpoint = read_checkpoint(source, Limits())
    assert checkpoint.format == "safetensors"
    assert checkpoint.metadata == {"format": "pt", "note": 'a "quoted" word'}
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in checkpoint.tensors.items()} == {
        "half": ("BF16", (1, 2), 4),
        "ln.weight": ("F32", (2,), 8),
        "empty": ("F16", (3, 0), 0),
        "scalar": ("I64", (), 8),
    }
    assert next(iter(checkpoint.tensors)) == "half", "the order of the data"
    header = 8 + struct.unpack("<Q", VALID[:8])[0]
    assert checkpoint.tensors["half"].storage == Extent(source, header, header + 4)
    assert checkpoint.header_sha256 == hashlib.sha256(VALID[:header]).hexdigest()
    safetensors.read(again := BytesSource(VALID), Limits())
    assert again.bytes_read == header, "the header, once, and nothing else"
    assert decode.read(checkpoint.tensors["ln.weight"], Limits()).tolist() == [1.5, -2.0]
    assert decode.read(checkpoint.tensors["half"], Limits()).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("BOOL", [3], 3), ("U8", [3], 3), ("I8", [3], 3), ("F8_E5M2", [3], 3), ("F8_E4M3", [3], 3), ("F8_E8M0", [3], 3),
        ("F8_E4M3FNUZ", [3], 3), ("F8_E5M2FNUZ", [3], 3), ("I16", [3], 6), ("U16", [3], 6), ("F16", [3], 6),
        ("BF16", [3], 6), ("I32", [3], 12), ("U32", [3], 12), ("F32", [3], 12), ("C64", [3], 24), ("F64", [3], 24),
        ("I64", [3], 24), ("U64", [3], 24), ("F4", [4, 4], 8), ("F6_E2M3", [4], 3), ("F6_E3M2", [8], 6),
    ],
)  # fmt: skip
def test_every_dtype(dtype: str, shape: list[int], size: int) -> None:
    checkpoint = open_bytes(pack({"x": entry(dtype, shape, 0, size)}, bytes(size)))
    assert checkpoint.tensors["x"].nbytes == size
    with pytest.raises(FormatError) as caught:
        open_bytes(pack({"x": entry(dtype, shape, 0, size + 1)}, bytes(size + 1)))
    assert caught.value.code == "bad-size"


HUGE = 1 << 63
T = entry("U8", [1], 0, 1)
J = json.dumps(T)
REFUSED: list[tuple[str, bytes, str]] = [
    ("header longer than the file", pack({"x": T}, b"", 200), "truncated"),
    ("header length 0", pack("", b'{"x":1}', 0), "unknown-format"),
    ("only a length", struct.pack("<Q", 2), "unknown-format"),
    ("not JSON", pack('{"x": [}', b""), "bad-header"),
    ("an array", pack('[{"x": 1}]', b""), "unknown-format"),
    ("NUL padding", pack('{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}\0\0', b"\0"), "bad-header"),
    ("two values", pack('{}{"a":1}'), "bad-header"),
    ("NaN", pack('{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"y":NaN}}', b"\0"), "bad-header"),
    ("not UTF-8 in a name", pack(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"), "bad-text"),
    (
        "not UTF-8 where nobody looks",
        pack(b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"y":"\xff"}}'),
        "bad-text",
    ),
    ("lone surrogate", pack('{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"), "bad-header"),
    ("lone low surrogate", pack('{"\\udc00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"), "bad-header"),
    ("surrogate in metadata", pack('{"__metadata__":{"a":"\\ud800"}}'), "bad-header"),
    ("a number for an entry", pack('{"x": 5}'), "bad-header"),
    ("no dtype", pack({"x": {"shape": [0], "data_offsets": [0, 0]}}), "bad-header"),
    ("no shape", pack({"x": {"dtype": "U8", "data_offsets": [0, 0]}}), "bad-header"),
    ("no offsets", pack({"x": {"dtype": "U8", "shape": [0]}}), "bad-header"),
    ("null shape", pack({"x": entry("U8", None, 0, 0)}), "bad-header"),  # type: ignore[arg-type]  # hostile
    ("string shape", pack({"x": entry("U8", "12", 0, 0)}), "bad-header"),  # type: ignore[arg-type]  # hostile
    ("string offsets", pack('{"x":{"dtype":"U8","shape":[2],"data_offsets":"01"}}', b"\0\0"), "bad-header"),
    ("three offsets", pack('{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}', b"\0"), "bad-header"),
    ("float in shape", pack({"x": entry("U8", [1.0], 0, 1)}, b"\0"), "bad-header"),
    ("1e30 in shape", pack('{"x":{"dtype":"U8","shape":[1e30],"data_offsets":[0,1]}}', b"\0"), "bad-header"),
    ("bool in shape", pack({"x": entry("U8", [True], 0, 1)}, b"\0"), "bad-header"),
    ("bool offset", pack({"x": entry("U8", [1], False, True)}, b"\0"), "bad-header"),
    ("float offset", pack({"x": entry("U8", [1], 0.0, 1.0)}, b"\0"), "bad-header"),
    ("string in shape", pack({"x": entry("U8", ["1"], 0, 1)}, b"\0"), "bad-header"),
    ("unknown dtype", pack({"x": entry("F31", [1], 0, 1)}, b"\0"), "bad-dtype"),
    ("lower-case dtype", pack({"x": entry("u8", [1], 0, 1)}, b"\0"), "bad-dtype"),
    ("a ggml dtype", pack({"x": entry("Q4_0", [32], 0, 18)}, bytes(18)), "bad-dtype"),
    ("negative dimension", pack({"x": entry("U8", [-1], 0, 1)}, b"\0"), "bad-shape"),
    ("two negative dimensions", pack({"x": entry("U8", [-1, -1], 0, 1)}, b"\0"), "bad-shape"),
    ("half a byte", pack({"x": entry("F4", [3], 0, 2)}, b"\0\0"), "bad-shape"),
    ("product that wraps to 0 in 64 bits", pack({"x": entry("U8", [1 << 32, 1 << 32], 0, 0)}), "bad-size"),
    ("product that wraps to 1 in 64 bits", pack({"x": entry("U8", [0xFFFFFFFFFFFFFFFF] * 2, 0, 1)}, b"\0"), "bad-size"),
    ("dimensions beyond 64 bits", pack({"x": entry("U8", [10**300], 0, 1)}, b"\0"), "bad-size"),
    ("100,000 huge dimensions", pack({"x": entry("U8", [HUGE] * 100_000, 0, 1)}, b"\0"), "bad-shape"),
    ("hole at the start", pack({"x": entry("U8", [1], 1, 2)}, b"\0\0"), "bad-offset"),
    ("hole", pack({"x": T, "y": entry("U8", [1], 2, 3)}, b"\0\0\0"), "bad-offset"),
    ("overlap", pack({"x": entry("U8", [2], 0, 2), "y": entry("U8", [2], 1, 3)}, b"\0\0\0"), "bad-offset"),
    ("the same bytes twice", pack({"x": T, "y": T}, b"\0"), "bad-offset"),
    ("negative offset", pack({"x": entry("U8", [1], -1, 0)}, b"\0"), "bad-offset"),
    ("offsets swapped", pack({"x": entry("U8", [1], 1, 0)}, b"\0"), "bad-offset"),
    ("offset beyond 64 bits", pack({"x": entry("U8", [10**30], 0, 10**30)}, b"\0"), "truncated"),
    ("trailing bytes", pack({"x": T}, b"\0\0"), "trailing-bytes"),
    ("data missing", pack({"x": entry("U8", [9], 0, 9)}, b"\0\0"), "truncated"),
    ("duplicate tensor", pack(f'{{"x":{J},"x":{J}}}', b"\0"), "duplicate-key"),
    ("duplicate tensor, escaped", pack(f'{{"x":{J},"\\u0078":{J}}}', b"\0"), "duplicate-key"),
    ("duplicate of an empty entry", pack(f'{{"x":{{}},"x":{J}}}', b"\0"), "duplicate-key"),
    ("duplicate key in an entry", pack('{"x":{"shape":[9],' + J[1:] + "}", b"\0"), "duplicate-key"),
    (
        "duplicate hidden behind an escape",
        pack(f'{{"x":{{"dtype":"U8","sh\\u0061pe":[1],"data_offsets":[0,1]}},"x":{J}}}', b"\0"),
        "duplicate-key",
    ),
    (
        "duplicate key in an entry, escaped",
        pack('{"x":{"sh\\u0061pe":[9],' + J[1:] + "}", b"\0"),
        "duplicate-key",
    ),
    ("duplicate metadata", pack('{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'), "duplicate-key"),
    ("duplicate key in metadata", pack('{"__metadata__":{"a":"b","a":"c"}}'), "duplicate-key"),
    ("metadata is a string", pack('{"__metadata__":"a"}'), "bad-header"),
    ("metadata is null", pack('{"__metadata__":null}'), "bad-header"),
    ("metadata with a number", pack('{"__metadata__":{"a":1}}'), "bad-header"),
    ("metadata with an object", pack('{"__metadata__":{"a":{"b":"c"}}}'), "bad-header"),
    ("metadata with a list called shape", pack('{"__metadata__":{"shape":[1]}}'), "bad-header"),
    ("deep nesting in an unknown field", pack('{"x":{"y":' + "[" * 200_000 + "]" * 200_000 + "}}"), "too-deep"),
    ("deep nesting in metadata", pack('{"__metadata__":{"y":' + '{"y":' * 100_000), "too-deep"),
    ("deep nesting at the top", pack('{"x":' * 100_000), "too-deep"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_headers_are_refused(data: bytes, code: str) -> None:
    source = BytesSource(data, "hostile")
    with pytest.raises(FormatError) as caught:
        read_checkpoint(source, Limits())
    assert caught.value.code == code
    assert caught.value.where.startswith("hostile")
    assert len(str(caught.value)) < 1000


ACCEPTED: list[tuple[str, bytes, int]] = [
    ("no tensors", pack("{}"), 0),
    ("only metadata", pack('{"__metadata__":{}}'), 0),
    ("padding after", pack(f'{{"x":{J}}}    ', b"\0"), 1),
    ("a space before, as the reference reader allows", pack(f' {{"x":{J}}}', b"\0"), 1),
    ("an unknown field", pack({"x": {**T, "extra": {"a": [1, {"b": 2}]}}}, b"\0"), 1),
    ("a brace, a backslash and a quote in a name", pack({'{"\\': T}, b"\0"), 1),
    (
        "tensors named like the keys",
        pack({"shape": T, "dtype": entry("U8", [1], 1, 2), "data_offsets": entry("U8", [0], 0, 0)}, b"\0\0"),
        3,
    ),
    (
        "metadata that looks like a header",
        pack({"__metadata__": {"dtype": '{"dtype"', "shape": "[1]", "data_offsets": "\\"}, "x": T}, b"\0"),
        1,
    ),
    ("an empty name", pack({"": T}, b"\0"), 1),
    ("zeros beside huge dimensions", pack({"x": entry("F32", [HUGE >> 1, HUGE >> 1, 0], 0, 0)}), 1),
    ("64 axes", pack({"x": entry("U8", [1] * 64, 0, 1)}, b"\0"), 1),
    ("many empty tensors at one place", pack({f"t{i}": entry("F32", [0], 0, 0) for i in range(50)}), 50),
]  # fmt: skip


@pytest.mark.parametrize(("data", "tensors"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_odd_but_lawful_headers_are_read(data: bytes, tensors: int) -> None:
    assert len(open_bytes(data).tensors) == tensors


def test_a_cut_off_file_says_how_much_is_missing() -> None:
    with pytest.raises(FormatError, match=r"cut off: 5 of [\d,]+ bytes are missing"):
        open_bytes(VALID[:-5])
    with pytest.raises(FormatError, match="header is cut off: 1 of its"):
        open_bytes(VALID[: 8 + struct.unpack("<Q", VALID[:8])[0] - 1])


def test_limits() -> None:
    assert len(open_bytes(VALID, Limits(tensors=4)).tensors) == 4
    for limits, resource in (
        (Limits(tensors=3), "tensors"),
        (Limits(header_bytes=20), "bytes of the header"),
        (Limits(value_bytes=5), "bytes of metadata"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            open_bytes(VALID, limits)
        assert caught.value.resource == resource


def test_lists_that_are_cheap_to_write_and_dear_to_build() -> None:
    for header in ('{"x":{"shape":[' + "0," * 200_000 + "0]}}", '{"x":{"y":[' + "[]," * 100_000 + "0]}}"):
        with pytest.raises(LimitExceeded) as caught:
            open_bytes(pack(header), Limits(tensors=1000))
        assert caught.value.resource == "values of the header"


def test_a_header_that_claims_terabytes_costs_nothing() -> None:
    source = BytesSource(pack({"x": T}, b"\0", length=99_000_000))
    with pytest.raises(FormatError):
        safetensors.read(source, Limits())
    assert source.bytes_read <= 8
    with pytest.raises(FormatError):
        open_bytes(pack({"x": T}, b"\0", length=1 << 62))


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(VALID) - 1), value=st.integers(0, 255), cut=st.integers(0, len(VALID)))
@example(at=0, value=255, cut=len(VALID))
@example(at=7, value=255, cut=len(VALID))
def test_any_flip_or_cut_gives_an_answer_or_our_error(at: int, value: int, cut: int) -> None:
    data = bytearray(VALID)
    data[at] = value
    for variant in (bytes(data), VALID[:cut], bytes(data[:cut])):
        try:
            checkpoint = open_bytes(variant)
        except NormsniffError:
            continue
        for tensor in checkpoint.tensors.values():
            assert isinstance(tensor.storage, Extent)
            assert 0 <= tensor.storage.start <= tensor.storage.stop <= len(variant)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(names, min_size=1, max_size=6),
    metadata=st.dictionaries(names, names, max_size=3),
    ascii_=st.booleans(),
)
def test_duplicates_are_found_whatever_the_names_are(keys: list[str], metadata: dict[str, str], ascii_: bool) -> None:
    rows = [f"{json.dumps(key, ensure_ascii=ascii_)}:{json.dumps(entry('U8', [0], 0, 0))}" for key in keys]
    rows.append(f'"__metadata__":{json.dumps(metadata, ensure_ascii=ascii_)}')
    data = pack("{" + ",".join(rows) + "}")
    if len(set(keys)) < len(keys):
        with pytest.raises(FormatError) as caught:
            open_bytes(data)
        assert caught.value.code == "duplicate-key"
    else:
        checkpoint = open_bytes(data)
        assert set(checkpoint.tensors) == set(keys)
        assert checkpoint.metadata == metadata


def test_recognised_by_content() -> None:
    row = recognise(BytesSource(VALID, "model.bin"), Limits())
    assert row is not None
    assert row.name == "safetensors"


@pytest.mark.models
def test_minilm_equals_the_reference_reader(real_model: Callable[[str], Path]) -> None:
    import numpy as np
    from safetensors import safe_open

    path = real_model("minilm")
    checkpoint = open_bytes(path.read_bytes())
    with safe_open(path, framework="np") as reference:
        assert set(checkpoint.tensors) == set(reference.keys())
        assert checkpoint.metadata == (reference.metadata() or {})
        for name, tensor in checkpoint.tensors.items():
            expected = reference.get_tensor(name)
            assert tensor.shape == expected.shape
            np.testing.assert_array_equal(decode.read(tensor, Limits()), expected.astype(np.float32))
