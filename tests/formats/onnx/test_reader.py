from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from normsniff import decode
from normsniff.anatomy.graph import describe as graph_anatomy
from normsniff.checkpoint import ArraySlab, Checkpoint, Operator
from normsniff.errors import FormatError, LimitExceeded, NormsniffError
from normsniff.formats import FORMATS, read_checkpoint, recognise
from normsniff.formats.onnx.reader import looks_like_model
from normsniff.limits import Limits
from normsniff.source.local import BytesSource, FileSource
from normsniff.source.views import Extent


def matmul(x: str, w: str) -> Any:
    return helper.make_node("MatMul", [x, w], ["y"])


def dequantise(inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node("DequantizeLinear", inputs.split(), [output], **attributes)


RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def model(nodes: list[Any], weights: dict[str, Any], outputs: str = "y", inputs: str = "x", **extra: Any) -> bytes:
    """Serialise a model; weights are arrays or TensorProtos."""
    protos = [w if isinstance(w, TensorProto) else numpy_helper.from_array(w, name) for name, w in weights.items()]
    values = [[helper.make_tensor_value_info(n, 1, None) for n in names.split()] for names in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *values, initializer=protos)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    made = helper.make_model(graph, opset_imports=opsets, producer_name="test", **extra)
    data: bytes = made.SerializeToString()
    return data


def read(data: bytes, **limits: int) -> Checkpoint:
    return read_checkpoint(BytesSource(data, "m.onnx"), Limits(**limits))


def operators(checkpoint: Checkpoint) -> tuple[Operator, ...]:
    assert checkpoint.graph is not None
    return checkpoint.graph.operators


MATMUL = matmul("x", "w")


def test_bulk_data_stays_in_the_file_and_its_place_is_known() -> None:
    weight = floats(512, 1024)
    data = model([MATMUL], {"w": weight, "b": floats(512)})
    checkpoint = read(data)
    assert checkpoint.format == "ONNX"
    assert checkpoint.version == f"IR {onnx.load_from_string(data).ir_version}"
    assert checkpoint.metadata["producer_name"] == "test"
    assert checkpoint.metadata["opset.ai.onnx"] == 18
    assert checkpoint.metadata["opset.com.microsoft"] == 1
    assert list(checkpoint.tensors) == ["w", "b"]
    storage = checkpoint.tensors["w"].storage
    assert isinstance(storage, Extent)
    assert data[storage.start : storage.stop] == weight.tobytes()
    assert checkpoint.tensors["w"].dtype == "F32"
    assert checkpoint.tensors["w"].shape == (512, 1024)
    assert checkpoint.bytes_read < 5_000  # of 2 MB
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["w"], Limits()), weight)


ALL_TYPES = {
    "FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "DOUBLE": "F64", "INT8": "I8", "UINT8": "U8", "INT16": "I16",
    "UINT16": "U16", "INT32": "I32", "UINT32": "U32", "INT64": "I64", "UINT64": "U64", "BOOL": "BOOL", "INT4": "I4",
    "UINT4": "U4", "FLOAT8E4M3FN": "F8_E4M3", "FLOAT8E4M3FNUZ": "F8_E4M3FNUZ", "FLOAT8E5M2": "F8_E5M2",
    "FLOAT8E5M2FNUZ": "F8_E5M2FNUZ",
}  # fmt: skip


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("shape", [(3, 5), (30, 41)], ids=["small", "large"])
@pytest.mark.parametrize("kind", ALL_TYPES)
def test_every_type_in_every_field_equals_onnx(kind: str, shape: tuple[int, ...], raw: bool) -> None:
    number = getattr(TensorProto, kind)
    values = np.arange(np.prod(shape)) % 7
    if raw:
        array = values.reshape(shape).astype(helper.tensor_dtype_to_np_dtype(number))
        proto = numpy_helper.from_array(array, "w")
        assert proto.data_type == number
    else:
        proto = helper.make_tensor("w", number, shape, values.tolist())
    tensor = read(model([MATMUL], {"w": proto})).tensors["w"]
    assert tensor.dtype == ALL_TYPES[kind]
    assert tensor.shape == shape
    expected = numpy_helper.to_array(proto).astype(np.float32)
    np.testing.assert_array_equal(decode.read(tensor, Limits()), expected)
    columns = np.concatenate(list(decode.vectors(tensor, 0, Limits())))  # in any order
    np.testing.assert_array_equal(np.unique(columns, axis=0), np.unique(expected.T, axis=0))
    assert len(columns) == shape[1]


