"""Dominators and regions, against their definition."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from normsniff.anatomy.graph.regions import Flow
from normsniff.checkpoint import Operator

INPUTS = ("in0", "in1")


def flow(seed: int, count: int) -> Flow:
    rng = np.random.default_rng(seed)
    names, operators = list(INPUTS), []
    for k in range(count):
        inputs = tuple(str(name) for name in rng.choice(names[-6:], rng.integers(1, 4)))
        operators.append(Operator("Add", "", "", inputs, (f"v{k}",)))
        names.append(f"v{k}")
    return Flow(operators, INPUTS)


def reached(flow: Flow, without: int) -> set[int]:
    found = {k for k in range(len(INPUTS)) if k != without}
    for k in range(len(INPUTS), len(flow.operators)):
        if k != without and any(flow.producers[name] in found for name in flow.operators[k].inputs):
            found.add(k)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 40))
def test_the_dominator_is_the_last_operator_that_all_paths_pass(seed: int, count: int) -> None:
    graph = flow(seed, count)
    cut = [reached(graph, without) for without in range(len(graph.operators))]
    for k in range(len(INPUTS), len(graph.operators)):
        dominators = [d for d in range(len(graph.operators)) if d != k and k not in cut[d]]
        assert graph.dominator(k) == max(dominators, default=-1)


def test_what_hangs_on_weights_or_shapes_is_fixed() -> None:
    graph = Flow(
        [
            Operator("Mul", "", "", ("weight", "weight"), ("a",)),
            Operator("Shape", "", "", ("x",), ("b",)),
            Operator("Mul", "", "", ("x", "a"), ("c",)),
        ],
        ["x"],
    )
    assert [graph.is_fixed(name) for name in ("weight", "a", "b", "x", "c")] == [True, True, True, False, False]


def test_a_region_has_one_source_and_no_other_way_in() -> None:
    spread = Operator("Mul", "", "", ("x", "x"), ("square",))
    end = Operator("Div", "", "", ("x", "square"), ("y",))
    graph = Flow([spread, end], ["x"])
    region = graph.region(2, 0, first_only=False)
    assert region is not None
    assert (region.source, sorted(region.inside)) == ("x", [1, 2])
    two = Flow([spread, Operator("Div", "", "", ("z", "square"), ("y",))], ["x", "z"])
    assert two.region(3, 0, first_only=False) is None


def test_operators_out_of_order_do_no_harm() -> None:
    graph = Flow([Operator("Add", "", "", ("b", "x"), ("a",)), Operator("Add", "", "", ("a", "x"), ("b",))], ["x"])
    assert graph.dominator(1) in (-1, 0)


def test_a_long_graph_takes_time_in_proportion() -> None:
    def seconds(count: int) -> float:  # every operator reaches back to the first: the worst case of a naive walk
        operators = [Operator("Add", "", "", (f"v{k}" if k else "x", "early"), (f"v{k + 1}",)) for k in range(count)]
        started = time.process_time()
        Flow([Operator("Neg", "", "", ("x",), ("early",)), *operators], ["x"])
        return time.process_time() - started

    assert seconds(20_000) < 30 * max(seconds(2_000), 0.005)
