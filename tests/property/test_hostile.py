"""Whatever happens to the bytes of a real file, the answer is a record or a NormsniffError, in bounded time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normsniff
from tests.helpers.manifest import FIXTURES

# One file of each kind of header, small enough that a flip often hits the header.
FILES = (
    "groupnorm-none.safetensors",
    "gpt2-ln.Q4_K.gguf",
    "mlp-none.dynamo18.f32.onnx",
    "cohere-ln.ort-extended.f16.onnx",
    "llama-rms.int8.onnx",
    "batchnorm-none.f32.h5",
    "gpt2-ln.f16.keras",
    "plain-rms.f16.weights.h5",
)
_SECONDS = 20.0  # of wall clock on a busy machine; an honest answer takes well under one


def answer(data: bytes) -> None:
    started = time.perf_counter()
    try:
        record = normsniff.sniff(data)
    except normsniff.NormsniffError:
        pass
    else:
        assert record.label in ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined")
        assert record.to_json()
    assert time.perf_counter() - started < _SECONDS


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(data=st.data())
def test_flipped_bytes(name: str, data: st.DataObject) -> None:
    content = bytearray((FIXTURES / name).read_bytes())
    # Headers lie at the front (safetensors, GGUF, HDF5) or all over (ONNX, zip directories at the end).
    places = st.one_of(
        st.integers(0, 3000), st.integers(0, len(content) - 1), st.integers(len(content) - 2000, len(content) - 1)
    )
    for position in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[min(position, len(content) - 1)] = data.draw(st.integers(0, 255))
    answer(bytes(content))


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_truncations(name: str, data: st.DataObject) -> None:
    content = (FIXTURES / name).read_bytes()
    answer(content[: data.draw(st.one_of(st.integers(0, 4000), st.integers(0, len(content) - 1)))])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_inserted_and_repeated_runs(name: str, data: st.DataObject) -> None:
    content = (FIXTURES / name).read_bytes()
    at = data.draw(st.integers(0, min(len(content), 6000)))
    run = data.draw(
        st.one_of(st.binary(min_size=1, max_size=16), st.integers(1, 64).map(lambda n: content[at : at + n]))
    )
    answer(content[:at] + run + content[at:])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes(content: bytes) -> None:
    answer(content)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            b"GGUF\x03\x00\x00\x00",
            b"\x89HDF\r\n\x1a\n",
            b"PK\x03\x04",
            b"\x40\x00\x00\x00\x00\x00\x00\x00{",
            b"\x08\x09",
        ]
    ),
    st.binary(max_size=400),
)
def test_random_bytes_behind_a_signature(signature: bytes, content: bytes) -> None:
    answer(signature + content)


def test_a_broken_config_beside_a_good_file_is_a_warning(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", tmp_path)
    for text in ("{", "[1]", "null", '{"model_type": 7}', '{"model_type": "' + "x" * 10000 + '"}', "[" * 5000, "\x00"):
        (tmp_path / "config.json").write_text(text)
        assert normsniff.sniff(tmp_path / "model.safetensors").label == "LayerNorm"


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=8)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    ["model_type", "architectures", "text_config", "vision_config", "rms_norm_eps", "norm_type"]
                ),
                inner,
                max_size=4,
            ),
        ),
        max_leaves=12,
    )
)
def test_any_config_is_survived(tmp_path_factory: pytest.TempPathFactory, config: object) -> None:
    import json

    folder = tmp_path_factory.mktemp("config")
    shutil.copy(FIXTURES / "groupnorm-none.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    assert normsniff.sniff(folder / "model.safetensors").label
