"""Valid models of absurd structure are answered, or refused in words, within the budget, which counts steps.

Every strategy below draws a model that its format allows: towers by the thousand, blocks without layers, axes of 1 and
0, scales that all norms share, names of ten thousand characters, functions that call each other, a thousand outputs.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normsniff
from fuzz import seeds
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.limits import Limits
from tests.helpers import hdf5_files
from tests.helpers.lines import lines_run
from tests.helpers.manifest import FIXTURES
from tests.helpers.onnx_files import field, integer, node, number, onnx
from tests.helpers.torch_files import archive, tensor

STEPS = 30_000
LINES_A_STEP = 12  # at most, as in test_work
BEFORE = 60_000
FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

COUNTS = st.sampled_from([0, 1, 1, 2, 2, 3, 7, 40, 300])
WIDTHS = st.sampled_from([0, 1, 1, 2, 3, 4, 8, 16, 33])
LABELS = ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined")


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    for name in ("gpt2-ln", "mlp-none.dynamo18.f32.onnx", "batchnorm-none.f32.h5"):
        normsniff.sniff(FIXTURES / name)  # what is imported and compiled once is not a file's doing
    normsniff.sniff(seeds.torch_archive(seeds.arrays()))


def assert_answered(data: bytes, *, whole: bool = True) -> None:
    """Hold a model against what is promised.

    Args:
        data: the file.
        whole: whether it is of a size that must be answered by default.
    """
    try:
        record = normsniff.sniff(data)
    except LimitExceeded:
        assert not whole, "a model of this size is answered"
    else:
        assert record.label in LABELS
        assert len(record.to_json()) < 100 * len(data) + 1_000_000
    ends: list[object] = []

    def work() -> None:
        try:
            ends.append(normsniff.sniff(data, limits=Limits(steps=STEPS)))
        except NormsniffError as error:
            ends.append(error)

    assert lines_run(work) < BEFORE + LINES_A_STEP * STEPS, ends
    assert len(str(ends[0])) < 100 * len(data) + 1_000_000


@st.composite
def names(draw: st.DrawFn) -> Callable[[int], str]:
    """Return how the norms and matrices of one model are called: from nothing to ten thousand characters, or deep."""
    stem = draw(
        st.sampled_from(["model.layers", "h", "", "x" * 10_000, "a." * 300 + "layers", "层", "🦙.layers", "encoder"])
    )
    part = draw(st.sampled_from(["input_layernorm", "ln_1", "norm", "q" * 5_000, "attn.norm.norm.norm", "n"]))
    turned = draw(st.booleans())  # numbers last, or first
    return lambda i: f"{i}.{stem}.{part}" if turned else f"{stem}.{i}.{part}"


@st.composite
def models(draw: st.DrawFn) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a model: towers, blocks, norms of any width, matrices of any two, vectors alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    towers = draw(st.sampled_from([1, 1, 2, 5, 200]))
    call, depth = draw(names()), draw(COUNTS) // max(towers // 5, 1)
    parts = draw(st.lists(st.sampled_from(["weight", "bias", "gamma", "beta", "scale", "up.weight", ""]), max_size=4))
    for tower in range(towers):
        d, f = draw(WIDTHS) if tower < 3 else 2, draw(WIDTHS) if tower < 3 else 1
        before = f"tower{tower}." if towers > 1 else ""
        for i in range(depth):
            for part in parts:
                matrix = part.startswith("up")
                shapes[f"{before}{call(i)}.{part}"] = (f, d) if matrix else (d,)
        if draw(st.booleans()):
            shapes[f"{before}wte.weight"] = (draw(WIDTHS), d)
    if draw(st.booleans()):
        shapes["odd"] = draw(st.sampled_from([(), (0,), (1,) * 8, (3, 0, 2), (1, 1), (2, 3, 4, 5), (5000,)]))
    return shapes or {"w": ()}


def made(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(1 if len(shape) == 1 else 0, 0.1, shape).astype("f4") for name, shape in shapes.items()}


@FEW
@given(models())
def test_safetensors(shapes: dict[str, tuple[int, ...]]) -> None:
    assert_answered(seeds.safetensors_bytes(made(shapes)), whole=len(shapes) < 1_000)


@FEW
@given(models(), st.booleans())
def test_gguf(shapes: dict[str, tuple[int, ...]], odd: bool) -> None:
    """Names of GGUF are short, and no axis is 0."""
    usual = {name[-63:]: tuple(max(n, 1) for n in shape)[:4] or (1,) for name, shape in shapes.items()}
    keys: dict[str, Any] = {"general.architecture": "🦙" * 100 if odd else "llama"}
    assert_answered(gguf(usual, keys), whole=len(usual) < 1_000)


def gguf(shapes: dict[str, tuple[int, ...]], keys: dict[str, str]) -> bytes:
    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    head = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in keys.items())
    infos, data = b"", bytearray()
    for name, value in made(shapes).items():
        axes = value.shape[::-1]
        infos += text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, 0, len(data))
        data += value.tobytes() + bytes(-value.nbytes % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)) + head + infos
    return start + bytes(-len(start) % 32) + bytes(data)


@FEW
@given(models(), st.sampled_from(["own", "one", "strided"]))
def test_pytorch(shapes: dict[str, tuple[int, ...]], storages: str) -> None:
    """Every tensor has a storage of its own, all share one, or all are one element again and again."""
    if storages == "own":
        values, data = seeds.torch_values(made(shapes))
    else:
        most = max([int(np.prod(shape)) for shape in shapes.values()], default=1) + 1
        flat = [int(np.prod(shape[i + 1 :])) for shape in shapes.values() for i in range(len(shape))]
        steps = iter(flat if storages == "one" else [0] * len(flat))
        values = {
            name: tensor("0", shape, tuple(next(steps) for _ in shape), count=most) for name, shape in shapes.items()
        }
        data = {"0": np.ones(most, "f4").tobytes()}
    if all(1_000 < len(name.encode()) <= 4_096 for name in shapes):
        with pytest.raises(FormatError, match="names are too long"):
            normsniff.sniff(archive(values, data))
        return
    assert_answered(archive(values, data), whole=len(shapes) < 1_000)


@FEW
@given(models(), st.booleans(), st.sampled_from([None, (1,), "alike"]))
def test_keras_weights(shapes: dict[str, tuple[int, ...]], linked: bool, chunks: Any) -> None:
    """Groups in groups, one dataset behind all names, chunks of a single number, layers without variables."""

    def fill(file: h5py.File) -> None:
        first: dict[tuple[int, ...], Any] = {}
        for i, (name, value) in enumerate(list(made(shapes).items())[:60]):
            path = "/".join(filter(None, name[-200:].split("."))) or f"n{i}"
            with_chunks = chunks is not None and value.ndim == 1 and 0 < value.size < 100
            try:
                if linked and value.shape in first:
                    file[f"layers/{path}/vars/{i}"] = first[value.shape]
                    continue
                one = file.create_dataset(f"layers/{path}/vars/{i}", data=value, chunks=(1,) if with_chunks else None)
                first.setdefault(value.shape, one)
                file.require_group(f"layers/empty{i}/vars")
            except (ValueError, OSError, RuntimeError):  # a name that is taken
                continue

    deep = max(name.count(".") for name in shapes) > 50
    assert_answered(hdf5_files.write(fill), whole=len(shapes) < 400 and not deep)


@st.composite
def keras_configs(draw: st.DrawFn) -> dict[str, Any]:
    """Return a Keras configuration: models in models, layers by the hundred, layers that are called again and again."""

    def layer(kind: str, name: str, inputs: list[str]) -> dict[str, Any]:
        nodes = [[[one, 0, 0, {}] for one in inputs]] if inputs else []
        return {"class_name": kind, "name": name, "config": {"name": name, "axis": -1}, "inbound_nodes": nodes * again}

    again, count = draw(st.sampled_from([1, 1, 2, 50])), draw(COUNTS)
    kinds = draw(st.lists(st.sampled_from(["LayerNormalization", "Dense", "Add", "RMSNormalization", "X"]), min_size=1))
    layers = [layer("InputLayer", "l-1", [])]
    fan = draw(st.sampled_from([1, 1, 2, 20]))
    layers += [
        layer(kinds[i % len(kinds)], f"l{i}", [f"l{max(i - 1 - k, -1)}" for k in range(fan)]) for i in range(count)
    ]
    config: dict[str, Any] = {"class_name": "Functional", "config": {"name": "m", "layers": layers}}
    for level in range(draw(st.sampled_from([0, 0, 1, 10, 40]))):
        config = {"class_name": "Functional", "config": {"name": f"outer{level}", "layers": [config]}}
    return config


@FEW
@given(keras_configs(), models())
def test_keras_models(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["keras_version"] = "3.5"
        text = json.dumps(config)
        if len(text) < 60_000:  # of an attribute of the old style
            file.attrs["model_config"] = text
        for i, value in enumerate(list(made(shapes).values())[:50]):
            file[f"model_weights/l{i}/l{i}/gamma:0"] = value

    assert_answered(hdf5_files.write(fill), whole=len(shapes) < 1_000)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Return an ONNX graph, and whether it has functions that call each other or is as deep as no graph may be.

    Towers of norms with shared scales, thousands of ends, sub-graphs in sub-graphs, values that depend on themselves.
    """
    kind = draw(st.sampled_from(["LayerNormalization", "SimplifiedLayerNormalization", "Foreign", "Identity"]))
    d, towers, depth = draw(WIDTHS), draw(st.sampled_from([0, 1, 2, 100, 1_000])), draw(st.sampled_from([1, 1, 2, 30]))
    long = draw(st.sampled_from(["", "", "n" * 10_000]))
    shared = draw(st.booleans())
    nodes, weights, ends = [], [number("g", d)], []
    for tower in range(towers):
        last = "x"
        for i in range(depth if towers < 100 else 1):
            scale = "g" if shared else f"g{tower}.{i}{long if towers < 10 else ''}"
            if not shared and len(weights) < 200:
                weights.append(number(scale, d))
            out = f"v{tower}.{i}"
            nodes.append(node(kind, [last, scale], [out]))
            if draw(st.booleans()) if tower < 5 else False:
                nodes.append(node("MatMul", [out, "w"], [f"m{tower}.{i}"]))
                nodes.append(node("Add", [last, f"m{tower}.{i}"], [f"a{tower}.{i}"]))
                out = f"a{tower}.{i}"
            last = out
        ends.append(last)
    weights.append(number("w", d, d))
    nodes.append(node("Sum", ends or ["x"], ["y"]))
    nodes.append(node("Split", ["y"], [f"s{i}" for i in range(draw(st.sampled_from([1, 1_000])))]))
    body = field(1, node("Identity", ["y"], ["b0"])) + field(12, field(1, "b0"))
    levels = draw(st.sampled_from([0, 1, 20, 50]))
    for level in range(levels):
        branch = field(1, "then_branch") + integer(20, 5) + field(6, body)
        inner = node("If", ["x"], [f"b{level + 1}"], branch)
        body = field(1, inner) + field(12, field(1, f"b{level + 1}"))
    nodes.append(node("If", ["x"], ["z"], field(1, "then_branch") + integer(20, 5) + field(6, body)))
    if draw(st.booleans()):  # a cycle of values, as no order of execution has it
        nodes.append(node("Add", ["c1", "y"], ["c0"]))
        nodes.append(node("Mul", ["c0", "g"], ["c1"]))
    functions = []
    for i in range(draw(st.sampled_from([0, 0, 1, 2, 5]))):  # of which each calls the next, and the last the first
        calls = field(7, node(f"f{(i + 1) % 5}", ["a"], ["b"], domain="d"))
        functions.append(field(1, f"f{i}") + field(4, "a") + field(5, "b") + calls + field(10, "d"))
        nodes.append(node(f"f{i}", ["y"], [f"called{i}"], domain="d"))
    return onnx(nodes, functions, tuple(weights)), bool(functions) or levels > 20


@FEW
@given(graphs())
def test_onnx(graph: tuple[bytes, bool]) -> None:
    data, endless = graph
    if not endless:
        assert_answered(data, whole=len(data) < 20_000)
        return
    with contextlib.suppress(LimitExceeded, FormatError):
        assert_answered(data, whole=False)


def test_a_tensor_in_many_thousand_pieces() -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("layers/dense/vars/0", data=np.ones((200, 150), "f4"), chunks=(1, 1))
        file["layers/layer_normalization/vars/0"] = np.ones(150, "f4")

    assert_answered(hdf5_files.write(fill), whole=False)


@pytest.mark.parametrize("norm", ["rms", "ln"])
def test_ten_thousand_towers(norm: str) -> None:
    one = {name: value for name, value in seeds.arrays(norm, 1, 2).items() if "norm" in name}
    towers = {f"tower{i}.{name}": value for i in range(10_000) for name, value in one.items()}
    assert_answered(seeds.safetensors_bytes(towers), whole=False)