def test_packed_data_in_several_pieces() -> None:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=[2000])
    bits = np.arange(2000, dtype=np.uint16).view(np.float16)
    first, second = TensorProto(int32_data=range(900)), TensorProto(int32_data=range(900, 2000))
    data = model([MATMUL], {"w": proto})
    # protobuf lets a packed field come in pieces: append them to the tensor, field by field, and fix the lengths around
    pieces = proto.SerializeToString() + first.SerializeToString() + second.SerializeToString()
    graph = onnx.load_from_string(data).graph
    del graph.initializer[:]
    body = graph.SerializeToString() + b"\x2a" + varint(len(pieces)) + pieces
    tensor = read(b"\x08\x0a\x3a" + varint(len(body)) + body).tensors["w"]
    np.testing.assert_array_equal(decode.read(tensor, Limits()), bits.astype(np.float32))
    assert decode.read(tensor, Limits()).shape == (2000,)


def varint(n: int) -> bytes:
    return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])


def test_constant_nodes() -> None:
    weight = floats(40, 30)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("Constant", [], ["gamma"], value=numpy_helper.from_array(floats(8))),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["ints"], value_ints=[3, 4]),
        helper.make_node("Constant", [], ["floats"], value_floats=[0.5] * 100),
        MATMUL,
    ]
    checkpoint = read(model(nodes, {}))
    assert set(checkpoint.tensors) == {"w", "gamma", "floats"}  # axes, exponents and shapes are no weights
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["w"], Limits()), weight)
    assert checkpoint.graph is not None
    constants = checkpoint.graph.constants
    assert float(constants["two"]) == 2.0
    assert constants["ints"].tolist() == [3, 4]
    assert constants["axes"].tolist() == [-1]
    assert [op.op_type for op in operators(checkpoint)] == ["MatMul"]


def test_attributes_are_plain_values() -> None:
    node = helper.make_node(
        "Odd", ["x"], ["y"], i=3, f=0.5, s="text", ints=[1, 2], floats=[0.5], strings=["a"],
        t=numpy_helper.from_array(np.array([1, 2])),
    )  # fmt: skip
    attributes = dict(operators(read(model([node], {})))[0].attributes)
    np.testing.assert_array_equal(attributes.pop("t"), [1, 2])
    assert attributes == {"i": 3, "f": 0.5, "s": "text", "ints": (1, 2), "floats": (0.5,), "strings": ("a",)}


def branch(name: str, weight: np.ndarray[Any, Any]) -> Any:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["out"])]
    out = [helper.make_tensor_value_info("out", 1, None)]
    return helper.make_graph(nodes, name, [], out, initializer=[numpy_helper.from_array(weight, "w")])


def test_subgraphs_are_flattened_with_names_of_their_own() -> None:
    a, b = floats(20, 30), floats(20, 30)
    node = helper.make_node("If", ["cond"], ["y"], then_branch=branch("t", a), else_branch=branch("e", b))
    checkpoint = read(model([node], {}, inputs="x cond"))
    ops = operators(checkpoint)
    assert [op.op_type for op in ops] == ["MatMul", "Relu", "MatMul", "Relu", "If"]
    weights = [decode.read(checkpoint.tensors[op.inputs[1]], Limits()) for op in (ops[0], ops[2])]
    np.testing.assert_array_equal(weights, [b, a])  # onnx.helper sorts attributes: else comes first
    assert ops[0].inputs[0] == ops[2].inputs[0] == "x"  # the outer scope
    produced = [name for op in ops for name in op.outputs]
    assert len(produced) == len(set(produced))
    assert set(ops[4].inputs) == {"cond", ops[1].outputs[0], ops[3].outputs[0]}


