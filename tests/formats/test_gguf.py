"""GGUF files made by hand, byte by byte: every version and byte order, and every lie a header can tell."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import gguf, window
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

F32, F16, Q4_0, Q8_0, REMOVED, FORK, UNHEARD_OF = 0, 1, 2, 8, 31, 42, 999
DIALECTS = [(1, "<"), (2, "<"), (3, "<"), (3, ">")]


class Tensor(NamedTuple):
    name: str
    dims: Sequence[int]  # fastest first, as stored
    kind: int
    offset: int


class Writer:
    """Writes the pieces of a GGUF file in one version and byte order, and checks nothing."""

    def __init__(self, version: int = 3, order: str = "<") -> None:
        self.version = version
        self.order = order

    def pack(self, code: str, *values: Any) -> bytes:
        return struct.pack(self.order + code, *values)

    def length(self, n: int) -> bytes:
        return self.pack("I" if self.version == 1 else "Q", n)

    def text(self, text: str | bytes) -> bytes:
        data = text if isinstance(text, bytes) else text.encode()
        return self.length(len(data)) + data

    def pair(self, key: str | bytes, kind: int, value: bytes) -> bytes:
        return self.text(key) + self.pack("I", kind) + value

    def array(self, kind: int, count: int, body: bytes = b"") -> bytes:
        return self.pack("I", kind) + self.length(count) + body

    def strings(self, *texts: str) -> bytes:
        return self.array(8, len(texts), b"".join(map(self.text, texts)))

    def info(self, tensor: Tensor) -> bytes:
        dims = b"".join(map(self.length, tensor.dims))
        head = self.text(tensor.name) + self.pack("I", len(tensor.dims)) + dims
        return head + self.pack("IQ", tensor.kind, tensor.offset)

    def header(self, pairs: Sequence[bytes], infos: Sequence[bytes], counts: tuple[int, int] | None = None) -> bytes:
        n_tensors, n_keys = counts or (len(infos), len(pairs))
        start = b"GGUF" + self.pack("I", self.version) + self.length(n_tensors) + self.length(n_keys)
        return start + b"".join(pairs) + b"".join(infos)


def with_data(header: bytes, data: bytes, alignment: int = 32) -> bytes:
    return header + b"\0" * (-len(header) % alignment) + data


SCALARS: list[tuple[str, int, str, Any]] = [
    ("u8", 0, "B", 200), ("i8", 1, "b", -2), ("u16", 2, "H", 60_000), ("i16", 3, "h", -3), ("u32", 4, "I", 2**31),
    ("i32", 5, "i", -4), ("f32", 6, "f", 0.5), ("bool", 7, "?", True), ("u64", 10, "Q", 2**63), ("i64", 11, "q", -5),
    ("f64", 12, "d", 1e-300),
]  # fmt: skip


def sample(version: int = 3, order: str = "<") -> tuple[bytes, int]:
    """Return a small file with one of everything, and the length of its header."""
    w = Writer(version, order)
    pairs = [w.pair(key, kind, w.pack(code, value)) for key, kind, code, value in SCALARS]
    pairs += [
        w.pair("general.architecture", 8, w.text("gpt2")),
        w.pair("tokens", 9, w.strings("<s>", "", "é", "a longer token than the others")),
        w.pair("scores", 9, w.array(6, 3, w.pack("3f", 1, 2, 3))),
        w.pair("nested", 9, w.array(9, 2, w.strings("a", "b") + w.array(9, 1, w.array(2, 2, w.pack("2H", 1, 2))))),
        w.pair("empty", 9, w.array(8, 0)),
    ]
    infos = [
        w.info(Tensor("norm.weight", (8,), F32, 0)),
        w.info(Tensor("embed.weight", (64, 3), Q4_0, 32)),
        w.info(Tensor("conv.weight", (4, 2, 3), F16, 160)),
        w.info(Tensor("scalar", (), F32, 224)),
        w.info(Tensor("none", (0, 4), F32, 256)),
    ]
    header = w.header(pairs, infos)
    return with_data(header, bytes(256)), len(header)


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return gguf.read(BytesSource(data, "a.gguf"), limits or Limits())


def places(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], int, int, str]]:
    found = {}
    for name, tensor in checkpoint.tensors.items():
        assert isinstance(tensor.storage, Extent)
        found[name] = (tensor.dtype, tensor.shape, tensor.storage.start, tensor.storage.stop, tensor.byteorder)
    return found


@pytest.mark.parametrize(("version", "order"), DIALECTS)
def test_one_of_everything(version: int, order: str) -> None:
    data, header = sample(version, order)
    checkpoint = read(data)
    base = len(data) - 256
    assert checkpoint.format == "GGUF"
    assert checkpoint.version == str(version)
    assert checkpoint.header_sha256 == hashlib.sha256(data[:header]).hexdigest()
    assert checkpoint.warnings == ()
    assert dict(checkpoint.metadata) == {key: value for key, _, _, value in SCALARS} | {
        "general.architecture": "gpt2",
        "tokens": ("array", 4),
        "scores": ("array", 3),
        "nested": ("array", 2),
        "empty": ("array", 0),
    }
    assert type(checkpoint.metadata["bool"]) is bool
    assert list(checkpoint.tensors) == ["norm.weight", "embed.weight", "conv.weight", "scalar", "none"]
    assert places(checkpoint) == {
        "norm.weight": ("F32", (8,), base, base + 32, order),
        "embed.weight": ("Q4_0", (3, 64), base + 32, base + 32 + 6 * 18, order),
        "conv.weight": ("F16", (3, 2, 4), base + 160, base + 160 + 48, order),
        "scalar": ("F32", (), base + 224, base + 228, order),
        "none": ("F32", (4, 0), base + 256, base + 256, order),
    }


@settings(max_examples=40, deadline=None)
@given(first=st.integers(1, 80), largest=st.integers(1, 200), dialect=st.sampled_from(DIALECTS))
def test_windows_do_not_show(first: int, largest: int, dialect: tuple[int, str]) -> None:
    """Wherever windows end, inside a length, a string or an array, the answer is the same and no byte is read twice."""
    data, header = sample(*dialect)
    whole = read(data)
    source = BytesSource(data)
    with mock.patch.multiple(window, _FIRST=first, _LARGEST=largest):
        pieces = gguf.read(source, Limits())
    assert places(pieces) == places(whole)
    assert pieces.metadata == whole.metadata
    assert pieces.header_sha256 == whole.header_sha256
    assert header <= source.bytes_read < header + max(first, largest)


class CountingSource(BytesSource):
    """Remembers the length of every read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[int] = []

    def read_at(self, offset: int, n: int) -> memoryview:
        self.reads.append(n)
        return super().read_at(offset, n)


