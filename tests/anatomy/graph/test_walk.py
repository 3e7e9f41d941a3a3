"""The way back along the channels: every row of the table of operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from normsniff.anatomy.graph.view import GraphView
from normsniff.anatomy.graph.walk import At, back
from normsniff.checkpoint import Checkpoint, Graph, Operator
from normsniff.source.local import BytesSource

CONSTANTS = {"half": np.array(0.5), "shift": np.arange(4.0), "last": np.array([-1]), "first": np.array([0])}


def behind(
    kind: str, inputs: str, at: At, attributes: Mapping[str, object] | None = None, *before: Operator
) -> list[At]:
    op = Operator(kind, "", kind, tuple(inputs.split()), (at.value, "handed on"), attributes or {})
    graph = Graph((*before, op), ("x", "y"), (at.value,), CONSTANTS)
    source = BytesSource(b"")
    return list(back(GraphView(Checkpoint("ONNX", None, {}, (source,), "", graph=graph), graph), op, at))


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "axis", "expected"),
    [
        ("Add", "x y", {}, -1, [("x", -1), ("y", -1)]),
        ("Sum", "x y", {}, -2, [("x", -2), ("y", -2)]),
        ("SkipLayerNormalization", "x y shift", {}, -1, []),  # its first output is normalised
        ("SkipSimplifiedLayerNormalization", "x y shift", {}, -1, []),
        ("Mul", "x half", {}, -1, [("x", -1)]),
        ("Mul", "half x", {}, -1, [("x", -1)]),
        ("Mul", "x y", {}, -1, []),  # a gate is no scale
        ("Div", "x half", {}, -1, [("x", -1)]),
        ("Div", "half x", {}, -1, []),
        ("Where", "mask x half", {}, -1, [("x", -1)]),
        ("If", "x y", {}, -1, [("x", -1), ("y", -1)]),
        ("Concat", "x y shift", {"axis": 1}, -1, [("x", -1), ("y", -1)]),
        ("Concat", "x y", {"axis": -1}, -1, []),
        ("Concat", "x y", {"axis": 2}, -1, []),  # the same axis, counted from the front
        *((kind, "x y", {}, -1, [("x", -1)]) for kind in ("Cast", "Identity", "Dropout", "Slice", "Expand", "Pad")),
        ("Transpose", "x", {"perm": (0, 2, 1)}, -1, [("x", -2)]),
        ("Transpose", "x", {"perm": (0, 2, 2)}, -1, []),
        ("Unsqueeze", "x first", {}, -1, [("x", -1)]),
        ("Unsqueeze", "x last", {}, -1, []),
        ("Squeeze", "x first", {}, -1, [("x", -1)]),
        ("Squeeze", "x first", {}, -2, []),
        ("Reshape", "x shape", {}, -1, [("x", -1)]),
        ("Reshape", "x shape", {}, -2, [("x", -3)]),
        ("Flatten", "x", {}, -3, []),
        ("Relu", "x", {}, -1, []),  # no row: not the same values
    ],
)
def test_an_operator_leads_back(
    kind: str, inputs: str, attributes: Mapping[str, object], axis: int, expected: list[tuple[str, int]]
) -> None:
    assert [(at.value, at.axis) for at in behind(kind, inputs, At("out", axis, 3), attributes)] == expected


@pytest.mark.parametrize("kind", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_the_sum_that_a_fused_norm_hands_on_leads_back_to_its_terms(kind: str) -> None:
    op = Operator(kind, "", "", ("x", "y", "shift"), ("out", "", "", "sum"))
    graph = Graph((op,), ("x", "y"), ("out",), CONSTANTS)
    view = GraphView(Checkpoint("ONNX", None, {}, (BytesSource(b""),), "", graph=graph), graph)
    assert [at.value for at in back(view, op, At("sum", -1, 3))] == ["x", "y"]


def test_a_quantised_product_is_found_beneath_its_scales() -> None:
    product = Operator("MatMulInteger", "", "", ("x", "w"), ("integers",))
    cast = Operator("Cast", "", "", ("integers",), ("floats",))
    assert behind("Mul", "floats y", At("out", -1, 3), None, product, cast) == [At("integers", -1, 3)]