def test_loop_bodies_are_bound_to_what_enters_them() -> None:
    info = [helper.make_tensor_value_info(n, 1, None) for n in ("i", "c", "state")]
    nodes = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Relu", ["state"], ["s2"])]
    body = helper.make_graph(nodes, "b", info, [helper.make_tensor_value_info(n, 1, None) for n in ("c2", "s2")])
    ops = operators(read(model([helper.make_node("Loop", ["", "", "x"], ["y"], body=body)], {})))
    producers = {name: op for op in ops for name in op.outputs}
    relu = next(op for op in ops if op.op_type == "Relu")
    assert producers[relu.inputs[0]].inputs == ("x",)


def function(name: str, nodes: list[Any], attributes: tuple[str, ...] = ()) -> Any:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["r"], nodes, opsets, list(attributes))


def test_functions_are_expanded_at_every_call() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["h"])
    leaky.attribute.append(helper.make_attribute("alpha", 0.0))
    leaky.attribute[0].ref_attr_name = "slope"
    constant = helper.make_node("Constant", [], ["k"], value_float=3.0)
    body = [leaky, constant, helper.make_node("Mul", ["h", "k"], ["r"])]
    nodes = [
        helper.make_node("F", ["x"], ["m"], domain="local", slope=0.25),
        helper.make_node("F", ["m"], ["y"], domain="local", slope=0.5),
    ]
    checkpoint = read(model(nodes, {}, functions=[function("F", body, ("slope",))]))
    ops = operators(checkpoint)
    assert [op.op_type for op in ops] == ["LeakyRelu", "Mul", "LeakyRelu", "Mul"]
    assert [op.attributes["alpha"] for op in ops if op.op_type == "LeakyRelu"] == [0.25, 0.5]
    assert ops[0].inputs == ("x",)
    assert ops[2].inputs == ops[1].outputs == ("m",)
    assert ops[3].outputs == ("y",)
    produced = [name for op in ops for name in op.outputs]
    assert len(produced) == len(set(produced))
    assert checkpoint.graph is not None
    assert float(checkpoint.graph.constants[ops[1].inputs[1]]) == 3.0


def test_functions_that_multiply_or_call_themselves_are_bounded() -> None:
    calls = [helper.make_node("F0", ["a"], [f"r{i}"], domain="local") for i in range(9)]
    functions = [function("F0", [helper.make_node("Relu", ["a"], ["r"])])]
    for level in range(1, 30):
        calls = [helper.make_node(f"F{level - 1}", ["a"], [f"r{i}"], domain="local") for i in range(9)]
        functions.append(function(f"F{level}", calls))
    bomb = model([helper.make_node("F29", ["x"], ["y"], domain="local")], {}, functions=functions)
    with pytest.raises(LimitExceeded, match="operators"):
        read(bomb, operators=5_000)
    itself = function("F", [helper.make_node("F", ["a"], ["r"], domain="local")])
    with pytest.raises(LimitExceeded, match="depth"):
        read(model([helper.make_node("F", ["x"], ["y"], domain="local")], {}, functions=[itself]))


def nested(levels: int) -> Any:
    graph = branch("leaf", floats(2, 2))
    for _ in range(levels):
        node = helper.make_node("If", ["x"], ["out"], then_branch=graph, else_branch=graph.__class__())
        graph = helper.make_graph([node], "n", [], [helper.make_tensor_value_info("out", 1, None)])
    return graph.node[0]


@pytest.mark.parametrize("levels", [12, 25])
def test_deep_nesting(levels: int) -> None:
    with pytest.raises(LimitExceeded, match="depth"):
        read(model([nested(levels)], {}), nesting=10)
    assert len(operators(read(model([nested(5)], {}), nesting=10))) == 7


# --- external data ---------------------------------------------------------------------------------------------------


def external(location: str, shape: tuple[int, ...] = (20, 30), **entries: Any) -> bytes:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        proto.external_data.add(key=key, value=str(value))
    return model([MATMUL], {"w": proto})


