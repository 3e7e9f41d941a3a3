from __future__ import annotations

import contextlib
import struct
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
from normsniff.limits import Limits
from normsniff.source.local import BytesSource
from tests.helpers.tflite_files import ADD, COMPOSITE, RNG, D, Graph, flatbuffer, floats, transformer


def read(data: bytes, **limits: int) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m.tflite"), Limits(**limits))


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", ["LayerNorm", "LayerNorm without shift", "RMSNorm"])
def test_norms_and_matrices_of_a_block(kind: str, quantised: bool) -> None:
    checkpoint = read(flatbuffer(transformer(kind, quantised=quantised)))
    assert (checkpoint.format, checkpoint.version) == ("TFLite", "3")
    anatomy = graph_anatomy.describe(checkpoint)
    assert anatomy is not None
    assert [(s.kind, s.role, s.width) for s in anatomy.sites] == [(kind.split()[0], "stream", D)] * 2
    assert all((s.shift is not None) == (kind == "LayerNorm") for s in anatomy.sites)
    assert all(s.scale is not None for s in anatomy.sites)
    assert {m.tensor.name: (m.role, m.axis) for m in anatomy.matrices} == {
        "table": ("embedding", 1), "up": ("reader", 1), "down": ("writer", 0), "head": ("unembedding", 1),
    }  # fmt: skip


def test_weights_are_dequantised_by_row_or_column() -> None:
    stored, scale = RNG.integers(-127, 128, (20, 30)).astype(np.int8), np.linspace(0.1, 1, 30).astype(np.float32)
    graph = Graph()
    graph.const(stored, "w", scale, axis=1)
    tensor = read(flatbuffer(graph.model([], []))).tensors["w"]
    np.testing.assert_allclose(decode.read(tensor, Limits()), stored * scale, rtol=1e-6)


def test_a_bias_is_dequantised_by_channel_whatever_axis_is_given() -> None:
    """Converters give it the axis of the kernel whose channels it follows."""
    stored, scale = RNG.integers(-999, 999, 8).astype(np.int32), np.linspace(0.1, 1, 8).astype(np.float32)
    graph = Graph()
    graph.const(stored, "b", scale, axis=3)
    tensor = read(flatbuffer(graph.model([], []))).tensors["b"]
    np.testing.assert_allclose(decode.read(tensor, Limits()), stored * scale, rtol=1e-6)


def test_data_behind_the_flatbuffer_is_found() -> None:
    graph = Graph()
    graph.const(np.zeros((10, 10), np.float32), "w")
    graph.buffers[1] = {1: ("Q", 0), 2: ("Q", 400)}
    start = len(flatbuffer(graph.model([], [])))
    graph.buffers[1] = {1: ("Q", start), 2: ("Q", 400)}
    weight = floats(10, 10)
    checkpoint = read(flatbuffer(graph.model([], [])) + weight.tobytes())
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["w"], Limits()), weight)


def test_a_composite_is_its_decomposition() -> None:
    inner, outer = Graph(), Graph()
    given_x = inner.value(1, 4, D)
    result = inner.norm(given_x, "RMSNorm")
    outer.buffers, outer.codes = inner.buffers, [*inner.codes, COMPOSITE]
    outer.others = [inner.subgraph([given_x], [result])]
    x = outer.value(1, 4, D)
    out = outer.op(COMPOSITE, x, _12={0: b"odml.rms_norm", 1: ("i", 1)})
    anatomy = graph_anatomy.describe(read(flatbuffer(outer.model([x], [out]))))
    assert anatomy is not None
    assert [site.kind for site in anatomy.sites] == ["RMSNorm"]


def test_bulk_is_not_read() -> None:
    graph = Graph()
    graph.const(np.zeros((1000, 1000), np.float32), "w")
    assert read(flatbuffer(graph.model([], []))).bytes_read <= 4096, "a page to recognise it by"


def broken(**changes: Any) -> bytes:
    """Return a model of one constant, with fields of its tensor, buffer or operator replaced."""
    graph = Graph()
    graph.const(floats(20, 5), "w")
    graph.op(ADD, 0, 0)
    for key, value in changes.items():
        target = {"t": graph.tensors[0], "b": graph.buffers[1], "o": graph.operators[0]}[key[0]]
        target[int(key[1:])] = value
    return flatbuffer(graph.model([], []))


HOSTILE = {
    "length and shape": (broken(t0=np.array([20, 6], "<i4")), "bad-length"),
    "negative axis": (broken(t0=np.array([-20, -5], "<i4")), "bad-shape"),
    "many axes": (broken(t0=np.ones(200, "<i4")), "bad-shape"),
    "no such buffer": (broken(t2=("I", 99)), "bad-buffer"),
    "no such code": (broken(o0=("I", 99)), "bad-operator"),
    "no such tensor": (broken(o1=np.array([7], "<i4")), "bad-tensor"),
    "data beyond the end": (broken(b0=b"", b1=("Q", 1 << 40), b2=("Q", 400)), "truncated"),
    "scales": (broken(t1=("b", 9), b0=bytes(100), t4={2: np.ones(7, "<f4"), 6: ("i", 0)}), "bad-scale"),
    "root outside": (struct.pack("<I4s", 1 << 31, b"TFL3") + bytes(40), "bad-offset"),
    "layout outside": (struct.pack("<I4si", 8, b"TFL3", 1 << 30) + bytes(40), "bad-offset"),
    "no subgraph": (flatbuffer({0: ("I", 3)}), "no-graph"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case: str) -> None:
    data, code = HOSTILE[case]
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code


@pytest.mark.parametrize("limits", [{"graph_bytes": 1000}, {"operators": 3}, {"tensors": 2}])
def test_caps(limits: dict[str, int]) -> None:
    with pytest.raises(LimitExceeded):
        read(flatbuffer(transformer("RMSNorm")), **limits)


def test_a_subgraph_that_calls_itself_ends() -> None:
    outer, inner = Graph(), Graph()
    outer.codes = inner.codes = [COMPOSITE]
    x = inner.value(1)
    inner.op(COMPOSITE, x, _12={0: b"again", 1: ("i", 1)})
    inner.op(COMPOSITE, x, _12={0: b"again", 1: ("i", 1)})
    outer.others = [inner.subgraph([x], [1])]
    out = outer.op(COMPOSITE, outer.value(1), _12={0: b"again", 1: ("i", 1)})
    with pytest.raises(LimitExceeded):
        read(flatbuffer(outer.model([0], [out])))


def test_recognised_by_its_identifier() -> None:
    row = recognise(BytesSource(flatbuffer(transformer("RMSNorm"))), Limits())
    assert row is not None
    assert row.name == "TFLite"


VALID = flatbuffer(transformer("LayerNorm", quantised=True))


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(VALID) - 1), value=st.integers(0, 255), cut=st.booleans())
def test_damage_gives_an_answer_or_a_clear_error(at: int, value: int, cut: bool) -> None:
    data = VALID[:at] if cut else VALID[:at] + bytes([value]) + VALID[at + 1 :]
    with contextlib.suppress(NormsniffError), np.errstate(all="ignore"):  # a damaged weight may be huge
        sniff(data)
