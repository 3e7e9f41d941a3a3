"""The ONNX matrix: every network through every exporter and rewriter that takes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .onnx_exports import EXPORTERS, REWRITERS, Proto, export, save, save_external
from .onnx_models import LEGACY, MODELS, built, models
from .onnx_networks import NETWORKS, Network
from .truth import Made


def cases(only: str | None = None) -> Iterator[Made]:
    """Every file of the matrix, or of one network; a file is made only when it is written."""
    for name, network in {**NETWORKS, **models()}.items():
        if only in (None, name):
            yield from _of(name, network)


def _of(name: str, network: Network) -> Iterator[Made]:
    model, network = built(network)
    inputs = {f"x{i}": tensor.numpy() for i, tensor in enumerate(network.example)}
    exported: dict[str, Proto] = {}

    def made(group: str, write: Callable[[Path], Path]) -> Made:
        return Made(name, f"ONNX {group}", network.truth, write)

    for exporter in EXPORTERS:
        if exporter in network.skipped or (name in MODELS and not _takes(name, exporter)):
            continue
        yield made(exporter, partial(_export, exported, exporter, model, network.example))
    for rewriter, (rewrite, exporters) in REWRITERS.items():
        if rewriter in network.skipped or (name in MODELS and name not in LEGACY):
            continue
        for exporter in exporters:
            if exporter in exported:
                yield made(f"{rewriter} of {exporter}", partial(_rewrite, exported[exporter], rewrite, inputs))
    if "torchscript17" in exported:
        yield made("external data of torchscript17", partial(save_external, copy.deepcopy(exported["torchscript17"])))


def _takes(name: str, exporter: str) -> bool:
    return exporter.startswith("dynamo") or (name in LEGACY and exporter != "torchscript11")


def _export(exported: dict[str, Proto], exporter: str, model: Any, example: tuple[Any, ...], directory: Path) -> Path:
    exported[exporter] = export(model, example, exporter)
    return save(exported[exporter], directory)


def _rewrite(model: Proto, rewrite: Callable[..., Proto], inputs: Mapping[str, Any], directory: Path) -> Path:
    return save(rewrite(copy.deepcopy(model), inputs), directory)