def at(folder: Path, data: bytes) -> Checkpoint:
    path = folder / "m.onnx"
    path.write_bytes(data)
    return read_checkpoint(FileSource(path), Limits())


def test_external_data(tmp_path: Path) -> None:
    weight = floats(20, 30)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"\0" * 64 + weight.tobytes())
    checkpoint = at(tmp_path, external("sub/w.bin", offset=64, length=2400))
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["w"], Limits()), weight)
    assert [Path(source.name).name for source in checkpoint.sources] == ["m.onnx", "w.bin"]
    checkpoint.close()


def test_external_data_in_the_hubs_cache(tmp_path: Path) -> None:
    weight = floats(20, 30)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "a").write_bytes(external("w.bin"))
    (blobs / "b").write_bytes(weight.tobytes())
    (snapshot / "m.onnx").symlink_to(blobs / "a")
    (snapshot / "w.bin").symlink_to(blobs / "b")
    checkpoint = read_checkpoint(FileSource(snapshot / "m.onnx"), Limits())
    np.testing.assert_array_equal(decode.read(checkpoint.tensors["w"], Limits()), weight)
    checkpoint.close()


@pytest.mark.parametrize(
    ("location", "entries", "code"),
    [
        ("../secret", {}, "unsafe-path"),
        ("sub/../../secret", {}, "unsafe-path"),
        ("/etc/passwd", {}, "unsafe-path"),
        ("C:\\windows\\win.ini", {}, "unsafe-path"),
        ("..\\secret", {}, "unsafe-path"),
        ("", {}, "unsafe-path"),
        ("w\0.bin", {}, "unsafe-path"),
        ("link", {}, "unsafe-path"),
        ("w.bin", {"offset": 1}, "truncated"),
        ("w.bin", {"offset": 2**60}, "truncated"),
        ("w.bin", {"offset": -4}, "bad-offset"),
        ("w.bin", {"offset": "four"}, "bad-offset"),
        ("w.bin", {"offset": "9" * 5000}, "bad-offset"),
        ("w.bin", {"length": 2396}, "bad-length"),
    ],
)
def test_hostile_external_data(tmp_path: Path, location: str, entries: dict[str, Any], code: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(2400))
    (folder / "w.bin").write_bytes(bytes(2400))
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError) as caught:
        at(folder, external(location, **entries))
    assert caught.value.code == code


def test_missing_external_data_is_left_out_with_a_warning(tmp_path: Path) -> None:
    checkpoint = at(tmp_path, external("w.bin"))
    assert "w" not in checkpoint.tensors
    assert "w.bin" in checkpoint.warnings[0]
    checkpoint.close()
    checkpoint = read(external("w.bin"))
    assert "w" not in checkpoint.tensors
    assert "nothing tells where the model is" in checkpoint.warnings[0]


def test_sparse_initialisers_are_left_out_with_a_warning() -> None:
    made = onnx.load_from_string(model([MATMUL], {"w": floats(3, 3)}))
    made.graph.sparse_initializer.add(dims=[500]).values.CopyFrom(numpy_helper.from_array(floats(400), "s"))
    made.graph.node.add(op_type="Relu", input=["y"], output=["z"], name="n" * 2000)
    checkpoint = read(made.SerializeToString())
    assert list(checkpoint.tensors) == ["w"]
    assert "sparse" in checkpoint.warnings[0]


# --- quantised weights -----------------------------------------------------------------------------------------------

Q = RNG.integers(-127, 127, (24, 16)).astype(np.int8)
SHIFTED = Q - np.float32(3)
SCALE, COLUMNS, ROWS = np.float32(0.02), floats(16) ** 2, floats(24) ** 2
ZERO = np.array(3, np.int8)


