"""`Limits` of the caller count everywhere: what is raised is raised, and nothing below falls back on the defaults."""

from __future__ import annotations

import ast
import dataclasses
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from normsniff import decode
from normsniff.checkpoint import Affine, ArraySlab, TensorInfo
from normsniff.errors import LimitExceeded, NormsniffError
from normsniff.formats import explain_unknown, recognise
from normsniff.formats.onnx.nbits import decoded_blocks
from normsniff.formats.openvino.weights import dequantised
from normsniff.inputs.arrays import from_arrays
from normsniff.inputs.walk import survey
from normsniff.limits import Limits
from normsniff.packed.schemes import unpack
from normsniff.source.local import BytesSource
from normsniff.source.views import Extent

SOURCES = Path(__file__).parents[1] / "src" / "normsniff"
# Rooms in which nobody comes in from outside, so that there always is a caller with limits; but for what is bounded by
# itself: a page that is looked at to recognise a format, and the few numbers of a graph that tell what it computes.
BELOW = ("source", "checkpoint", "decode", "formats", "packed", "kernel", "anatomy", "measure", "evidence", "verdict")
BOUNDED = {"formats/flax", "anatomy/graph/bench", "anatomy/graph/poolings"}
TINY = Limits(tensor_bytes=100)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCES.rglob("*.py")):
        yield path.relative_to(SOURCES).with_suffix("").as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_below_the_doors_nobody_makes_limits() -> None:
    made = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Limits" and not node.keywords
    }
    assert sorted(name for name in made if name.startswith(BELOW)) == sorted(BOUNDED)


def arguments(function: ast.FunctionDef) -> dict[str, ast.expr | None]:
    """Arguments of a function and their defaults."""
    given = function.args
    places = (*given.posonlyargs, *given.args)
    padded = [None] * (len(places) - len(given.defaults)) + [*given.defaults]
    named = zip((*places, *given.kwonlyargs), (*padded, *given.kw_defaults), strict=True)
    return {one.arg: default for one, default in named}


def test_who_has_limits_hands_them_on() -> None:
    """Where they may be left out, no function that has them leaves them out; elsewhere the type checker sees to it."""
    functions = [
        (name, node) for name, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]
    optional = {function.name for _, function in functions if arguments(function).get("limits") is not None}
    assert "open_source" in optional
    forgotten = [
        f"{name}:{call.lineno} {ast.unparse(call)}"
        for name, function in functions
        if "limits" in arguments(function)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) in optional and "limits" not in ast.unparse(call)
    ]
    assert forgotten == []


def test_a_tensor_read_whole() -> None:
    tensor = TensorInfo("t", "F32", (50,), ArraySlab(np.ones(50, np.float32)))
    with pytest.raises(LimitExceeded, match="200 is over the limit of 100"):
        decode.read(tensor, TINY)
    assert decode.read(tensor, Limits(tensor_bytes=200)).sum() == 50


def test_the_smallest_block_of_a_matrix() -> None:
    tensor = TensorInfo("t", "F32", (50, 4), ArraySlab(np.ones((50, 4), np.float32)))
    with pytest.raises(LimitExceeded, match="smallest block"):
        next(decode.vectors(tensor, 0, TINY))
    (rows,) = decode.vectors(tensor, 0, Limits(tensor_bytes=200))
    assert rows.shape == (4, 50)


def test_scales_of_a_quantised_matrix() -> None:
    scale = TensorInfo("s", "F32", (50,), ArraySlab(np.full(50, 2, np.float32)))
    tensor = TensorInfo("t", "I8", (50, 4), ArraySlab(np.ones((50, 4), np.int8)), affine=Affine(scale, None, 0))
    with pytest.raises(LimitExceeded, match="s: bytes of a tensor"):
        next(decode.vectors(tensor, 1, TINY))
    assert next(decode.vectors(tensor, 1, Limits(tensor_bytes=200)))[0, 0] == 2


def test_packed_weights() -> None:
    rows, columns = 16, 64
    data = np.zeros((rows, columns // 8), "<u4")
    source = BytesSource(
        data.tobytes() + np.ones((rows, 2), "<f4").tobytes() + np.array([rows, columns], "<i8").tobytes()
    )
    ends = (data.nbytes, data.nbytes + 8 * rows, data.nbytes + 8 * rows + 16)
    tensors = {
        "m.weight_packed": TensorInfo("m.weight_packed", "I32", data.shape, Extent(source, 0, ends[0])),
        "m.weight_scale": TensorInfo("m.weight_scale", "F32", (rows, 2), Extent(source, *ends[:2])),
        "m.weight_shape": TensorInfo("m.weight_shape", "I64", (2,), Extent(source, *ends[1:])),
    }
    checkpoint = from_arrays({}, Limits())
    for most, fits in ((200, False), (5000, True)):
        limits = Limits(tensor_bytes=most)
        tensor = unpack(dataclasses.replace(checkpoint, tensors=tensors), limits).tensors["m.weight"]
        if fits:
            assert np.array_equal(decode.read(tensor, limits), np.full((rows, columns), -8, np.float32))
        else:
            with pytest.raises(LimitExceeded, match="over the limit of 200"):
                next(decode.vectors(tensor, 1, Limits()))


def test_blocks_of_onnx_and_of_openvino() -> None:
    scales = TensorInfo("s", "F32", (200,), ArraySlab(np.ones(200, np.float32)))
    packed = TensorInfo("w", "U8", (200, 1, 16), ArraySlab(np.zeros((200, 1, 16), np.uint8)))
    attributes = {"N": 200, "K": 32, "bits": 4, "block_size": 32}
    source = BytesSource(bytes(200 * 2 * 4))
    stored = TensorInfo("g", "U8", (200, 2, 4), Extent(source, 0, source.size))
    grid = TensorInfo("c", "F32", (200, 2, 1), ArraySlab(np.ones((200, 2, 1), np.float32)))
    for most, fits in ((100, False), (800, True)):
        limits = Limits(tensor_bytes=most)
        for weight in (
            decoded_blocks(packed, scales, None, attributes, "m", limits),
            dequantised(stored, grid, None, limits),
        ):
            assert weight is not None
            assert not isinstance(weight.storage, Extent)
            if fits:
                assert weight.storage.read(np.s_[0:2, 0:4]).shape == (2, 4)
            else:
                with pytest.raises(LimitExceeded, match="over the limit of 400"):
                    weight.storage.read(np.s_[0:2, 0:4])


def test_members_of_an_archive(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for n in range(20):
            archive.writestr(f"{n}.txt", "")
    source = BytesSource(memory.getvalue())
    assert recognise(source, Limits()) is None
    assert "holds no model" in explain_unknown(source, Limits()).reason
    with pytest.raises(LimitExceeded, match="members of an archive"):
        recognise(source, Limits(tensors=10))
    (tmp_path / "a.zip").write_bytes(memory.getvalue())
    with pytest.raises(NormsniffError, match="members of an archive 20 is over the limit of 10"):
        survey(tmp_path, Limits(tensors=10))
