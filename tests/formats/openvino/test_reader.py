from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff import decode, sniff
from normsniff.anatomy.graph import describe as graph_anatomy
from normsniff.checkpoint import Checkpoint
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import read_checkpoint, recognise
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource
from tests.helpers.openvino_files import D, Ir, floats, transformer


def read(path: Path, **limits: int) -> Checkpoint:
    return read_checkpoint(FileSource(path), Limits(**limits))


@pytest.mark.parametrize("kind", ["LayerNorm", "RMS", "decomposed RMS"])
def test_norms_and_matrices_of_a_block(tmp_path: Path, kind: str) -> None:
    checkpoint = read(transformer(kind).write(tmp_path / "m.xml"))
    assert (checkpoint.format, checkpoint.version) == ("OpenVINO", "IR 11")
    anatomy = graph_anatomy.describe(checkpoint)
    assert anatomy is not None
    expected = "LayerNorm" if kind == "LayerNorm" else "RMSNorm"
    assert [(site.kind, site.role, site.width) for site in anatomy.sites] == [(expected, "stream", D)] * 2
    assert all((site.shift is not None) == (expected == "LayerNorm") for site in anatomy.sites)
    assert {m.tensor.name: (m.role, m.axis) for m in anatomy.matrices} == {
        "table": ("embedding", 1), "up": ("reader", 1), "down": ("writer", 0), "head": ("unembedding", 1),
    }  # fmt: skip


def test_only_small_constants_are_read(tmp_path: Path) -> None:
    ir = transformer("LayerNorm")
    ir.const(floats(1000, 1000), "large")
    path = ir.write(tmp_path / "m.xml")
    checkpoint = read(path)
    assert checkpoint.bytes_read < path.stat().st_size + 500
    assert checkpoint.tensors["large"].nbytes == 4_000_000


def test_a_group_norm_is_no_layer_norm(tmp_path: Path) -> None:
    ir = Ir()
    x = ir.add("Parameter", rank=4, shape="1,16,8,8", element_type="f32")
    grouped = ir.add("Reshape", x, ir.const(np.array([0, 4, -1])), special_zero="true")
    mvn = ir.add("MVN", grouped, ir.const(np.array([2])), eps=1e-5, normalize_variance="true", eps_mode="INSIDE_SQRT")
    back = ir.add("Reshape", mvn, ir.const(np.array([1, 16, 8, 8])), rank=4, special_zero="true")
    ir.add("Result", ir.add("Multiply", back, ir.const(floats(1, 16, 1, 1)), rank=4))
    anatomy = graph_anatomy.describe(read(ir.write(tmp_path / "m.xml")))
    assert anatomy is not None
    assert anatomy.sites == ()


def unpacked(ir: Ir, name: str, weight: Any, *, groups: int = 1, zero: bool = True, bits: int = 8) -> int:
    """Store a weight as integers with a scale for each row, or for each group of a row."""
    rows, columns = weight.shape
    blocks = weight.reshape(rows, groups, -1)
    low, high = blocks.min(-1, keepdims=True), blocks.max(-1, keepdims=True)
    scale = ((high - low) / ((1 << bits) - 1)).astype(np.float16)
    offset = np.rint(-low / scale)
    stored = np.clip(np.rint(blocks / scale) + offset, 0, (1 << bits) - 1).astype(np.uint8)
    if groups == 1:
        stored, scale, offset = stored.reshape(rows, columns), scale.reshape(rows, 1), offset.reshape(rows, 1)
    shape = stored.shape
    if bits == 4:
        flat = stored.reshape(-1)
        stored = (flat[::2] | flat[1::2] << 4).astype(np.uint8)
    integers = ir.const(stored, name, kind=f"u{bits}", shape=shape)
    floating = ir.add("Convert", integers, destination_type="f16")
    shifted = ir.add("Subtract", floating, ir.const(offset.astype(np.float16))) if zero else floating
    product = ir.add("Multiply", shifted, ir.const(scale))
    flat_shape = ir.const(np.array([rows, columns]))
    return product if groups == 1 else ir.add("Reshape", product, flat_shape, special_zero="false")


@pytest.mark.parametrize(("groups", "bits"), [(1, 8), (2, 8), (2, 4)])
def test_packed_weights_are_unpacked(tmp_path: Path, groups: int, bits: int) -> None:
    weights: dict[str, Any] = {}

    def put(ir: Ir, name: str, array: Any) -> int:
        weights[name] = array
        return unpacked(ir, name, array, groups=groups, bits=bits)

    checkpoint = read(transformer("LayerNorm", put).write(tmp_path / "m.xml"))
    anatomy = graph_anatomy.describe(checkpoint)
    assert anatomy is not None
    found = {m.tensor.name: m for m in anatomy.matrices}
    assert (found["up"].role, found["up"].axis) == ("reader", 1)
    assert (found["down"].role, found["down"].axis) == ("writer", 0)
    for name, array in weights.items():
        tensor = checkpoint.tensors[name]
        tolerance = 2 * np.ptp(array) / (1 << bits)
        np.testing.assert_allclose(decode.read(tensor, Limits()), array, atol=tolerance)
        for axis in (0, 1):  # by blocks it is the same
            blocks = np.concatenate(list(decode.vectors(tensor, axis, Limits())))
            np.testing.assert_allclose(
                np.sort(blocks.ravel()), np.sort(decode.read(tensor, Limits()).ravel()), rtol=1e-6
            )


