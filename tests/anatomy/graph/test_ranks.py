"""How many axes the values of a graph have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from normsniff.anatomy.graph.ranks import find_ranks
from normsniff.checkpoint import ArraySlab, Operator, TensorInfo

CONSTANTS = {"two": np.array([0, -1]), "four": np.array([1, 2, 3, 4]), "one": np.array([1]), "scalar": np.array(1.0)}
WEIGHTS = {n: TensorInfo(n, "F32", s, ArraySlab(np.zeros(s))) for n, s in (("w2", (8, 4)), ("w4", (8, 3, 3, 3)))}


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "rank"),
    [
        ("Relu", "x", {}, 3),
        ("Add", "x scalar", {}, 3),
        ("Add", "x unheard_of", {}, None),
        ("MatMul", "x w2", {}, 3),
        ("Gather", "w2 x", {}, 4),
        ("Gather", "x scalar", {}, 2),
        ("Conv", "unheard_of w4", {}, 4),
        ("Reshape", "unheard_of four", {}, 4),
        ("Reshape", "x unheard_of", {}, None),
        ("Transpose", "unheard_of", {"perm": (0, 2, 1)}, 3),
        ("Unsqueeze", "x two", {}, 5),
        ("Squeeze", "x", {"axes": (0,)}, 2),
        ("Squeeze", "x", {}, None),
        ("ReduceMean", "x one", {}, 3),
        ("ReduceMean", "x one", {"keepdims": 0}, 2),
        ("ReduceMean", "x", {"axes": (1, 2), "keepdims": 0}, 1),
        ("Expand", "scalar four", {}, 4),
        ("ConstantOfShape", "four", {}, 4),
        ("Shape", "x", {}, 1),
        ("Gemm", "x w2", {}, 2),
        ("Einsum", "x w4", {"equation": "abc,cdef -> abdef"}, 5),
        ("Einsum", "x w4", {"equation": "a...,...->..."}, None),
        ("If", "x", {}, None),
    ],
)
def test_rank_after(op: str, inputs: str, attributes: dict[str, Any], rank: int | None) -> None:
    operator = Operator(op, "", "", tuple(inputs.split()), ("y", "z"), attributes)
    ranks = find_ranks([operator], {"x": 3}, WEIGHTS, CONSTANTS)
    assert (ranks.get("y"), ranks.get("z")) == (rank, rank)


def test_an_operator_of_somebody_else_tells_nothing() -> None:
    operators = [Operator("Relu", domain, "", ("x",), (domain,), {}) for domain in ("com.microsoft", "mine")]
    assert find_ranks(operators, {"x": 3}, {}, {}) == {"x": 3, "com.microsoft": 3}


def test_a_shape_that_is_put_together() -> None:
    """(batch, length, heads, size): what exporters write where the batch may have any size."""
    operators = [
        Operator("Shape", "", "", ("x",), ("shape",), {}),
        Operator("Gather", "", "", ("shape", "scalar"), ("batch",), {}),
        Operator("Unsqueeze", "", "", ("batch", "one"), ("list",), {}),
        Operator("Gather", "", "", ("shape", "two"), ("pair",), {}),
        Operator("Concat", "", "", ("list", "one", "pair"), ("target",), {"axis": 0}),
        Operator("Reshape", "", "", ("x", "target"), ("y",), {}),
        Operator("Concat", "", "", ("target", "unheard_of"), ("open",), {"axis": 0}),
        Operator("Reshape", "", "", ("x", "open"), ("z",), {}),
    ]
    ranks = find_ranks(operators, {"x": 3}, {}, CONSTANTS)
    assert (ranks.get("y"), ranks.get("z")) == (4, None)
