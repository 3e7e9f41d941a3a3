"""OpenVINO files built by hand: XML and the weights beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RNG = np.random.default_rng(5)
TYPES = {"float32": "f32", "float16": "f16", "int64": "i64", "uint8": "u8", "int8": "i8"}
D = 16


class Ir:
    """Writes a model layer by layer, as OpenVINO's serialiser does."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.edges: list[str] = []
        self.data = b""
        self.ranks: list[int] = []
        self.ports: list[int] = []  # of the output

    def add(self, kind: str, *inputs: int, rank: int = 3, name: str = "", version: str = "opset1", **data: Any) -> int:
        number = len(self.layers)
        attributes = "".join(f' {key}="{value}"' for key, value in data.items())
        ports = "".join(
            f'<port id="{i}" precision="FP32">{"<dim>4</dim>" * self.ranks[source]}</port>'
            for i, source in enumerate(inputs)
        )
        output = f'<output><port id="{len(inputs)}" precision="FP32"/></output>' if kind != "Result" else ""
        self.layers.append(
            f'<layer id="{number}" name="{name or f"{kind}_{number}"}" type="{kind}" version="{version}">'
            f"<data{attributes}/><input>{ports}</input>{output}</layer>"
        )
        for i, source in enumerate(inputs):
            self.edges.append(
                f'<edge from-layer="{source}" from-port="{self.ports[source]}" to-layer="{number}" to-port="{i}"/>'
            )
        self.ranks.append(rank)
        self.ports.append(len(inputs))
        return number

    def const(self, array: Any, name: str = "", kind: str | None = None, shape: tuple[int, ...] | None = None) -> int:
        array = np.asarray(array)
        shape = array.shape if shape is None else shape
        number = self.add(
            "Const", rank=len(shape), name=name, element_type=kind or TYPES[array.dtype.name],
            shape=", ".join(map(str, shape)), offset=len(self.data), size=array.nbytes,
        )  # fmt: skip
        self.data += array.tobytes()
        return number

    def norm(self, x: int, kind: str) -> int:
        scale = self.const(floats(1, 1, D, around=1.0))
        if kind == "RMS":
            return self.add("RMS", x, self.const(floats(D, around=1.0)), version="ie_internal_opset")
        if kind == "LayerNorm":
            axes = self.const(np.array([2]))
            mvn = self.add("MVN", x, axes, eps=1e-5, normalize_variance="true", eps_mode="INSIDE_SQRT")
            return self.add("Add", self.add("Multiply", mvn, scale), self.const(floats(1, 1, D)))
        square = self.add("Power", x, self.const(np.float32(2).reshape(1, 1, 1)))
        mean = self.add("ReduceMean", square, self.const(np.array([-1])), keep_dims="true")
        root = self.add("Sqrt", self.add("Add", mean, self.const(np.float32(1e-6).reshape(1, 1, 1))))
        divided = self.add("Multiply", x, self.add("Divide", self.const(np.float32(1).reshape(1, 1, 1)), root))
        return self.add("Multiply", scale, divided)

    def linear(self, x: int, weight: int) -> int:
        return self.add("MatMul", x, weight, transpose_a="false", transpose_b="true")

    def write(
        self, path: Path, net: str = '<net name="m" version="11">', before: str = '<?xml version="1.0"?>'
    ) -> Path:
        body = f"{before}{net}<layers>{''.join(self.layers)}</layers><edges>{''.join(self.edges)}</edges></net>"
        path.write_text(body)
        path.with_suffix(".bin").write_bytes(self.data)
        return path


def floats(*shape: int, around: float = 0.0) -> Any:
    return (around + 0.1 * RNG.standard_normal(shape)).astype(np.float32)


def transformer(kind: str, weight: Callable[[Ir, str, Any], int] | None = None, blocks: int = 1) -> Ir:
    """Blocks without attention: embedding, norm, up, down, sum, norm, head."""
    ir = Ir()
    put = weight or (lambda model, name, array: model.const(array, name))
    ids = ir.add("Parameter", rank=2, shape="1,4", element_type="i64")
    x = ir.add("Gather", ir.const(floats(40, D), "table"), ids, ir.const(np.int64(0)), version="opset8", batch_dims=0)
    for _ in range(blocks):
        up, down = put(ir, "up", floats(32, D)), put(ir, "down", floats(D, 32))
        x = ir.add("Add", x, ir.linear(ir.add("Gelu", ir.linear(ir.norm(x, kind), up)), down))
    ir.add("Result", ir.linear(ir.norm(x, kind), ir.const(floats(40, D), "head")))
    return ir
