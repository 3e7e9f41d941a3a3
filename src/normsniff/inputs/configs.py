"""The configuration that lies beside a model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..checkpoint import Checkpoint, Layer
from ..errors import FormatError, LimitExceeded, NormsniffError, SourceError, parsing
from ..limits import Limits
from ..source.local import ByteSource
from ..source.place import Place
from ..source.places import is_file, is_inside, open_file


def with_config(checkpoint: Checkpoint, path: Place, limits: Limits, opened: contextlib.ExitStack) -> Checkpoint:
    """Attach the first configuration that lies beside the model."""
    for root, candidate in _config_candidates(checkpoint.format, path.parent):
        if not is_file(candidate):
            continue
        try:
            config, source = _read_config(root, candidate, limits, opened)
        except NormsniffError as error:
            return replace(checkpoint, warnings=(*checkpoint.warnings, f"the configuration is not used: {error}"))
        layers = checkpoint.layers
        if checkpoint.format == "Keras" and "class_name" in config:
            layers = _keras_layers(config, checkpoint)
        return replace(checkpoint, config=config, layers=layers, sources=(*checkpoint.sources, source))
    return checkpoint


def _config_candidates(model_format: str, directory: Place) -> Iterator[tuple[Place, Place]]:
    """Yield (directory that must hold it, file)."""
    yield directory, directory.joinpath("config.json")
    if model_format == "ONNX" and directory.name == "onnx":  # Hugging Face repositories keep exports in a sub-folder
        yield directory.parent, directory.parent.joinpath("config.json")
    if model_format in ("safetensors", "PyTorch"):  # Mistral's own layout; PEFT's, which names the base model
        yield directory, directory.joinpath("params.json")
        yield directory, directory.joinpath("adapter_config.json")


def _read_config(
    root: Place, path: Place, limits: Limits, opened: contextlib.ExitStack
) -> tuple[dict[str, Any], ByteSource]:
    if not is_inside(root, path):
        raise SourceError(str(path), "a symbolic link that leaves the model's directory")
    source = open_file(path)
    opened.callback(source.close)
    if source.size > limits.value_bytes:
        raise LimitExceeded(str(path), "bytes of the configuration", limits.value_bytes, source.size)
    with parsing(str(path)):  # the standard library's parser, as configurations do hold Infinity
        config = json.loads(bytes(source.read_at(0, source.size)))
    if not isinstance(config, dict):
        raise FormatError("bad-config", str(path), "not a JSON object")
    if _is_deeper(config, limits.nesting):
        raise FormatError("too-deep", str(path), f"nested deeper than {limits.nesting} levels")
    return config, source


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return False
    return True


def _keras_layers(config: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[Layer, ...]:
    """Return the layers of a Keras model whose configuration is not inside its weights file."""
    from ..formats.keras.layers import list_layers

    groups: dict[str, str | None] = {layer.path: None for layer in checkpoint.layers}  # those without weights, too
    for name in checkpoint.tensors:
        parts = name.partition("/vars/")[0].split("/")
        groups.update(("/".join(parts[:n]), None) for n in range(2, len(parts) + 1))
    listed = [layer for layer in list_layers(config, groups, checkpoint.tensors, ()) if layer.config]
    paths = {layer.path for layer in listed}
    return (*listed, *(layer for layer in checkpoint.layers if layer.path not in paths))