def microsoft(op: str, inputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), ["y"], domain="com.microsoft", **attributes)


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        (
            [dequantise("w s z", "d"), matmul("x", "d")],
            {"s": np.array(SCALE), "z": ZERO},
            SHIFTED * SCALE,
        ),
        (
            [dequantise("w s", "d", axis=0), matmul("x", "d")],
            {"s": ROWS},
            Q * ROWS[:, None],
        ),
        (
            [dequantise("w s", "d"), matmul("x", "d")],
            {"s": COLUMNS},
            Q * COLUMNS,
        ),
        (
            [helper.make_node("Gather", ["w", "x"], ["q"]), dequantise("q s", "y")],
            {"s": np.array(SCALE)},
            Q * SCALE,
        ),
        (
            [
                helper.make_node("MatMulInteger", ["x", "w", "xz", "z"], ["i"]),
                helper.make_node("Cast", ["i"], ["c"], to=1),
                helper.make_node("Mul", ["xs", "s"], ["xss"]),
                helper.make_node("Mul", ["c", "xss"], ["y"]),
            ],
            {"s": COLUMNS, "z": ZERO},
            SHIFTED * COLUMNS,
        ),
        ([helper.make_node("MatMulInteger", ["x", "w", "", "z"], ["y"])], {"z": ZERO}, SHIFTED),
        (
            [helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "s", "z", "ys", "yz"], ["y"])],
            {"s": np.array(SCALE), "z": ZERO},
            SHIFTED * SCALE,
        ),
        ([microsoft("QGemm", "x xs xz w s z", transB=1)], {"s": ROWS, "z": ZERO}, SHIFTED * ROWS[:, None]),
        ([microsoft("DynamicQuantizeMatMul", "x w s z")], {"s": COLUMNS, "z": ZERO}, SHIFTED * COLUMNS),
        ([microsoft("MatMulIntegerToFloat", "x w xs s xz z")], {"s": COLUMNS, "z": ZERO}, SHIFTED * COLUMNS),
        ([microsoft("QLinearMul", "x xs xz w s z ys yz")], {"s": np.array(SCALE), "z": ZERO}, SHIFTED * SCALE),
        ([microsoft("QAttention", "x w b xs s m xz z")], {"s": COLUMNS, "z": ZERO}, SHIFTED * COLUMNS),
    ],
    ids=["QDQ", "QDQ-rows", "QDQ-columns", "table", "dynamic", "no-scale", "QLinearMatMul", "QGemm",
         "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMul", "QAttention"],
)  # fmt: skip
def test_quantised_weights_know_their_scale(nodes: list[Any], weights: dict[str, Any], expected: Any) -> None:
    checkpoint = read(model(nodes, {"w": Q, **weights}, inputs="x xs xz ys yz"))
    np.testing.assert_allclose(decode.read(checkpoint.tensors["w"], Limits()), expected, rtol=1e-6)


