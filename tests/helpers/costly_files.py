"""Files made to cost: kinds that once took seconds to hours, each as a small generator."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.helpers.onnx_files import field, integer, node, number, onnx
from tests.helpers.tflite_files import Graph, flatbuffer
from tests.helpers.torch_files import archive, code, dumps, stream


def doubling() -> bytes:
    """Functions that call the next one twice, thirty deep."""
    functions = []
    for i in range(30):
        calls = [node(f"f{i + 1}", ["a"], [out], domain="d") for out in ("b", "c")]
        body = b"".join(field(7, call) for call in (calls if i < 29 else [node("Identity", ["a"], ["b"])]))
        functions.append(field(1, f"f{i}") + field(4, "a") + field(5, "b") + body + field(10, "d"))
    return onnx([node("f0", ["x"], ["y"], domain="d")], functions)


def wide_numbers() -> bytes:
    """Numbers that are sums of sums of numbers, looked up again and again."""
    sums = [node("Add", [f"s{i}"] * 300, [f"s{i + 1}"]) for i in range(40)]
    roots = [node("Mul", [f"r{i}", "s40"], [f"r{i + 1}"]) for i in range(300)]
    return onnx(
        [*sums, node("Mul", ["x", "s40"], ["r0"]), *roots, node("Sqrt", ["r300"], ["y"])], [], (number("s0", 1),)
    )


def ranks() -> bytes:
    """Gather(x, x) doubles the number of axes."""
    steps = [node("Gather", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(60)]
    norm = node("LayerNormalization", ["x60", "g"], ["y"])
    return onnx([node("Identity", ["g"], ["x0"]), *steps, norm], [], (number("g", 2, 2),))


def many_ends() -> bytes:
    """A body that returns ten thousand values, each asked for whether it is an output."""
    names = [f"o{i}" for i in range(10_000)]
    body = b"".join(field(1, node("Identity", ["x"], [name])) for name in names)
    body += b"".join(field(12, field(1, name)) for name in names)
    branch = field(1, "then_branch") + integer(20, 5) + field(6, body)
    return onnx([node("If", ["x"], names, branch), node("Sum", names, ["y"])])


def joined_norms() -> bytes:
    """Norms that all go into one operator of as many outputs, each of which a search would go on to, a norm a time."""
    norms = [node("LayerNormalization", ["x", "g"], [f"y{i}"]) for i in range(300)]
    join = node("Concat", [f"y{i}" for i in range(300)], [f"z{i}" for i in range(300)])
    return onnx([*norms, join], [], (number("g", 4),))


def stacked(op: str) -> bytes:
    """A stream whose blocks are an operator that pools: regions around each of its sums, each larger than the last."""
    nodes, stream = [], "x"
    for i in range(500):
        nodes.append(node("LayerNormalization", [stream, "g", "b"], [f"y{i}"]))
        nodes.append(node(op, [f"y{i}", "w"], [f"m{i}"]))
        nodes.append(node("Add", [stream, f"m{i}"], [f"v{i}"]))
        stream = f"v{i}"
    return onnx(nodes, [], (number("g", 16), number("b", 16), number("w", 16, 16)))


def pooled_blocks() -> bytes:
    return stacked("ReduceMean")


def averaged_blocks() -> bytes:
    return stacked("AveragePool")


def fused_chain() -> bytes:
    """Norms by name of the operator, none like another: each takes the one before, too."""
    chain = [node("LpNormalization", ["x", f"q{i - 1}" if i else "x"], [f"q{i}"]) for i in range(900)]
    norms = [node("LayerNormalization", [f"q{3 * i}", "g"], [f"y{i}"]) for i in range(250)]
    return onnx([*chain, *norms, node("Sum", [f"y{i}" for i in range(250)], ["y"])], [], (number("g", 16),))


def repeated_fields() -> bytes:
    return integer(1, 9) * 300_000 + onnx([node("Identity", ["x"], ["y"])])


def safetensors(entries: Sequence[tuple[str, str, tuple[int, ...]]], widths: dict[str, int]) -> bytes:
    header: dict[str, Any] = {}
    at = 0
    for name, dtype, shape in entries:
        n = math.prod(shape) * widths[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (at, at + n)}
        at += n
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def norms() -> bytes:
    return safetensors([(f"model.layers.{i}.input_layernorm.weight", "F32", (4,)) for i in range(5_000)], {"F32": 4})


def patterns() -> bytes:
    """Names of as many patterns as there are tensors, made for searches to go back and forth in."""
    ends = (f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(676))
    entries = [("up." * 20 + "norm" * 10 + end + "wte." * 8 + "lnnorm-.weight", "F32", (4,)) for end in ends]
    return safetensors(entries, {"F32": 4})


def words_of_a_block() -> bytes:
    """Flat names that have to be cut into phrases."""
    entries = [("_".join(["norm", "attn", "mlp", f"x{i}"] * 9), "F32", (4,)) for i in range(1_000)]
    return safetensors(entries, {"F32": 4})


def groups_of_nothing() -> bytes:
    """GPTQ weights without an element, of 2^28 rows."""
    entries: list[tuple[str, str, tuple[int, ...]]] = [
        ("m.qweight", "I32", (1 << 28, 0)), ("m.scales", "F32", (1, 0)), ("m.qzeros", "I32", (1, 0)),
    ]  # fmt: skip
    return safetensors(entries, {"I32": 4, "F32": 4})


def digits() -> bytes:
    """An axis of four thousand digits, beside one of none."""
    header = f'{{"a": {{"dtype": "F32", "shape": [{"9" * 4_000}, 0], "data_offsets": [0, 0]}}}}'.encode()
    return struct.pack("<Q", len(header)) + header


def copies() -> bytes:
    """A dictionary that is made of one list, again and again."""
    pairs = code([("k", i) for i in range(2_000)]) + b"q\x00"
    made = (b"ccollections\nOrderedDict\nh\x00\x85R",) * 2_000
    return archive(b"\x80\x02" + pairs + b"0](" + b"".join(made) + b"e.", {})


def doubled_protocol() -> bytes:
    """A protocol version that is a tuple of tuples of tuples, 2^60 in all."""
    twice = b"K\x01" + b"".join(b"2\x86" for _ in range(60))
    whole = stream({}, {})
    first = dumps(0x1950A86A20F9469CFC6C)
    assert whole.startswith(first)
    return first + b"\x80\x02" + twice + b"." + whole[len(first) :]


def word_repeated() -> bytes:
    return archive({"optim" + "_state_dict" * 60 + "!": 1}, {})


def composites() -> bytes:
    """A subgraph that calls itself twice."""
    outer, inner = Graph(), Graph()
    outer.codes = inner.codes = [206]
    x = inner.value(1)
    for _ in range(2):
        inner.op(206, x, _12={0: b"again", 1: ("i", 1)})
    outer.others = [inner.subgraph([x], [1])]
    return flatbuffer(outer.model([0], [outer.op(206, outer.value(1), _12={0: b"again", 1: ("i", 1)})]))


def shared_layouts() -> bytes:
    """Twenty thousand tables that share one layout of thirty thousand fields: each takes four bytes of the file."""
    tables, fields = 20_000, 30_000
    head = struct.pack("<I4s", 24, b"TFL3") + struct.pack("<HH5H", 14, 8, 0, 0, 0, 0, 4) + bytes(2)
    vector = len(head) + 8
    first = vector + 4 + 4 * tables
    layout = first + 4 * tables
    return b"".join((
        head, struct.pack("<iI", 24 - 8, 4), struct.pack("<I", tables),
        struct.pack(f"<{tables}I", *(first + 4 * i - (vector + 4 + 4 * i) for i in range(tables))),
        struct.pack(f"<{tables}i", *(first + 4 * i - layout for i in range(tables))),
        struct.pack("<HH", 4 + 2 * fields, 8) + struct.pack(f"<{fields}H", *(1000 + i for i in range(fields))),
    ))  # fmt: skip


def nils() -> bytes:
    return b"\x81\xa1a\xdd" + struct.pack(">I", 300_000) + b"\xc0" * 300_000


def arrays_in_arrays() -> bytes:
    inner = struct.pack("<IQ", 9, 0) * 50_000
    key = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 9, 50_000)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + inner


FILES: dict[str, Callable[[], bytes]] = {
    one.__name__: one
    for one in (
        doubling, wide_numbers, ranks, many_ends, repeated_fields, norms, patterns, words_of_a_block, groups_of_nothing,
        digits, joined_norms, pooled_blocks, averaged_blocks, fused_chain,
        copies, doubled_protocol, word_repeated, composites, shared_layouts, nils, arrays_in_arrays,
    )
}  # fmt: skip
