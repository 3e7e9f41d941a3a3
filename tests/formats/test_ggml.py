from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normsniff import decode, sniff
from normsniff.checkpoint import Checkpoint
from normsniff.errors import BudgetSpent, FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.meter import metered
from normsniff.source.local import BytesSource
from tests.helpers.ggml_files import Arrays, records, vocabulary, whisper


def llama(arrays: Arrays, magic: bytes = b"tjgg", version: int = 3) -> bytes:
    head = struct.pack("<4s8i", magic, version, 200, 32, 256, 2, 2, 16, 1) + vocabulary(200, scores=True)
    return head + records(arrays, 32 if magic == b"tjgg" else 1, len(head))


def read(data: bytes, limits: Limits | None = None) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m"), limits or Limits())


def transformer(seed: int = 0, d: int = 32) -> dict[str, np.ndarray[Any, Any]]:
    """Names as in OpenAI's Whisper; d is the width."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.1) -> np.ndarray[Any, Any]:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    arrays = {
        "decoder.positional_embedding": normal(12, d),
        "decoder.token_embedding.weight": normal(300, d).astype("f2"),
    }
    for i in range(2):
        block = f"decoder.blocks.{i}"
        for matrix in ("query", "key", "value", "out"):
            arrays[f"{block}.attn.{matrix}.weight"] = normal(d, d).astype(np.float16)
        arrays |= {f"{block}.mlp.0.weight": normal(4 * d, d), f"{block}.mlp.0.bias": normal(4 * d)}
        arrays |= {f"{block}.mlp.2.weight": normal(d, 4 * d), f"{block}.mlp.2.bias": normal(d)}
        for norm in ("attn_ln", "mlp_ln"):
            arrays |= {f"{block}.{norm}.weight": 1 + normal(d), f"{block}.{norm}.bias": normal(d)}
    return arrays | {"decoder.ln.weight": 1 + normal(d), "decoder.ln.bias": normal(d)}


SMALL: dict[str, np.ndarray[Any, Any]] = {
    "conv.bias": np.ones((4, 1), np.float32),
    "ln.weight": np.arange(4, dtype=np.float32),
    "w": np.arange(12, dtype=np.float16).reshape(3, 4),
}
FILES = {
    "whisper.cpp": (whisper(SMALL), "ggml"),
    "llama.cpp in March 2023": (llama(SMALL, b"fmgg", 1), "ggmf 1"),
    "llama.cpp in May 2023": (llama(SMALL), "ggjt 3"),
    "without any header": (b"lmgg" + records(SMALL), "ggml"),
    "mpt, sizes and settings": (struct.pack("<4s2i2fi4s", b"lmgg", 4, 2, 8, 0, 4, b"word") + records(SMALL), "ggml"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_tensors_are_found_behind_any_header(name: str) -> None:
    data, version = FILES[name]
    checkpoint = read(data)
    assert (checkpoint.format, checkpoint.version, checkpoint.warnings) == ("ggml", version, ())
    assert list(checkpoint.tensors) == list(SMALL)
    for key, array in SMALL.items():
        np.testing.assert_array_equal(decode.read(checkpoint.tensors[key], Limits()), array.astype(np.float32))


def test_a_whisper_file_is_labelled_and_little_of_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ggml-tiny.bin"
    path.write_bytes(whisper(transformer() | {"big": np.zeros((4000, 64), np.float32)}))
    found = sniff(path)
    assert (found.label, found.format) == ("LayerNorm", "ggml")
    assert found.bytes_read is not None
    assert found.bytes_read < 250_000 < path.stat().st_size


def test_directories_of_them_are_searched(tmp_path: Path) -> None:
    for size in ("base", "tiny"):
        (tmp_path / f"ggml-{size}.bin").write_bytes(whisper(SMALL))
    assert [(one.path.name, one.format) for one in survey(tmp_path).inputs] == [
        ("ggml-base.bin", "ggml"),
        ("ggml-tiny.bin", "ggml"),
    ]


def quantised(kind: int, block: bytes) -> bytes:
    """A matrix of 2 x 64 in blocks of 32."""
    return struct.pack("<3i2i", 2, 1, kind, 64, 2) + b"q" + 4 * block


def test_blocks_of_today_are_decoded() -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    stored = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q5_0).tobytes()
    found = read(whisper(SMALL) + quantised(6, stored[:22])[: -4 * 22] + stored).tensors["q"]
    assert (found.dtype, found.shape) == ("Q5_0", (2, 64))
    np.testing.assert_allclose(decode.read(found, Limits()), values, atol=0.3)


@pytest.mark.parametrize(("kind", "name", "size"), [(2, "Q4_0", 20), (3, "Q4_1", 24), (8, "Q8_0", 36)])
def test_blocks_of_early_2023_are_stepped_over_and_named(kind: int, name: str, size: int) -> None:
    checkpoint = read(whisper(SMALL) + quantised(kind, bytes(size)) + records({"last": SMALL["ln.weight"]}))
    assert [*checkpoint.tensors][-2:] == ["q", "last"]
    assert checkpoint.tensors["q"].dtype == f"{name} of early 2023"
    assert checkpoint.warnings == (f"1 tensor of type {name} of early 2023, which is not decoded",)
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["last"], Limits()), SMALL["ln.weight"])


DATA = whisper(SMALL)
REFUSED: list[tuple[str, bytes, str]] = [
    ("cut off in the data", DATA[:-1], "unsupported"),
    ("cut off in a name", DATA[:-30], "unsupported"),
    ("bytes behind the last tensor", DATA + b"\0", "unsupported"),
    ("only a header", whisper({}), "unsupported"),
    ("only a magic number", b"lmgg", "unsupported"),
    ("nothing but small numbers", b"tjgg" + struct.pack("<i", 1) * 2000, "unsupported"),
    ("one name twice", DATA + records({"w": SMALL["w"]}), "duplicate-tensor"),
    ("a size that wraps", DATA + struct.pack("<7i", 4, 1, 0, *[1 << 30] * 4) + b"x", "unsupported"),
    ("a negative size", DATA + struct.pack("<4i", 1, 1, 0, -4) + b"x" + bytes(16), "unsupported"),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_others_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code


def test_limits() -> None:
    with pytest.raises(LimitExceeded):
        read(DATA, Limits(tensors=2))


def test_chains_that_lead_nowhere_cost_what_the_meter_allows() -> None:
    record = struct.pack("<4i", 1, 1, 24, 1) + b"x" + b"\1"  # int8, one of it
    data = b"lmgg" + 30_000 * record + b"\1"
    with pytest.raises(FormatError):
        read(data)
    with metered("m", Limits(steps=100_000)), pytest.raises(BudgetSpent):
        read(data)


@given(at=st.integers(4, len(DATA) - 1), value=st.integers(0, 255), cut=st.booleans())
@example(at=100, value=0, cut=True)
@settings(max_examples=150, deadline=None)
def test_damage_is_survived(at: int, value: int, cut: bool) -> None:
    data = bytearray(DATA)
    data[at] = value
    try:
        for found in read(bytes(data[:at] if cut else data)).tensors.values():
            decode.read(found, Limits())
    except NormsniffError:
        pass
