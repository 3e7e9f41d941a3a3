"""Keras files written by hand, and trained ones from which all names are taken that tell: nothing but h5py is needed.

Layouts: norm-facts.md, section 4. The configuration of Keras 2 has no ``rms_scaling``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .truth import Made, Truth

_WIDTH, _HIDDEN, _VOCABULARY, _BLOCKS = 32, 96, 80, 2
_STREAM = 2 * _BLOCKS + 1
_FIXTURES = Path(__file__).parents[2] / "fixtures"
Layers = Mapping[str, Mapping[str, tuple[int, ...]]]


def _write(path: Path, layers: Layers, attributes: Mapping[str, Any], home: str = "model_weights") -> Path:
    """Write a legacy file: a group a layer, in it the variables by their full names."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        group = file.create_group(home) if home else file
        group.attrs["layer_names"] = [name.encode() for name in layers]
        group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for name, variables in layers.items():
            own = group.create_group(name)
            own.attrs["weight_names"] = [variable.encode() for variable in variables]
            for variable, shape in variables.items():
                own[variable] = random.normal(len(shape) == 1, 0.1, shape).astype("<f4")
    return path


# --- Keras 2 -----------------------------------------------------------------------------------------------------


def _keras2(center: bool, scale: bool, configured: bool, directory: Path) -> Path:
    """A functional model: norm, up, down and a sum, over and over."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {"embedding": {"embedding/embeddings:0": (_VOCABULARY, _WIDTH)}}
    nodes: list[dict[str, Any]] = [_node("Embedding", "embedding", [], {"output_dim": _WIDTH})]
    stream = "embedding"
    for i in range(_STREAM):
        norm, up, down, total = (f"{name}_{i}" if i else name for name in ("layer_normalization", "up", "down", "add"))
        leaves = [leaf for leaf, there in (("gamma", scale), ("beta", center)) if there]
        layers[norm] = {f"{norm}/{leaf}:0": (_WIDTH,) for leaf in leaves}
        options = {"axis": [2], "epsilon": 1e-3, "center": center, "scale": scale}
        nodes.append(_node("LayerNormalization", norm, [stream], options))
        sizes = {up: (_WIDTH, _HIDDEN), down: (_HIDDEN, _WIDTH)}
        for name, before in ((up, norm), (down, up)):
            layers[name] = {f"{name}/kernel:0": sizes[name], f"{name}/bias:0": sizes[name][1:]}
            nodes.append(_node("Dense", name, [before], {"units": sizes[name][1]}))
        nodes.append(_node("Add", total, [stream, down], {}))
        layers[total], stream = {}, total
    config = {"class_name": "Functional", "config": {"name": "model", "layers": nodes}}
    attributes = {"model_config": json.dumps(config)} if configured else {}
    return _write(directory / "model.h5", layers, attributes, "model_weights" if configured else "")


def _node(class_name: str, name: str, inputs: list[str], options: Mapping[str, Any]) -> dict[str, Any]:
    inbound = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return {"class_name": class_name, "name": name, "config": {"name": name, **options}, "inbound_nodes": inbound}


# --- transformers' tf_model.h5 -----------------------------------------------------------------------------------


def _tf_bert(directory: Path) -> Path:
    top, variables = "tf_bert_model/bert", dict[str, tuple[int, ...]]()
    variables[f"{top}/embeddings/word_embeddings/weight:0"] = (_VOCABULARY, _WIDTH)
    for norm in (
        "embeddings",
        *(f"encoder/layer_._{i}/{at}output" for i in range(_BLOCKS) for at in ("attention/", "")),
    ):
        variables |= {f"{top}/{norm}/LayerNorm/{leaf}:0": (_WIDTH,) for leaf in ("gamma", "beta")}
    for i in range(_BLOCKS):
        at = f"{top}/encoder/layer_._{i}"
        for leaf in ("query", "key", "value"):
            variables[f"{at}/attention/self/{leaf}/kernel:0"] = (_WIDTH, _WIDTH)
        variables[f"{at}/attention/output/dense/kernel:0"] = (_WIDTH, _WIDTH)
        variables[f"{at}/intermediate/dense/kernel:0"] = (_WIDTH, _HIDDEN)
        variables[f"{at}/output/dense/kernel:0"] = (_HIDDEN, _WIDTH)
    return _write(directory / "tf_model.h5", {"bert": variables}, {}, "")


def _tf_t5(configured: bool, directory: Path) -> Path:
    if configured:
        (directory / "config.json").write_text(json.dumps({"model_type": "t5", "layer_norm_epsilon": 1e-6}))
    layers: dict[str, dict[str, tuple[int, ...]]] = {
        "shared": {"tf_t5_encoder_model/shared/shared/weight:0": (_VOCABULARY, _WIDTH)}
    }
    top, variables = "tf_t5_encoder_model/encoder", dict[str, tuple[int, ...]]()
    for i in range(_BLOCKS):
        at = f"{top}/block_._{i}"
        for part in range(2):
            variables[f"{at}/layer_._{part}/layer_norm/weight:0"] = (_WIDTH,)
        for leaf in "qkvo":
            variables[f"{at}/layer_._0/SelfAttention/{leaf}/kernel:0"] = (_WIDTH, _WIDTH)
        variables[f"{at}/layer_._1/DenseReluDense/wi/kernel:0"] = (_WIDTH, _HIDDEN)
        variables[f"{at}/layer_._1/DenseReluDense/wo/kernel:0"] = (_HIDDEN, _WIDTH)
    variables[f"{top}/final_layer_norm/weight:0"] = (_WIDTH,)
    return _write(directory / "tf_model.h5", layers | {"encoder": variables}, {}, "")


# --- trained weights whose names tell nothing ----------------------------------------------------------------------


def _one_variable(fixture: str, group: str, directory: Path) -> Path:
    """Name every norm of a trained file ``layer_normalization`` and leave it one variable."""
    path = directory / "model.weights.h5"
    with h5py.File(_FIXTURES / fixture) as old, h5py.File(path, "w") as new:
        for name in old["layers"]:
            own = name.replace(group, "layer_normalization")
            old.copy(f"layers/{name}", new.require_group("layers"), own)
            if name.startswith(group):
                new[f"layers/{own}/vars"].attrs["name"] = own
                new[f"layers/{own}/vars"].pop("1", None)
    return path


def cases(only: str | None = None) -> Iterator[Made]:
    """Every file made by hand, or one."""
    return (made for made in _cases() if only in (None, made.name))


def _cases() -> Iterator[Made]:
    n = _STREAM
    for center, scale in ((True, True), (False, True), (True, False), (False, False)):
        name = f"LayerNormalization, center={center}, scale={scale}"
        truth = Truth("LayerNorm", n, n * scale, n * center)
        yield Made(name, "Keras 2 legacy .h5", truth, partial(_keras2, center, scale, True))
        bare = Truth("LayerNorm", n if center or scale else None, n * scale, n * center, not center)
        yield Made(name, "Keras 2 weights .h5", bare, partial(_keras2, center, scale, False))
    yield Made("BERT", "tf_model.h5 of transformers", Truth("LayerNorm", n, n, n), _tf_bert)
    yield Made("T5", "tf_model.h5 of transformers", Truth("RMSNorm", n, n, 0, True), partial(_tf_t5, False))
    yield Made("T5", "tf_model.h5 and config.json", Truth("RMSNorm", n, n, 0), partial(_tf_t5, True))
    for fixture, group, label in (
        ("gpt2-ln.f16.weights.h5", "layer_normalization", "LayerNorm"),
        ("plain-rms.f16.weights.h5", "rms_normalization", "RMSNorm"),
    ):
        truth = Truth(label, n, n, 0, True)
        yield Made(
            f"{label}, trained, one variable", "Keras .weights.h5", truth, partial(_one_variable, fixture, group)
        )
