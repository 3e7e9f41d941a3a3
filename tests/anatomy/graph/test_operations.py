"""Norms that a functional Keras model spells out in operations, from configurations as Keras writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from normsniff.anatomy.graph.operations import describe
from normsniff.anatomy.parts import Anatomy

D = 32


class Model:
    """Writes the configuration of a functional model, node by node; a value is a name, a number stays one."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = [
            {"module": "keras.layers", "class_name": "InputLayer", "name": "x", "config": {}, "inbound_nodes": []},
        ]

    def __call__(self, kind: str, *inputs: Any, module: str = "numpy", output: int = 0, **config: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        arguments = [self.tensor(value) if isinstance(value, str) else value for value in inputs]
        where = "keras.layers" if module == "layers" else f"keras.src.ops.{module}"
        node = {"module": where, "class_name": kind, "name": name, "config": {"name": name, **config}}
        self.nodes.append({**node, "inbound_nodes": [{"args": arguments, "kwargs": {}}]})
        return name if not output else f"{name}:{output}"

    def tensor(self, value: str) -> dict[str, Any]:
        name, _, output = value.partition(":")
        history = [name, 0, int(output or 0)]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, 8, D], "dtype": "float32", "keras_history": history},
        }

    def anatomy(self) -> Anatomy:
        found = describe({"class_name": "Functional", "config": {"name": "model", "layers": self.nodes}})
        assert found is not None
        return found


def mean(m: Model, x: str) -> str:
    return m("Mean", x, axis=-1, keepdims=True)


def layer_norm(m: Model, x: str) -> str:
    c = m("Subtract", x, mean(m, x))
    return m("TrueDivide", c, m("Sqrt", m("Add", mean(m, m("Square", c)), 1e-6)))


def layer_norm_by_deviation(m: Model, x: str) -> str:
    c = m("Subtract", x, mean(m, x))
    return m("Divide", c, m("Add", m("Std", x, axis=[-1], keepdims=True), 1e-6))


def layer_norm_by_variance(m: Model, x: str) -> str:
    return m("Multiply", m("Subtract", x, mean(m, x)), m("Rsqrt", m("Var", x, axis=-1, keepdims=True)))


def layer_norm_operation(m: Model, x: str) -> str:
    return m("LayerNorm", x, module="nn", axis=-1, epsilon=None)


def rms_norm(m: Model, x: str) -> str:
    return m("Multiply", x, m("Rsqrt", m("Add", mean(m, m("Square", x)), 1e-6)))


def rms_norm_operation(m: Model, x: str) -> str:
    return m("RMSNorm", x, module="nn", axis=-1)


def unit_length(m: Model, x: str) -> str:
    return m("Normalize", x, module="nn", axis=-1, order=2)


def dynamic_tanh(m: Model, x: str) -> str:
    return m("Tanh", m("Multiply", x, 0.5))


Form = Callable[[Model, str], str]


def network(norm: Form) -> Model:
    m = Model()
    x = m("Embedding", "x", module="layers")
    for _ in range(2):
        x = m("Add", x, m("Dense", m("Dense", norm(m, x), module="layers"), module="layers"))
    m("Dense", norm(m, x), module="layers")
    return m


@pytest.mark.parametrize(
    "norm",
    [layer_norm, layer_norm_by_deviation, layer_norm_by_variance, layer_norm_operation],
    ids=lambda f: f.__name__,
)
def test_layer_norms(norm: Form) -> None:
    anatomy = network(norm).anatomy()
    assert [(site.kind, site.width, site.role) for site in anatomy.sites] == [("LayerNorm", D, "stream")] * 3
    assert anatomy.unexplained == ()


@pytest.mark.parametrize("norm", [rms_norm, rms_norm_operation], ids=lambda f: f.__name__)
def test_rms_norms(norm: Form) -> None:
    anatomy = network(norm).anatomy()
    assert [site.kind for site in anatomy.sites] == ["RMSNorm"] * 3
    assert anatomy.widths == {"main": D}


def test_legacy_files_name_no_modules() -> None:
    m = network(rms_norm_operation)
    for node in m.nodes:
        if str(node.pop("module")).startswith("keras.layers"):
            node["config"]["trainable"] = True
    assert [site.kind for site in m.anatomy().sites] == ["RMSNorm"] * 3


def test_a_unit_length_is_another_norm() -> None:
    anatomy = network(unit_length).anatomy()
    assert anatomy.sites == ()
    assert anatomy.others == {"L2Norm": 3}


def test_what_normalises_nothing() -> None:
    anatomy = network(dynamic_tanh).anatomy()
    assert anatomy.sites == ()
    assert not anatomy.others


def test_a_model_of_layers_alone_has_no_operations() -> None:
    assert describe({"config": {"layers": [{"module": "keras.layers", "class_name": "Dense", "name": "d"}]}}) is None


@pytest.mark.parametrize(
    "config",
    [
        {}, {"config": 3}, {"config": {"layers": {}}}, {"config": {"layers": [3, None]}},
        {"config": {"layers": [{"module": "keras.src.ops.nn", "inbound_nodes": [3, {"args": 4}]}]}},
        {"config": {"layers": [{"module": "keras.src.ops.numpy", "class_name": "Mean", "config": {"axis": "x"},
                                "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": {}}]}]}]}},
        {"config": {"layers": [{"module": "keras.src.ops.numpy", "class_name": "Add", "config": {},
                                "inbound_nodes": [{"args": [1.0, [2.0, "x"]], "kwargs": []}]}]}},
    ],
)  # fmt: skip
def test_configurations_that_make_no_sense(config: dict[str, Any]) -> None:
    found = describe(config)
    assert found is None or found.sites == ()
