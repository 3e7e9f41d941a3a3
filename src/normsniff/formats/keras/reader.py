"""Keras: ``.keras`` archives, ``.weights.h5``, legacy ``.h5``, TensorFlow ``tf_model.h5`` and plain HDF5.

Tensors are named by their HDF5 path (``layers/dense/vars/0``); of a legacy file the leading ``model_weights/``
is dropped and ``optimizer`` state is left out. `Checkpoint.header_sha256` covers the configuration and the list of
tensors (name, dtype, shape), not bytes: HDF5 has no header in one place, only structures all over the file.

Layouts: keras/src/saving/saving_lib.py (Keras 3) and keras/src/legacy/saving/legacy_h5_format.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from ... import json_text
from ...checkpoint import Checkpoint
from ...errors import FormatError, parsing
from ...limits import Limits
from ...source.local import ByteSource
from .. import archives
from .hdf5 import Listing, list_members
from .layers import list_layers

_LONGEST_VERSION = 100  # characters; it goes into every record
_OPTIMIZERS = ("optimizer", "optimizer_weights")


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Read the structure of a Keras archive or of an HDF5 file; tensors are only located.

    Args:
        source: the file.
        limits: caps on members, depth, attributes and inflated sizes.

    Returns:
        A checkpoint of format ``"Keras"``. Members that were refused (links, data in other files, datasets without
        their data, unknown filters) are named in its warnings.

    Raises:
        FormatError: not such a file, or no tensor is left in it.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    with parsing(source.name):
        if bytes(source.read_at(0, min(4, source.size))) == archives.SIGNATURE:
            return _read_archive(source, limits)
        return _checkpoint(source, list_members(source, limits, _OPTIMIZERS), None, {})


def configured(checkpoint: Checkpoint) -> Checkpoint:
    """List the layers of a model whose configuration lies beside its weights file."""
    config = checkpoint.config
    if config is None or "class_name" not in config:
        return checkpoint
    groups: dict[str, str | None] = {layer.path: None for layer in checkpoint.layers}  # those without weights, too
    for name in checkpoint.tensors:
        parts = name.partition("/vars/")[0].split("/")
        groups.update(("/".join(parts[:n]), None) for n in range(2, len(parts) + 1))
    listed = [layer for layer in list_layers(config, groups, checkpoint.tensors, ()) if layer.config]
    paths = {layer.path for layer in listed}
    return replace(checkpoint, layers=(*listed, *(layer for layer in checkpoint.layers if layer.path not in paths)))


def merge(parts: Sequence[Checkpoint]) -> Checkpoint:
    """Join the shards of ``<name>.weights.json`` into one checkpoint; a layer may be spread over several.

    Raises:
        FormatError: two shards hold the same tensor.
    """
    tensors = dict(parts[0].tensors)
    layers = {layer.path: layer for layer in parts[0].layers}
    digest = hashlib.sha256(parts[0].header_sha256.encode())
    for part in parts[1:]:
        for name, tensor in part.tensors.items():
            if name in tensors:
                raise FormatError("duplicate", f"{part.sources[0].name} # {name}", "is in two shards")
            tensors[name] = tensor
        for layer in part.layers:
            layers.setdefault(layer.path, layer)
        digest.update(part.header_sha256.encode())
    return replace(
        parts[0],
        tensors=tensors,
        layers=tuple(layers.values()),
        sources=tuple(dict.fromkeys(source for part in parts for source in part.sources)),
        warnings=tuple(warning for part in parts for warning in part.warnings),
        header_sha256=digest.hexdigest(),
    )


def _checkpoint(
    source: ByteSource, listing: Listing, config: Mapping[str, Any] | None, metadata: Mapping[str, Any]
) -> Checkpoint:
    """Build the checkpoint; `config` is that of the archive, else the file's own ``model_config`` is used."""
    if not listing.tensors:
        reason = listing.warnings[0] if listing.warnings else f"{source.name}: holds no tensor"
        raise FormatError("no-tensors", source.name, f"nothing could be read: {reason}")
    warnings = list(listing.warnings)
    text = listing.attributes.get("model_config")
    if config is None and text is not None:
        config = _parse_config(text, f"{source.name} @ model_config", warnings)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    prefix = "model_weights/"
    bare = {name.removeprefix(prefix) if "/" in name else name: tensor for name, tensor in listing.tensors.items()}
    if len(bare) != len(listing.tensors):
        raise FormatError("duplicate", source.name, "a tensor is both inside and outside of model_weights")
    order = {name: position for position, name in enumerate(listing.order)}
    names = sorted(bare, key=lambda name: order.get(name.partition("/")[0], len(order)))  # stable
    tensors = {name: msgspec.structs.replace(bare[name], name=name) for name in names}
    for tensor in tensors.values():
        digest.update(f"{tensor.name}\0{tensor.dtype}\0{tensor.shape}\n".encode())
    known: dict[str, Any] = {key: value for key, value in listing.attributes.items() if key != "model_config"}
    known.update(metadata)
    if listing.order:
        known["layer_names"] = ("array", len(listing.order))
    version = known.get("keras_version")
    return Checkpoint(
        format="Keras",
        version=None if version is None else str(version)[:_LONGEST_VERSION],
        tensors=tensors,
        sources=(source,),
        header_sha256=digest.hexdigest(),
        metadata=known,
        config=config,
        layers=list_layers(config, listing.layers, tensors, listing.order),
        warnings=tuple(warnings),
    )


def _parse_config(text: str | bytes, where: str, warnings: list[str]) -> Mapping[str, Any] | None:
    try:
        with parsing(where):
            config = json_text.decode(text, "a configuration")
            if not isinstance(config, dict):
                raise FormatError("bad-config", where, "the configuration is no JSON object")
            return config
    except FormatError as error:
        warnings.append(str(error))
        return None


def _read_archive(source: ByteSource, limits: Limits) -> Checkpoint:
    members = archives.directory(source, limits)
    weights = [name for name in members if name.endswith(".weights.h5") and "/" not in name]
    if not weights:
        raise FormatError("unsupported", source.name, archives.explain(members))
    warnings: list[str] = []
    config = metadata = None
    if "config.json" in members:
        text = archives.member(source, members["config.json"], limits, limits.value_bytes)
        config = _parse_config(bytes(text.read_at(0, text.size)), f"{source.name}!config.json", warnings)
    if "metadata.json" in members:
        text = archives.member(source, members["metadata.json"], limits, limits.value_bytes)
        metadata = _parse_config(bytes(text.read_at(0, text.size)), f"{source.name}!metadata.json", warnings)
    known = {key: value for key, value in (metadata or {}).items() if isinstance(value, (str, int, float, bool))}
    if "model.weights.h5" in members:
        weights = ["model.weights.h5"]
    parts = []
    for name in sorted(weights):  # more than one: model.weights.json lists shards
        window = archives.member(source, members[name], limits, limits.inflated_bytes)
        listing = list_members(window, limits, _OPTIMIZERS)
        parts.append(_checkpoint(window, listing, config, known))
    whole = parts[0] if len(parts) == 1 else merge(parts)
    return replace(whole, sources=(source,), warnings=(*warnings, *whole.warnings))
