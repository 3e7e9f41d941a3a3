"""Norms put together at random from the ways to write their parts: the truth follows from the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.conformance.graph_forms import EPS, Net
from normsniff import sniff


def number(value: float) -> Any:
    return np.array(value, np.float32)


def column(n: Net) -> Any:
    return np.full((n.d, 1), 1 / n.d, np.float32)


MEANS: dict[str, Any] = {
    "reduction": lambda n, x: n.mean(x),
    "sum": lambda n, x: n("Mul", n.reduce("ReduceSum", x), number(1 / n.d)),
    "quotient": lambda n, x: n("Div", n.reduce("ReduceSum", x), number(n.d)),
    "product": lambda n, x: n("MatMul", x, column(n)),
    "pool": lambda n, x: n("GlobalAveragePool", x),
    "dropped axis": lambda n, x: n("Unsqueeze", n.mean(x, keepdims=0), np.array([-1])),
    "einsum": lambda n, x: n("Unsqueeze", n("Einsum", x, column(n)[:, 0], equation="btd,d->bt"), np.array([2])),
    "matrix": lambda n, x: n("MatMul", x, np.full((n.d, n.d), 1 / n.d, np.float32)),
}
CENTRED: dict[str, Any] = {
    "not": lambda n, x, m: x,  # noqa: ARG005 - one signature for all
    "subtracted": lambda n, x, m: n("Sub", x, m(n, x)),
    "negated": lambda n, x, m: n("Add", n("Neg", m(n, x)), x),
    "backwards": lambda n, x, m: n("Neg", n("Sub", m(n, x), x)),
    "matrix": lambda n, x, m: n(  # noqa: ARG005
        "MatMul", x, (np.eye(n.d) - 1 / n.d).astype(np.float32)
    ),
}
SQUARES: dict[str, Any] = {
    "product": lambda n, x: n("Mul", x, x),
    "power": lambda n, x: n("Pow", x, number(2)),
    "size": lambda n, x: n("Pow", n("Abs", x), number(2)),
}
DIVIDED: dict[str, Any] = {
    "root": lambda n, c, v: n("Div", c, n("Sqrt", n("Add", v, EPS))),
    "inverse": lambda n, c, v: n("Mul", n("Reciprocal", n("Sqrt", n("Add", v, EPS))), c),
    "power": lambda n, c, v: n("Mul", c, n("Pow", n("Max", v, EPS), number(-0.5))),
    "logarithm": lambda n, c, v: n("Div", c, n("Exp", n("Mul", n("Log", n("Add", v, EPS)), number(0.5)))),
}
AFTER: dict[str, Any] = {
    "scale": lambda n, y: n("Mul", n.scale(), y),
    "scale and shift": lambda n, y: n.affine(y),
    "shift, then scale": lambda n, y: n("Mul", n("Add", y, n.shift()), n.scale()),
    "nothing": lambda n, y: y,  # noqa: ARG005
}
WRAPPED: dict[str, Any] = {
    "not": lambda n, x, f: f(n, x),
    "cast": lambda n, x, f: n("Cast", f(n, n("Cast", x, to=1)), to=1),
    "scaled": lambda n, x, f: f(n, n("Mul", x, number(0.37))),
    "named": lambda n, x, f: n("Identity", f(n, n("Identity", x))),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_way_to_write_the_parts(data: Any) -> None:
    def drawn(table: dict[str, Any]) -> Any:
        return table[data.draw(st.sampled_from(sorted(table)))]

    how = data.draw(st.sampled_from(sorted(CENTRED)))
    tables: list[dict[str, Any]] = [MEANS, MEANS, SQUARES, DIVIDED, AFTER, WRAPPED]
    mean, mean_square, square, divided, after, wrapped = (drawn(table) for table in tables)

    def norm(n: Net, x: str) -> str:
        def core(n: Net, x: str) -> str:
            c = CENTRED[how](n, x, mean)
            return str(divided(n, c, mean_square(n, square(n, c))))

        return str(after(n, wrapped(n, x, core)))

    dynamic = data.draw(st.booleans())
    record = sniff(Net().transformer(norm, dynamic=dynamic).SerializeToString())
    assert record.label == ("RMSNorm" if how == "not" else "LayerNorm")


SPOILT: dict[str, Any] = {
    "no root": lambda n, c, v: n("Div", c, n("Add", v, EPS)),
    "half the power": lambda n, c, v: n("Mul", c, n("Pow", n("Add", v, EPS), number(-0.25))),
    "multiplied": lambda n, c, v: n("Mul", c, n("Sqrt", n("Add", v, EPS))),
}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_spoilt_is_no_norm(data: Any) -> None:
    how, spoilt = (data.draw(st.sampled_from(sorted(table))) for table in (CENTRED, SPOILT))
    mean = MEANS[data.draw(st.sampled_from(sorted(MEANS)))]

    def norm(n: Net, x: str) -> str:
        c = CENTRED[how](n, x, mean)
        return str(AFTER["scale and shift"](n, SPOILT[spoilt](n, c, mean(n, n("Mul", c, c)))))

    record = sniff(Net().transformer(norm).SerializeToString())
    assert record.label in ("none", "undetermined")