def test_sub_graphs_are_flattened(tmp_path: Path) -> None:
    ir = Ir()
    x = ir.add("Parameter", shape="1,4,16", element_type="f32")
    inner = Ir()
    given_x = inner.add("Parameter", shape="1,4,16", element_type="f32")
    inner.data = ir.data
    inner.add("Result", inner.norm(given_x, "LayerNorm"))
    ir.data = inner.data
    body = f"<layers>{''.join(inner.layers)}</layers><edges>{''.join(inner.edges)}</edges>"
    loop = ir.add("TensorIterator", x)
    maps = '<port_map><input external_port_id="0" internal_layer_id="0"/></port_map>'
    ir.layers[loop] = ir.layers[loop].replace("</layer>", f"{maps}<body>{body}</body></layer>")
    ir.add("Result", loop)
    anatomy = graph_anatomy.describe(read(ir.write(tmp_path / "m.xml")))
    assert anatomy is not None
    assert [site.kind for site in anatomy.sites] == ["LayerNorm"]


def test_the_pair_is_one_model_of_a_directory(tmp_path: Path) -> None:
    transformer("LayerNorm").write(tmp_path / "openvino_model.xml")
    (tmp_path / "other.xml").write_text("<note/>")
    assert [(model.path.name, model.format) for model in survey(tmp_path).inputs] == [
        ("openvino_model.xml", "OpenVINO")
    ]
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    record = sniff(tmp_path)
    assert record.label == "LayerNorm"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b'<?xml version="1.0"?>\n<net name="m" version="11">', "OpenVINO"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><!-- made --><net name="m">', "OpenVINO"),
        (b'<?xml version="1.0"?><svg xmlns="x">', None),
        (b"<network>", None),
        (b"<html><net >", None),
    ],
)
def test_recognised_by_content(start: bytes, expected: str | None) -> None:
    row = recognise(BytesSource(start), Limits())
    assert (row.name if row else None) == expected


def const(**changes: str) -> str:
    data = {"element_type": "f32", "shape": "2, 3", "offset": "0", "size": "24"} | changes
    attributes = " ".join(f'{key}="{value}"' for key, value in data.items())
    return f'<layer id="0" name="c" type="Const"><data {attributes}/><output><port id="0"/></output></layer>'


EDGE = '<edge from-layer="{}" from-port="5" to-layer="1" to-port="0"/>'
RESULT = '<layer id="1" type="Result"><input><port id="0"/></input></layer>'
HOSTILE = {
    "entities": ('<!DOCTYPE net [<!ENTITY a "b">]><net><layers/></net>', "unsafe-xml"),
    "external entity": ('<!DOCTYPE net SYSTEM "file:///etc/passwd"><net></net>', "unsafe-xml"),
    "not closed": ("<net ><layers>", "bad-xml"),
    "no number": (f"<net ><layers>{const(offset='-1')}</layers></net>", "bad-offset"),
    "huge number": (f"<net ><layers>{const(offset='9' * 30)}</layers></net>", "bad-offset"),
    "outside": (f"<net ><layers>{const(offset='30')}</layers></net>", "truncated"),
    "size and shape": (f"<net ><layers>{const(size='20')}</layers></net>", "bad-length"),
    "negative axis": (f"<net ><layers>{const(shape='-2, -3')}</layers></net>", "bad-shape"),
    "many axes": (f"<net ><layers>{const(shape=','.join('1' * 100))}</layers></net>", "bad-shape"),
    "same id": (f"<net ><layers>{const()}{const()}</layers></net>", "duplicate-layer"),
    "edge to nothing": (f"<net ><layers>{const()}</layers><edges>{EDGE.format(7)}</edges></net>", "bad-edge"),
    "edge from no port": (f"<net ><layers>{const()}{RESULT}</layers><edges>{EDGE.format(0)}</edges></net>", "bad-edge"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path: Path, case: str) -> None:
    text, code = HOSTILE[case]
    (tmp_path / "m.xml").write_text(text)
    (tmp_path / "m.bin").write_bytes(bytes(32))
    with pytest.raises(FormatError) as caught:
        read(tmp_path / "m.xml")
    assert caught.value.code == code


def test_weights_must_be_there_and_inside(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = transformer("RMS").write(tmp_path / "model/m.xml")
    weights = path.with_suffix(".bin")
    outside = tmp_path / "elsewhere.bin"
    weights.rename(outside)
    with pytest.raises(FormatError, match="not beside"):
        read(path)
    weights.symlink_to(outside)
    with pytest.raises(FormatError, match="leaves the model's folder"):
        read(path)


@pytest.mark.parametrize("limits", [{"graph_bytes": 100}, {"operators": 3}, {"tensors": 2}])
def test_caps(tmp_path: Path, limits: dict[str, int]) -> None:
    path = transformer("RMS").write(tmp_path / "m.xml")
    with pytest.raises(LimitExceeded):
        read(path, **limits)


def test_depth_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<net >" + "<a>" * 100_000)
    with pytest.raises(LimitExceeded):
        read(tmp_path / "m.xml")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 1 << 30), value=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_an_answer_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("ir")
    path = transformer("LayerNorm").write(folder / "m.xml")
    target = path if at % 4 else path.with_suffix(".bin")
    data = bytearray(target.read_bytes())
    at = (at // 4) % len(data)
    if cut:
        del data[at:]
    else:
        data[at] = value
    target.write_bytes(data)
    with contextlib.suppress(NormsniffError), np.errstate(all="ignore"):  # a damaged weight may be huge
        sniff(path)
