"""TFLite files built by hand: a writer of flatbuffers, and small networks of operators."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

RNG = np.random.default_rng(6)
D = 16
TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
ADD, GATHER, FULLY_CONNECTED, MUL, NEG, MEAN, RSQRT, SQUARE, SQUARED_DIFFERENCE = 0, 36, 9, 18, 59, 40, 76, 92, 99
DEQUANTIZE, COMPOSITE = 6, 206

Fields = dict[int, Any]  # of a table: ints with a struct code, tables, lists of tables, arrays, bytes


def flatbuffer(root: Fields, identifier: bytes = b"TFL3") -> bytes:
    """Write a flatbuffer front to back, every field of a table taking eight bytes."""
    data = bytearray(struct.pack("<I4s", 0, identifier))

    def place(value: Any) -> int:
        """Write something that is referred to; return where."""
        data.extend(bytes(-len(data) % 8))
        if isinstance(value, dict):
            return table(value)
        at = len(data)
        if isinstance(value, list):
            data.extend(struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for index, item in enumerate(value):
                slot = at + 4 + 4 * index
                struct.pack_into("<I", data, slot, place(item) - slot)
        else:
            array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.asarray(value)
            data.extend(struct.pack("<I", len(array)) + array.tobytes())
        return at

    def table(fields: Fields) -> int:
        slots = max(fields, default=-1) + 1
        layout = len(data)
        data.extend(struct.pack("<HH", 4 + 2 * slots, 4 + 8 * slots))
        data.extend(struct.pack(f"<{slots}H", *(4 + 8 * i if i in fields else 0 for i in range(slots))))
        at = len(data)
        data.extend(struct.pack("<i", at - layout) + bytes(8 * slots))
        for number, value in fields.items():
            slot = at + 4 + 8 * number
            if isinstance(value, tuple):
                struct.pack_into(f"<{value[0]}", data, slot, value[1])
            else:
                struct.pack_into("<I", data, slot, place(value) - slot)
        return at

    struct.pack_into("<I", data, 0, place(root))
    return bytes(data)


class Graph:
    """Writes a model with one subgraph, and further ones that it calls."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.buffers: list[Fields] = [{}]
        self.tensors: list[Fields] = []
        self.operators: list[Fields] = []
        self.others: list[Fields] = []

    def value(self, *shape: int, name: str = "") -> int:
        self.tensors.append({0: np.array(shape, "<i4"), 1: ("b", 0), 3: (name or f"v{len(self.tensors)}").encode()})
        return len(self.tensors) - 1

    def const(self, array: Any, name: str = "", scale: Any = None, axis: int = 0) -> int:
        array = np.asarray(array)
        number = self.value(*array.shape, name=name)
        self.tensors[number][1] = ("b", TYPES[array.dtype.name])
        self.tensors[number][2] = ("I", len(self.buffers))
        self.buffers.append({0: array.tobytes()})
        if scale is not None:
            zero = np.zeros(len(scale), "<i8")
            self.tensors[number][4] = {2: np.asarray(scale, "<f4"), 3: zero, 6: ("i", axis)}
        return number

    def op(self, code: int, *inputs: int, shape: tuple[int, ...] = (1, 4, D), **fields: Any) -> int:
        if code not in self.codes:
            self.codes.append(code)
        out = self.value(*shape)
        operator: Fields = {0: ("I", self.codes.index(code)), 1: np.array(inputs, "<i4"), 2: np.array([out], "<i4")}
        self.operators.append(operator | {int(key[1:]): value for key, value in fields.items()})
        return out

    def norm(self, x: int, kind: str) -> int:
        axes, epsilon, one = self.const(np.array([2], "<i4")), self.const(np.float32(1e-5)), (1, 4, 1)
        scale = self.const(floats(1, 1, D, around=1.0))
        if kind == "RMSNorm":
            mean = self.op(MEAN, self.op(SQUARE, x), axes, shape=one)
            root = self.op(RSQRT, self.op(ADD, mean, epsilon, shape=one), shape=one)
            return self.op(MUL, self.op(MUL, x, root), scale)
        mean = self.op(MEAN, x, axes, shape=one)  # the converter's own form: x·s + (β + (-mean)·s)
        negative = self.op(NEG, mean, shape=one)
        variance = self.op(MEAN, self.op(SQUARED_DIFFERENCE, x, mean), axes, shape=one)
        root = self.op(RSQRT, self.op(ADD, variance, epsilon, shape=one), shape=one)
        factor = self.op(MUL, root, scale)
        moved = self.op(MUL, negative, factor)
        if kind == "LayerNorm":
            moved = self.op(ADD, moved, self.const(floats(1, 1, D)))
        return self.op(ADD, self.op(MUL, x, factor), moved)

    def subgraph(self, inputs: list[int], outputs: list[int]) -> Fields:
        return {
            0: self.tensors, 1: np.array(inputs, "<i4"), 2: np.array(outputs, "<i4"), 3: self.operators,
        }  # fmt: skip

    def model(self, inputs: list[int], outputs: list[int]) -> Fields:
        codes = [{0: ("b", min(code, 127)), 3: ("i", code)} for code in self.codes]
        graphs = [self.subgraph(inputs, outputs), *self.others]
        return {0: ("I", 3), 1: codes, 2: graphs, 3: b"made by a test", 4: self.buffers}


def floats(*shape: int, around: float = 0.0) -> Any:
    return (around + 0.1 * RNG.standard_normal(shape)).astype(np.float32)


def transformer(kind: str, *, quantised: bool = False, blocks: int = 1) -> Fields:
    graph = Graph()

    def weight(name: str, rows: int, columns: int) -> int:
        if not quantised:
            return graph.const(floats(rows, columns), name)
        return graph.const(RNG.integers(-127, 128, (rows, columns)).astype(np.int8), name, np.full(rows, 0.01))

    ids = graph.value(1, 4, name="ids")
    x = graph.op(GATHER, graph.const(floats(40, D), "table"), ids)
    for _ in range(blocks):
        up = graph.op(FULLY_CONNECTED, graph.norm(x, kind), weight("up", 32, D), -1, shape=(1, 4, 32))
        down = graph.op(FULLY_CONNECTED, up, weight("down", D, 32), graph.const(floats(D)))
        x = graph.op(ADD, x, down)
    logits = graph.op(FULLY_CONNECTED, graph.norm(x, kind), graph.const(floats(40, D), "head"), -1, shape=(1, 4, 40))
    return graph.model([ids], [logits])