def test_large_vocabulary_costs_few_reads_and_little_memory() -> None:
    w = Writer()
    tokens = w.pair("tokens", 9, w.strings(*(f"token number {i:06}" for i in range(150_000))))
    header = w.header([tokens, w.pair("types", 9, w.array(5, 150_000, bytes(600_000)))], [])
    source = CountingSource(header + bytes(5_000_000))
    tracemalloc.start()
    try:
        checkpoint = gguf.read(source, Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert checkpoint.metadata == {"tokens": ("array", 150_000), "types": ("array", 150_000)}
    assert max(source.reads) <= 1 << 20
    assert len(source.reads) < 16  # 4.5 MB in windows that double from 4 KiB to 1 MiB
    assert source.bytes_read < len(header) + (1 << 20)
    assert peak < 4 << 20


def _lie(make: Callable[[Writer], bytes]) -> bytes:
    return make(Writer())


def _metadata(*pairs: Callable[[Writer], bytes]) -> bytes:
    w = Writer()
    return w.header([pair(w) for pair in pairs], []) + bytes(64)


def _tensors(*tensors: Tensor, data: int = 1024, pairs: Sequence[bytes] = ()) -> bytes:
    w = Writer()
    return with_data(w.header(pairs, [w.info(tensor) for tensor in tensors]), bytes(data))


def _aligned(kind: int, code: str, value: int) -> bytes:
    w = Writer()
    return _tensors(Tensor("a", (8,), F32, 0), pairs=[w.pair("general.alignment", kind, w.pack(code, value))])


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "truncated"),
    "magic only": (b"GGUF", "truncated"),
    "older magic": (b"ggjt" + bytes(60), "bad-magic"),
    "version 0": (_lie(lambda w: b"GGUF" + w.pack("I", 0) + bytes(60)), "bad-version"),
    "version 4": (_lie(lambda w: b"GGUF" + w.pack("I", 4) + bytes(60)), "bad-version"),
    "version 4, big-endian": (b"GGUF" + struct.pack(">I", 4) + bytes(60), "bad-version"),
    "2**60 tensors": (_lie(lambda w: w.header([], [], counts=(2**60, 0)) + bytes(64)), "truncated"),
    "2**60 keys": (_lie(lambda w: w.header([], [], counts=(0, 2**60)) + bytes(64)), "truncated"),
    "key of 2**63 bytes": (_lie(lambda w: w.header([w.length(2**63)], []) + bytes(64)), "bad-name"),
    "key beyond the end": (_lie(lambda w: w.header([w.length(500)], []) + bytes(64)), "truncated"),
    "key that is not text": (_metadata(lambda w: w.pair(b"\xff\xfe", 0, b"\1")), "bad-text"),
    "key twice": (_metadata(*[lambda w: w.pair("a", 0, b"\1")] * 2), "duplicate-key"),
    "unknown value type": (_metadata(lambda w: w.pair("a", 13, bytes(8))), "bad-value-type"),
    "unknown element type": (_metadata(lambda w: w.pair("a", 9, w.array(13, 1, bytes(8)))), "bad-value-type"),
    "string beyond the end": (_metadata(lambda w: w.pair("a", 8, w.length(2**40))), "truncated"),
    "2**62 numbers": (_metadata(lambda w: w.pair("a", 9, w.array(12, 2**62))), "truncated"),
    "2**62 strings": (_metadata(lambda w: w.pair("a", 9, w.array(8, 2**62))), "truncated"),
    "2**62 arrays": (_metadata(lambda w: w.pair("a", 9, w.array(9, 2**62))), "truncated"),
    "string of 2**64-1 in an array": (_metadata(lambda w: w.pair("a", 9, w.array(8, 1, b"\xff" * 8))), "truncated"),
    "last string too long": (
        _metadata(lambda w: w.pair("a", 9, w.array(8, 2, w.text("ok") + w.length(65)))),
        "truncated",
    ),
    "alignment 0": (_aligned(4, "I", 0), "bad-alignment"),
    "alignment 24": (_aligned(4, "I", 24), "bad-alignment"),
    "alignment as u64": (_aligned(10, "Q", 32), "bad-alignment"),
    "alignment beyond the file": (_aligned(4, "I", 2**31), "truncated"),
    "65 dimensions": (_tensors(Tensor("a", (1,) * 65, F32, 0)), "bad-shape"),
    "2**32-1 dimensions": (
        _lie(lambda w: w.header([], [w.text("a") + w.pack("I", 2**32 - 1)]) + bytes(64)),
        "bad-shape",
    ),
    "product over 2**63": (_tensors(Tensor("a", (2**32, 2**32), F32, 0)), "bad-shape"),
    "overflow behind an empty axis": (_tensors(Tensor("a", (0, 2**40, 2**40), F32, 0)), "bad-shape"),
    "more elements than bytes": (_tensors(Tensor("a", (2**40,), F32, 0)), "truncated"),
    "row of half a block": (_tensors(Tensor("a", (48, 2), Q8_0, 0)), "bad-shape"),
    "quantised scalar": (_tensors(Tensor("a", (), Q8_0, 0)), "bad-shape"),
    "offset not aligned": (_tensors(Tensor("a", (8,), F32, 4)), "bad-offset"),
    "offset beyond the end": (_tensors(Tensor("a", (8,), F32, 2**64 - 32)), "truncated"),
    "unknown type beyond the end": (_tensors(Tensor("a", (8,), FORK, 2**40)), "truncated"),
    "unknown type without bytes": (_tensors(Tensor("a", (8,), FORK, 1024)), "truncated"),
    "two tensors in one place": (_tensors(Tensor("a", (8,), F32, 0), Tensor("b", (8,), F32, 0)), "overlap"),
    "overlap": (_tensors(Tensor("b", (8,), F32, 64), Tensor("a", (24,), F32, 0)), "overlap"),
    "unknown type in one place with another": (
        _tensors(Tensor("a", (8,), FORK, 0), Tensor("b", (8,), F32, 0)),
        "overlap",
    ),
    "name twice": (_tensors(Tensor("a", (8,), F32, 0), Tensor("a", (8,), F32, 32)), "duplicate-tensor"),
    "name that is not text": (_lie(lambda w: w.header([], [w.text(b"\xff")]) + bytes(64)), "bad-text"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str) -> None:
    data, code = HOSTILE[case]
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code
    assert caught.value.where.startswith("a.gguf @ ")


