from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import anatomy as anatomies
from normsniff import decode, sniff
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint, recognise
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from tests.helpers.ctranslate2_files import RNG, D, decoder, floats, model, quantised, text, variable, whisper


def read(data: bytes, **limits: int) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "model.bin"), Limits(**limits))


def test_variables_are_found_and_not_read() -> None:
    variables = decoder(shift=True) | {"large": floats(1000, 100)}
    data = model(variables)
    checkpoint = read(data)
    assert (checkpoint.format, checkpoint.version) == ("CTranslate2", "6")
    assert checkpoint.metadata["spec"] == "WhisperSpec"
    assert checkpoint.metadata["decoder/pre_norm"] == 1
    assert checkpoint.bytes_read < 8000
    assert {name for name, array in variables.items() if np.ndim(array)} == set(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(decode.read(tensor, Limits()), variables[name])


@pytest.mark.parametrize(("shift", "kind"), [(True, "LayerNorm"), (False, "RMSNorm")])
@pytest.mark.parametrize("int8", [False, True])
def test_a_shift_decides(shift: bool, kind: str, int8: bool) -> None:
    variables = decoder(shift=shift)
    found = anatomies.describe(read(model(quantised(variables) if int8 else variables)))
    assert [(s.kind, s.role, s.offset) for s in found.sites] == [(kind, "stream", 0.0)] * 5
    assert found.sites[0].name == "decoder/layer_0/ffn/layer_norm"
    roles = {m.tensor.name: (m.role, m.axis) for m in found.matrices if "layer_1" not in m.tensor.name}
    assert roles == {
        "decoder/embeddings/weight": ("embedding", 1),
        "decoder/projection/weight": ("unembedding", 1),
        "decoder/layer_0/self_attention/linear_0/weight": ("reader", 1),
        "decoder/layer_0/self_attention/linear_1/weight": ("writer", 0),
        "decoder/layer_0/ffn/linear_0/weight": ("reader", 1),
        "decoder/layer_0/ffn/linear_1/weight": ("writer", 0),
    }


def test_cross_attention_reads_the_encoder() -> None:
    found = anatomies.describe(read(model(whisper())))
    names = [site.name for site in found.sites]
    matrices = {m.tensor.name: m for m in found.matrices}
    key_value = matrices["decoder/layer_0/attention/linear_1/weight"]
    assert key_value.role == "reader"
    assert key_value.site is None or names[key_value.site] == "encoder/layer_norm"
    query = matrices["decoder/layer_0/attention/linear_0/weight"]
    assert query.site is not None
    assert names[query.site] == "decoder/layer_0/attention/layer_norm"
    assert matrices["decoder/layer_0/attention/linear_2/weight"].role == "writer"
    assert "encoder/conv1/weight" not in {m.tensor.name for m in found.matrices if m.role in ("writer", "reader")}


def test_quantised_rows_are_divided_by_their_scale() -> None:
    variables = decoder(shift=True)
    checkpoint = read(model(quantised(variables)))
    for name, array in variables.items():
        if name.endswith("/weight"):
            np.testing.assert_allclose(
                decode.read(checkpoint.tensors[name], Limits()), array, atol=np.abs(array).max() / 127
            )


def test_one_scale_for_all_of_an_int16_weight() -> None:
    stored = RNG.integers(-1000, 1000, (20, D)).astype(np.int16)
    data = model({"a/linear_0/weight": stored, "a/linear_0/weight_scale": np.float32(50)})
    np.testing.assert_allclose(decode.read(read(data).tensors["a/linear_0/weight"], Limits()), stored / 50, rtol=1e-5)


def test_scales_stored_minus_one() -> None:
    variables = decoder(shift=False)
    flags = {
        f"{n.removesuffix('/gamma')}/layer_norm_use_residual": np.int8(1) for n in variables if n.endswith("gamma")
    }
    found = anatomies.describe(read(model(variables | flags)))
    assert [site.offset for site in found.sites] == [1.0] * 5


def test_equal_scales_are_stored_once_and_found_everywhere() -> None:
    variables = decoder(shift=True)
    first, second = "decoder/layer_0/ffn/layer_norm/gamma", "decoder/layer_1/ffn/layer_norm/gamma"
    del variables[second]
    checkpoint = read(model(variables, {second: first}))
    assert checkpoint.tensors[second].storage == checkpoint.tensors[first].storage
    assert len(anatomies.describe(checkpoint).sites) == 5


def test_placement_is_taken_from_the_file() -> None:
    variables = decoder(shift=True)
    del variables["decoder/layer_norm/gamma"], variables["decoder/layer_norm/beta"]
    found = anatomies.describe(read(model(variables | {"decoder/pre_norm": np.int8(0)})))
    names = [site.name for site in found.sites]
    by_name = {m.tensor.name: m for m in found.matrices}
    up = by_name["decoder/layer_0/ffn/linear_0/weight"]
    assert up.site is not None
    assert names[up.site] == "decoder/layer_0/self_attention/layer_norm"  # after attention, so before the MLP


def test_a_directory_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model(decoder(shift=True)))
    (tmp_path / "config.json").write_text('{"layer_norm_epsilon": null}')
    (tmp_path / "vocabulary.json").write_text("[]")
    assert [(one.path.name, one.format) for one in survey(tmp_path).inputs] == [("model.bin", "CTranslate2")]
    assert sniff(tmp_path).label == "LayerNorm"


