from __future__ import annotations

from typing import Any

import pytest

from normsniff.checkpoint import Checkpoint
from normsniff.evidence.epsilons import epsilon_at, epsilon_keys

BACKBONE = {"class_name": "GemmaBackbone", "config": {"layer_norm_epsilon": 1e-6, "num_layers": 2}}


def keys(config: dict[str, Any]) -> dict[str, float]:
    empty = Checkpoint(
        format="Keras", version=None, tensors={}, metadata={}, header_sha256="", sources=(), config=config
    )
    return dict(epsilon_keys(empty))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (BACKBONE, "config.layer_norm_epsilon"),
        (
            {"class_name": "GemmaCausalLM", "config": {"backbone": BACKBONE}},
            "config.backbone.config.layer_norm_epsilon",
        ),
    ],
)
def test_the_arguments_of_a_keras_class_declare_an_epsilon(config: dict[str, Any], key: str) -> None:
    assert keys(config) == {key: 1e-6}
    assert epsilon_at(keys(config), "main") == (key, 1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"config": {"layer_norm_epsilon": 1e-6}},
        {"class_name": "A", "config": [1]},
        {"class_name": "A", "config": {"backbone": {"class_name": "B", "config": {"backbone": BACKBONE}}}},
    ],
)
def test_other_nestings_declare_none(config: dict[str, Any]) -> None:
    assert keys(config) == {}