def _nested(depth: int) -> Callable[[Writer], bytes]:
    return lambda w: w.pair("a", 9, w.array(9, 1) * depth + w.array(0, 0))


LIMITS: dict[str, tuple[bytes, Limits, str]] = {
    "tensors": (_tensors(Tensor("a", (8,), F32, 0), Tensor("b", (8,), F32, 32)), Limits(tensors=1), "tensors"),
    "keys": (
        _metadata(lambda w: w.pair("a", 0, b"\1"), lambda w: w.pair("b", 0, b"\1")),
        Limits(metadata_keys=1),
        "metadata keys",
    ),
    "numbers": (
        _metadata(lambda w: w.pair("a", 9, w.array(0, 9, bytes(9)))),
        Limits(metadata_values=8),
        "elements of 'a'",
    ),
    "strings": (_metadata(lambda w: w.pair("a", 9, w.strings(*"abc"))), Limits(metadata_values=2), "elements of 'a'"),
    "string": (_metadata(lambda w: w.pair("a", 8, w.text("abcdef"))), Limits(value_bytes=5), "bytes of 'a'"),
    "depth": (_metadata(_nested(7)), Limits(nesting=7), "nested arrays"),
    "arrays in arrays": (
        _metadata(*[lambda w, k=key: w.pair(k, 9, w.array(9, 3, w.array(0, 0) * 3)) for key in "abcd"]),
        Limits(metadata_keys=8),
        "elements of 'c'",
    ),
    "header, skipped": (
        _metadata(lambda w: w.pair("a", 9, w.array(0, 100_000, bytes(100_000)))),
        Limits(header_bytes=90_000),
        "header bytes",
    ),
    "header, taken": (
        _metadata(lambda w: w.pair("a", 8, w.text("x" * 100_000))),
        Limits(header_bytes=90_000),
        "header bytes",
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_limits(case: str) -> None:
    data, limits, resource = LIMITS[case]
    read(data)  # within the default limits
    with pytest.raises(LimitExceeded) as caught:
        read(data, limits)
    assert caught.value.resource == resource


def test_no_keys_and_no_tensors() -> None:
    checkpoint = read(Writer().header([], []))  # as it is: nothing to pad for
    assert (checkpoint.tensors, checkpoint.metadata, checkpoint.warnings) == ({}, {}, ())


def test_depth_at_the_limit_is_fine() -> None:
    assert read(_metadata(_nested(6)), Limits(nesting=7)).metadata == {"a": ("array", 1)}


def test_truncated_download_says_how_much_is_missing() -> None:
    data = _tensors(Tensor("a", (8,), F32, 0), Tensor("b", (64,), F32, 32), Tensor("c", (4,), F32, 288), data=304)
    assert len(read(data).tensors) == 3
    assert len(read(data + b"trailing").tensors) == 3
    with pytest.raises(FormatError, match=r"100 of \d+ bytes are missing: 2 of 3 tensors .*'b' is the first") as caught:
        read(data[:-100])
    assert caught.value.code == "truncated"


def test_types_of_unknown_layout_reach_to_the_next_tensor() -> None:
    data = _tensors(
        Tensor("late", (100,), FORK, 640),
        Tensor("first", (7,), REMOVED, 0),
        Tensor("empty", (0,), UNHEARD_OF, 96),
        Tensor("norm", (8,), F32, 96),
        Tensor("middle", (3, 3), UNHEARD_OF, 128),
    )
    base = len(data) - 1024
    checkpoint = read(data)
    assert places(checkpoint) == {
        "late": ("Q2_0", (100,), base + 640, base + 1024, "<"),
        "first": ("Q4_0_4_4", (7,), base, base + 96, "<"),
        "empty": ("ggml-type-999", (0,), base + 96, base + 96, "<"),
        "norm": ("F32", (8,), base + 96, base + 128, "<"),
        "middle": ("ggml-type-999", (3, 3), base + 128, base + 640, "<"),
    }
    assert [warning.split(", ")[0] for warning in checkpoint.warnings] == [
        "2 tensors of type ggml-type-999",
        "1 tensor of type Q2_0",
        "1 tensor of type Q4_0_4_4",
    ]


@pytest.mark.parametrize(("alignment", "warned"), [(1, True), (4, True), (8, False), (64, False), (256, False)])
def test_alignment_moves_the_data(alignment: int, warned: bool) -> None:
    w = Writer()
    pairs = [w.pair("general.alignment", 4, w.pack("I", alignment))]
    header = w.header(pairs, [w.info(Tensor("a", (8,), F32, alignment))])
    data = with_data(header, bytes(alignment + 32), alignment)
    checkpoint = read(data)
    assert places(checkpoint)["a"][2:4] == (len(data) - 32, len(data))
    assert any("multiple of 8" in warning for warning in checkpoint.warnings) == warned


def test_text_that_is_not_utf8_is_kept_with_a_warning() -> None:
    checkpoint = read(_metadata(lambda w: w.pair("general.name", 8, w.text(b"caf\xe9"))))
    assert checkpoint.metadata == {"general.name": "caf\ufffd"}
    assert "general.name" in checkpoint.warnings[0]


def test_long_and_hostile_names_are_quoted_in_messages() -> None:
    with pytest.raises(FormatError) as caught:
        read(_tensors(Tensor("a\n\x1b[31m" + "b" * 500, (8,), F32, 4)))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dialect=st.sampled_from(DIALECTS))
def test_damage_ends_in_an_answer_or_our_own_error(data: st.DataObject, dialect: tuple[int, str]) -> None:
    good, header = sample(*dialect)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, header - 1))
        bad[at] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
    try:
        checkpoint = read(bytes(bad))
    except NormsniffError:
        return
    for tensor in checkpoint.tensors.values():
        assert isinstance(tensor.storage, Extent)
        assert 0 <= tensor.storage.start <= tensor.storage.stop <= len(bad)


