"""The Keras matrix: every network of native layers in every container, in other precisions, and quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .keras_networks import Network, keras, networks, quiet, trained
from .truth import Made

Save = Callable[[Any, Path], Path]


def _archive(model: Any, directory: Path) -> Path:
    path = directory / "model.keras"
    model.save(path)
    return path


def _weights(model: Any, directory: Path) -> Path:
    path = directory / "model.weights.h5"
    model.save_weights(path)
    return path


def _legacy(model: Any, directory: Path) -> Path:
    path = directory / "model.h5"
    model.save(path)
    return path


def _sharded(model: Any, directory: Path) -> Path:
    model.save_weights(directory / "model.weights.json", max_shard_size=5e-5)  # GB; makes two or more
    return directory


def _unzipped(model: Any, directory: Path) -> Path:
    model.save(directory / "model", zipped=False)
    return directory / "model"


# container -> how it is saved, and whether the configuration is in it
_CONTAINERS: Mapping[str, tuple[Save, bool]] = {
    ".keras": (_archive, True), "legacy .h5": (_legacy, True), "unzipped .keras": (_unzipped, True),
    ".weights.h5": (_weights, False), "sharded .weights.json": (_sharded, False),
}  # fmt: skip
_PRECISIONS = ("float16", "bfloat16", "int8", "int4")
_IN_PRECISIONS = ("LayerNormalization, functional", "RMSNormalization, functional", "RMSNormalization, nested")


def cases(only: str | None = None) -> Iterator[Made]:
    """Every file of the matrix, or of one network; a file is made only when it is written."""
    for name, network in networks().items():
        if only in (None, name):
            yield from _saved(name, network, _model(network, "float32"), "Keras")
            for precision in _PRECISIONS if name in _IN_PRECISIONS else ():
                yield from _saved(name, network, _model(network, precision), f"Keras {precision}")


def _saved(name: str, network: Network, model: Any, group: str) -> Iterator[Made]:
    for container, (save, configured) in _CONTAINERS.items():
        truth = network.truth if configured else network.bare
        if container == "legacy .h5":  # its weights have names: gamma, beta, scale
            truth = replace(truth, open=truth.open and not network.truth.shifts)
        if container == "legacy .h5" and "int" in group:  # Keras does not save quantised layers there
            continue
        yield Made(name, f"{group} {container}", truth, partial(quiet(save), model))


@quiet
def _model(network: Network, precision: str) -> Any:
    keras.backend.clear_session()  # layer names count from zero again
    keras.utils.set_random_seed(0)
    quantised = precision.startswith("int")
    keras.config.set_dtype_policy("float32" if quantised else precision)
    try:
        model = trained(network.build())
        if quantised:
            model.quantize(precision)
    finally:
        keras.config.set_dtype_policy("float32")
    return model