GOOD = model({"a/weight": floats(4, 4), "b": np.int8(1)})
HEAD = struct.pack("<I", 6) + text("TransformerSpec") + struct.pack("<I", 7)
HOSTILE = {
    "newer": (struct.pack("<I", 9) + GOOD[4:], "bad-version"),
    "count": (HEAD + struct.pack("<I", 1 << 31), "truncated"),
    "cut": (GOOD[:-30], "truncated"),
    "empty name": (HEAD + struct.pack("<IH", 1, 0) + bytes(20), "bad-name"),
    "long name": (HEAD + struct.pack("<IH", 1, 60000) + bytes(70000), "bad-name"),
    "no NUL": (HEAD + struct.pack("<IH", 1, 2) + b"ab" + bytes(20), "bad-name"),
    "axes": (HEAD + struct.pack("<I", 1) + text("a") + b"\xff" + bytes(2000), "bad-shape"),
    "length": (GOOD.replace(struct.pack("<I", 64), struct.pack("<I", 60)), "bad-length"),
    "twice": (HEAD + struct.pack("<I", 2) + 2 * variable("a", floats(2)) + bytes(4), "duplicate-tensor"),
    "scales": (model({"w": np.zeros((4, 4), np.int8), "w_scale": floats(3)}), "bad-scale"),
    "not text": (HEAD + struct.pack("<IH", 1, 3) + b"\xff\xfe\0" + bytes(20), "bad-text"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str) -> None:
    data, code = HOSTILE[case]
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code


def test_caps() -> None:
    with pytest.raises(LimitExceeded):
        read(model(decoder(shift=True)), tensors=5)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (GOOD, "CTranslate2"),
        (struct.pack("<IH", 6, 12) + b"Not printed\0", None),  # a space
        (struct.pack("<IH", 6, 12) + b"WhisperSpecX", None),
        (struct.pack("<I", 6) + bytes(100), None),
    ],
)
def test_recognised_by_content(start: bytes, expected: str | None) -> None:
    row = recognise(BytesSource(start), Limits())
    assert (row.name if row else None) == expected


VALID = model(quantised(decoder(shift=True)), {"decoder/again/gamma": "decoder/layer_norm/gamma"})


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(VALID) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_an_answer_or_a_clear_error(at: int, value: int, cut: bool) -> None:
    data = VALID[:at] if cut else VALID[:at] + bytes([value]) + VALID[at + 1 :]
    with contextlib.suppress(NormsniffError), np.errstate(all="ignore"):  # a damaged weight may be huge
        sniff(data)