@pytest.mark.parametrize(("version", "order"), DIALECTS)
def test_every_truncation_is_called_one(version: int, order: str) -> None:
    data, _ = sample(version, order)
    needed = len(data) - 28  # the last tensor with elements is a scalar at 224 of 256
    for end in [*range(8, needed, 7), needed - 1]:
        with pytest.raises(FormatError) as caught:
            read(data[:end])
        assert caught.value.code == "truncated", end


def _part(number: int | None, count: int | None, names: str, total: int = 3, **extra: str) -> Checkpoint:
    w = Writer()
    pairs = [w.pair(key, 8, w.text(value)) for key, value in extra.items()]
    pairs += [w.pair("split.no", 2, w.pack("H", number))] if number is not None else []
    pairs += [w.pair("split.count", 2, w.pack("H", count))] if count is not None else []
    pairs += [w.pair("split.tensors.count", 5, w.pack("i", total))]
    infos = [w.info(Tensor(name, (8,), F32, 32 * i)) for i, name in enumerate(names)]
    data = with_data(w.header(pairs, infos), bytes(32 * len(names)))
    return gguf.read(BytesSource(data, f"part {number}"), Limits())


def test_merge_puts_parts_in_order() -> None:
    first, second = _part(0, 2, "ab", architecture="llama"), _part(1, 2, "c")
    merged = gguf.merge([second, first])
    assert list(merged.tensors) == ["a", "b", "c"]
    assert merged.metadata == first.metadata
    assert merged.sources == (*first.sources, *second.sources)
    assert merged.tensors["c"] is second.tensors["c"]
    assert merged.file_size == first.file_size + second.file_size
    digests = bytes.fromhex(first.header_sha256) + bytes.fromhex(second.header_sha256)
    assert merged.header_sha256 == hashlib.sha256(digests).hexdigest()
    assert merged.warnings == ()
    assert gguf.merge([first]).header_sha256 == first.header_sha256


