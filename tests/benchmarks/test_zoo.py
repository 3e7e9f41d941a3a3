"""Networks that are no transformers get the right label or none; never a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.conformance import zoo
from normsniff import sniff


@pytest.mark.parametrize("network", list(zoo.networks()), ids=lambda network: network.name)
def test_never_a_wrong_label(network: zoo.Network) -> None:
    for one in zoo.answers(network.name):
        assert one.outcome != "wrong", (one.label, one.reasons)


def test_most_get_their_label() -> None:
    """A reader that always abstained would pass the test above."""
    answers = [one for network in zoo.networks() for one in zoo.answers(network.name)]
    told = [one for one in answers if one.case.variant == "all evidence"]
    assert sum(one.outcome == "right" for one in told) >= 0.6 * len(told)


def test_estimators_of_scikit_learn_as_onnx_normalise_nothing() -> None:
    """What skl2onnx writes, by hand: a scaler and a classifier of the domain ai.onnx.ml."""
    onnx: Any = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.5] * 8, scale=[2.0] * 8),
        helper.make_node(
            "LinearClassifier", ["y"], ["label", "scores"], domain="ai.onnx.ml", coefficients=[0.1] * 24,
            intercepts=[0.0] * 3, classlabels_ints=[0, 1, 2], multi_class=1, post_transform="SOFTMAX",
        ),
        helper.make_node("Normalizer", ["scores"], ["p"], domain="ai.onnx.ml", norm="L1"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "skl2onnx", [helper.make_tensor_value_info("x", kinds.FLOAT, [None, 8])],
        [helper.make_tensor_value_info("label", kinds.INT64, [None]),
         helper.make_tensor_value_info("p", kinds.FLOAT, [None, 3])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="skl2onnx")
    assert sniff(model.SerializeToString()).label == "none"