@pytest.mark.parametrize("zeros", ["none", "packed", "float"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_matmul_n_bits(bits: int, zeros: str) -> None:
    rows, columns, block = 20, 70, 32
    levels = RNG.integers(0, 1 << bits, (rows, 3, block)).astype(np.uint8)
    scales, points = floats(rows, 3), RNG.integers(0, 1 << bits, (rows, 3)).astype(np.uint8)
    weights: dict[str, Any] = {"w": packed(levels, bits), "s": scales.reshape(-1)}
    if zeros != "none":
        weights["z"] = packed(points, bits) if zeros == "packed" else points.astype(np.float32)
    node = microsoft("MatMulNBits", f"x w s{' z' * (zeros != 'none')}", K=columns, N=rows, bits=bits, block_size=block)
    tensor = read(model([node], weights)).tensors["w"]
    offset: Any = np.float32(1 << (bits - 1)) if zeros == "none" else points.astype(np.float32)[:, :, None]
    expected = ((levels - offset) * scales[:, :, None]).reshape(rows, -1)[:, :columns].astype(np.float32)
    assert tensor.shape == (rows, columns)
    np.testing.assert_allclose(decode.read(tensor, Limits()), expected, rtol=1e-6)
    assert not isinstance(tensor.storage, Extent)
    np.testing.assert_allclose(tensor.storage.read(np.s_[3:9, 40:50]), expected[3:9, 40:50], rtol=1e-6)


def packed(values: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Pack the last axis, lowest bits first, padded to whole bytes."""
    fields = values.astype(np.uint8)
    fields = np.pad(fields, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % (8 // bits))])
    fields = fields.reshape(*values.shape[:-1], -1, 8 // bits)
    joined: np.ndarray[Any, Any] = np.bitwise_or.reduce(fields << np.arange(0, 8, bits, dtype=np.uint8), axis=-1)
    return joined


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (dequantise("w s", "y", axis=0, block_size=8), {"w": Q, "s": floats(3, 16)}),
        (
            microsoft("MatMulNBits", "x w s z g", K=32, N=24, bits=4, block_size=32),
            {"w": np.zeros((24, 1, 16), np.uint8)},
        ),
        (microsoft("MatMulNBits", "x w s", K=32, N=24, bits=3, block_size=32), {"w": np.zeros((24, 1, 12), np.uint8)}),
        (microsoft("MatMulBnb4", "x w s", K=32, N=24), {"w": np.zeros(384, np.uint8)}),
    ],
)
def test_layouts_that_are_not_decoded(node: Any, weights: dict[str, Any]) -> None:
    checkpoint = read(model([node], {"s": floats(24), **weights}))
    assert not decode.is_decodable(checkpoint.tensors["w"].dtype)
    anatomy = graph_anatomy.describe(checkpoint)
    assert anatomy is not None
    assert "not decoded" in anatomy.notes[0]


def test_blocks_that_contradict_each_other() -> None:
    node = microsoft("MatMulNBits", "x w s", K=33, N=24, bits=4, block_size=32)
    with pytest.raises(FormatError, match="bad-blocks"):
        read(model([node], {"w": np.zeros((24, 1, 16), np.uint8), "s": floats(24)}))


def test_a_scale_of_the_wrong_size_is_an_error() -> None:
    dq = dequantise("w s", "y", axis=1)
    with pytest.raises(FormatError, match="bad-scale"):
        read(model([dq], {"w": Q, "s": floats(5)}))


# --- recognition -----------------------------------------------------------------------------------------------------

SMALL = model([MATMUL], {"w": floats(4, 4)})


def test_models_are_recognised() -> None:
    row = recognise(BytesSource(SMALL), Limits())
    assert row is not None
    assert row.name == "ONNX"
    assert row in FORMATS
    assert looks_like_model(model([MATMUL], {"w": floats(90, 90)})[:4096], 40_000)
    long = onnx.load_from_string(SMALL)
    long.doc_string = "d" * 10_000  # the graph comes after it
    assert looks_like_model(long.SerializeToString()[:4096], long.ByteSize())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        b"\x08\x07",
        b"text\n" * 100,
        b"\n\n\n# heading\n" * 20,
        b"\x00" * 64,
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(60),
        b"\x08\x07:\xff\xff\xff\x7f" + bytes(50),  # a graph that is longer than the file
        b"\x08\x07:\x04\xff\xff\xff\xff",  # a graph that starts with no field of a graph
        b"\x08\x00:\x02\x0a\x00",  # IR version 0
        numpy_helper.from_array(floats(5, 5), "t").SerializeToString(),
        b"\x0a\x05hello\x12\x05world",
        SMALL[:20],
    ],
)
def test_other_bytes_are_not(data: bytes) -> None:
    assert not looks_like_model(data[:4096], len(data))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 10**6))
def test_random_bytes_are_rarely_a_model(data: bytes, size: int) -> None:
    if looks_like_model(data, max(size, len(data))):  # then it does start like one
        assert data[:1] in (b"\x08", b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x42", b"\x72")


# --- hostile files ---------------------------------------------------------------------------------------------------


def with_weight(proto: Any) -> bytes:
    return model([MATMUL], {"w": proto})


def raw(dims: list[int], data: bytes, kind: int = TensorProto.FLOAT, **fields: Any) -> Any:
    return TensorProto(name="w", dims=dims, data_type=kind, raw_data=data, **fields)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (SMALL[:-3], "truncated"),
        (with_weight(raw([-1, 4], bytes(64))), "bad-shape"),
        (with_weight(raw([1000, 1000], bytes(2000))), "bad-length"),
        (with_weight(raw([3], bytes(13))), "bad-length"),
        (with_weight(raw([2**62, 2**62], bytes(2000))), "bad-length"),
        (with_weight(TensorProto(name="w", dims=[10**15], data_type=TensorProto.FLOAT)), "truncated"),
        (with_weight(TensorProto(name="w", dims=[10**9], data_type=7, int64_data=[1] * 2000)), "truncated"),
        (with_weight(TensorProto(name="w", dims=[3], data_type=1, float_data=[1.0])), "malformed"),
        (with_weight(raw([3], bytes(12), segment=TensorProto.Segment(begin=7))), "segmented"),
        (model([MATMUL], {"w": floats(2)}) + b"\x3a\x00" * 0 + b"\x0b", "bad-wire-type"),
        (SMALL + b"\x3a" + b"\xff" * 11, "bad-varint"),
        (SMALL + b"\x02\x00", "truncated"),
        (b"\x08\x07" + b"\x12\x01a", "truncated"),
        (b"\x08\x07\x32\x88\x27" + b"d" * 5000 + b"\x28\x01", "no-graph"),
    ],
)
def test_hostile_files(data: bytes, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.code == code


def test_two_tensors_with_one_name() -> None:
    made = onnx.load_from_string(SMALL)
    made.graph.initializer.append(made.graph.initializer[0])
    with pytest.raises(FormatError, match="duplicate-tensor"):
        read(made.SerializeToString())


@pytest.mark.parametrize(
    ("limits", "resource"),
    [({"operators": 3}, "operators"), ({"tensors": 3}, "tensors"), ({"graph_bytes": 5_000}, "graph")],
)
def test_limits(limits: dict[str, int], resource: str) -> None:
    nodes = [helper.make_node("Relu", ["x"], [f"y{i}" * 20]) for i in range(100)]
    data = model(nodes, {f"w{i}": floats(16, 20) for i in range(4)})
    read(data)
    with pytest.raises(LimitExceeded, match=resource):
        read(data, **limits)


def test_many_axes() -> None:
    with pytest.raises(LimitExceeded, match="axes"):
        read(with_weight(raw([1] * 100, bytes(4))))


def test_a_lazily_decoded_tensor_reports_what_is_wrong_with_it() -> None:
    proto = TensorProto(name="w", dims=[1500], data_type=TensorProto.FLOAT16, int32_data=[1] * 1400)
    tensor = read(with_weight(proto)).tensors["w"]
    with pytest.raises(FormatError):
        decode.read(tensor, Limits())
    large = TensorProto(name="w", dims=[3000], data_type=TensorProto.FLOAT16, int32_data=[1] * 3000)
    tensor = read(with_weight(large), tensor_bytes=5_000).tensors["w"]
    assert not isinstance(tensor.storage, Extent | ArraySlab)
    with pytest.raises(LimitExceeded):
        tensor.storage.read((slice(None),))


def everything() -> bytes:
    """A model with a bit of all: norms, sub-graph, function, quantised and typed weights."""
    body = [helper.make_node("Relu", ["a"], ["h"]), helper.make_node("Mul", ["h", "h"], ["r"])]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"]),
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("Pow", ["c", "two"], ["p"]),
        helper.make_node("ReduceMean", ["p", "axes"], ["v"]),
        helper.make_node("Add", ["v", "eps"], ["ve"]),
        helper.make_node("Sqrt", ["ve"], ["s"]),
        helper.make_node("Div", ["c", "s"], ["n"]),
        helper.make_node("Mul", ["n", "gamma"], ["g"]),
        helper.make_node("Add", ["g", "beta"], ["ln"]),
        helper.make_node("DequantizeLinear", ["q", "qs"], ["dq"], axis=1),
        helper.make_node("Transpose", ["dq"], ["dqt"], perm=[1, 0]),
        helper.make_node("MatMul", ["ln", "dqt"], ["mm"]),
        helper.make_node("Reshape", ["mm", "shape"], ["rs"]),
        helper.make_node("If", ["cond"], ["i"], then_branch=branch("t", floats(9)), else_branch=branch("e", floats(2))),
        helper.make_node("F", ["rs"], ["f"], domain="local"),
        helper.make_node("SkipLayerNormalization", ["f", "i", "gamma", "beta"], ["k"], domain="com.microsoft"),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Add", ["k", "e"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "gamma"], ["y"], axis=-1),
    ]  # fmt: skip
    half = helper.make_tensor("half", TensorProto.FLOAT16, (20, 30), np.ones(600).tolist())
    weights = {
        "axes": np.array([-1]), "two": np.float32(2), "eps": np.float32(1e-5), "gamma": floats(16), "beta": floats(16),
        "q": Q, "qs": COLUMNS, "shape": np.array([0, 0, -1]), "table": floats(40, 16),
        "half": half,
    }  # fmt: skip
    return model(nodes, weights, inputs="x cond ids", functions=[function("F", body)])


EVERYTHING = everything()


def answer_or_error(data: bytes) -> None:
    """A reader and the anatomy may refuse a file, in their own words, and nothing else."""
    try:
        checkpoint = read(data, operators=2_000, tensors=2_000)
    except NormsniffError:
        return
    graph_anatomy.describe(checkpoint)
    for tensor in checkpoint.tensors.values():
        if tensor.size < 10_000 and decode.is_decodable(tensor.dtype):
            with np.errstate(all="ignore"), contextlib.suppress(NormsniffError):  # a damaged scale may be enormous
                decode.read(tensor, Limits())


def test_the_model_of_the_property_tests_is_sound() -> None:
    anatomy = graph_anatomy.describe(read(EVERYTHING))
    assert anatomy is not None
    assert len(anatomy.sites) == 3
    assert {matrix.role for matrix in anatomy.matrices} == {"reader", "embedding"}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    damaged = bytearray(EVERYTHING)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    answer_or_error(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(EVERYTHING) - 1))
def test_truncated_files(length: int) -> None:
    answer_or_error(EVERYTHING[:length])


ATTRIBUTES: list[Callable[[Any], None]] = [
    lambda node: node.attribute.add(name="axes", type=7, ints=[9, -9]),
    lambda node: node.attribute.add(name="axis", type=3, s=b"text"),
    lambda node: node.attribute.add(name="perm", type=7, ints=[5, 5]),
    lambda node: node.attribute.add(name="transB", type=1, f=0.5),
    lambda node: node.attribute.add(name="axis", type=2, i=2**62),
    lambda node: node.attribute.add(name="value", type=4),
    lambda node: node.input.append("y"),
    lambda node: node.ClearField("input"),
    lambda node: node.ClearField("output"),
    lambda node: node.ClearField("attribute"),
]


def test_any_one_node_that_makes_no_sense() -> None:
    for index in range(len(onnx.load_from_string(EVERYTHING).graph.node)):
        for change in ATTRIBUTES:
            made = onnx.load_from_string(EVERYTHING)
            change(made.graph.node[index])
            answer_or_error(made.SerializeToString())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_graphs_that_make_no_sense(data: st.DataObject) -> None:
    made = onnx.load_from_string(EVERYTHING)
    nodes = made.graph.node
    names = [name for node in nodes for name in (*node.input, *node.output)] + [""]
    kinds = [node.op_type for node in nodes] + ["Gemm", "Conv", "Unsqueeze", "Squeeze", "Flatten", "Concat", "Where",
             "InstanceNormalization", "BatchNormalization", "EmbedLayerNormalization", "Attention", "MatMulInteger",
             "GroupQueryAttention", "QGemm", "ReduceL2", "Split", "Expand", "Loop", "Scan"]  # fmt: skip
    for _ in range(data.draw(st.integers(1, 8))):
        node = nodes[data.draw(st.integers(0, len(nodes) - 1))]
        change = data.draw(st.sampled_from(["input", "output", "kind", "attribute"]))
        if change == "kind":
            node.op_type = data.draw(st.sampled_from(kinds))
        elif change == "attribute":
            data.draw(st.sampled_from(ATTRIBUTES))(node)
        else:
            values = node.input if change == "input" else node.output
            if values:
                values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.sampled_from(names))
    answer_or_error(made.SerializeToString())