MERGE_WARNINGS: dict[str, tuple[Sequence[Checkpoint], str]] = {
    "part missing": ([_part(0, 4, "ab"), _part(2, 4, "c")], "2 of 4 parts are missing"),
    "first part missing": ([_part(1, 2, "ab")], "1 of 2 parts are missing, the first one"),
    "too many parts": ([_part(0, 1, "ab"), _part(1, 1, "c")], "2 parts of a model that says it has 1"),
    "tensor missing": ([_part(0, 2, "a"), _part(1, 2, "c")], "hold 2 tensors, split.tensors.count says 3"),
    "no split keys": ([_part(None, None, "a"), _part(None, None, "b")], "nothing tells"),
    "one without its number": ([_part(0, 2, "a"), _part(None, 2, "b")], "nothing tells"),
}


@pytest.mark.parametrize("case", MERGE_WARNINGS)
def test_merge_warns(case: str) -> None:
    parts, warning = MERGE_WARNINGS[case]
    merged = gguf.merge(parts)
    assert len(merged.tensors) == sum(len(part.tensors) for part in parts)
    (found,) = merged.warnings
    assert warning in found


def test_merge_keeps_the_warnings_of_the_parts() -> None:
    w = Writer()
    data = w.header([w.pair("a", 8, w.text(b"\xff"))], [])
    assert "'a'" in gguf.merge([read(data)]).warnings[0]


MERGE_ERRORS: dict[str, tuple[Sequence[Checkpoint], str]] = {
    "same tensor": ([_part(0, 2, "ab"), _part(1, 2, "b")], "duplicate-tensor"),
    "same number": ([_part(0, 2, "ab"), _part(0, 2, "c")], "bad-split"),
    "two counts": ([_part(0, 2, "ab"), _part(1, 3, "c")], "bad-split"),
}


@pytest.mark.parametrize("case", MERGE_ERRORS)
def test_merge_refuses(case: str) -> None:
    parts, code = MERGE_ERRORS[case]
    with pytest.raises(FormatError) as caught:
        gguf.merge(parts)
    assert caught.value.code == code


def test_merge_of_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one"):
        gguf.merge([])
