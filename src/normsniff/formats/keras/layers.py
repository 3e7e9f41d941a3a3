"""Which Keras layer owns which variables: the model configuration joined with the groups of the HDF5 file.

Keras 3 names groups by class and position (``layers/dense_4``) and writes the user's name of the layer into
``vars.attrs["name"]``; legacy files name groups by layer. Without a configuration the class is taken from such
names, where they are those that Keras gives by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ... import meter
from ...checkpoint import Layer

_CLASSES = (
    "Dense", "EinsumDense", "Embedding", "ReversibleEmbedding", "PositionEmbedding", "TokenAndPositionEmbedding",
    "MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention", "CachedMultiHeadAttention", "Attention",
    "LayerNormalization", "RMSNormalization", "BatchNormalization", "GroupNormalization", "InstanceNormalization",
    "UnitNormalization", "SpectralNormalization", "Normalization", "LayerNorm", "RMSNorm", "GroupNorm",
    "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "SeparableConv1D", "SeparableConv2D",
    "DepthwiseConv1D", "DepthwiseConv2D", "LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "InputLayer",
    "Add", "Concatenate", "Multiply", "Dropout", "SpatialDropout1D", "StochasticDepth", "Activation", "Softmax",
    "Reshape", "Flatten", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling2D", "Masking",
    "TimeDistributed", "Bidirectional", "Functional", "Sequential", "TransformerEncoder", "TransformerDecoder",
)  # fmt: skip
_LONGEST_CLASS = 200  # characters of the name of a class
_CHILD = 15  # steps a layer: it is named, placed, counted and joined with its group
_MAX_DEPTH = 64  # of layers inside layers; JSON itself nests about four times deeper


def snake_case(class_name: str) -> str:
    """Turn a class name into the name that Keras gives its groups (keras/src/utils/naming.py).

    >>> snake_case("keras_hub>LlamaLayerNorm"), snake_case("RMSNormalization"), snake_case("Conv1D")
    ('llama_layer_norm', 'rms_normalization', 'conv1d')
    """
    name = re.sub(r"\W+", "", class_name.rpartition(">")[2])
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


_BY_SNAKE = {snake_case(name): name for name in _CLASSES} | {name.lower(): name for name in ("LayerNorm", "RMSNorm")}


def class_of(name: str) -> str | None:
    """Return the class of a layer whose name Keras made from it (``layer_normalization_3``), or None."""
    return _BY_SNAKE.get(re.sub(r"_[0-9]+$", "", name).lower())


def _parents(tensors: Collection[str]) -> dict[str, None]:
    """Return the groups that hold variables, without the ``vars`` of Keras 3, in the order of the tensors."""
    return dict.fromkeys(name.rpartition("/")[0].removesuffix("/vars") for name in tensors if "/" in name)


def _pascal(group: str) -> str:
    """Turn a numbered group name back into a class name: ``qwen3_5_decoder_2`` into ``Qwen3_5Decoder``."""
    snake = re.sub(r"_[0-9]+$", "", group)
    capitals = re.sub(r"(^|_)([a-z])", lambda match: match[2].upper(), snake)
    return re.sub(r"(?<![0-9])_", "", capitals)


class _Groups:
    """Finds the group of a layer by the layer that contains it and its name."""

    def __init__(self, named: Mapping[str, str | None], tensors: Collection[str]) -> None:
        self.named = named
        self._paths: dict[tuple[str, str], str] = {}
        if named:  # Keras 3: the owner is the nearest group above that is a layer itself
            for path, name in named.items():
                if path and name is not None:
                    self._paths.setdefault((_owner(path, named), name), path)
            return
        # legacy: anywhere below the group of the outermost layer, which often holds a group of the same name
        for path in dict.fromkeys(above for parent in _parents(tensors) for above in _upwards(parent)):
            top, slash, _ = path.partition("/")
            if slash:
                self._paths.setdefault((top, path.rpartition("/")[2]), path)
            else:
                self._paths["", top] = top
        for top in [name for owner, name in self._paths if not owner]:
            self._paths["", top] = self._paths.get((top, top), top)

    def find(self, owner: str, name: str) -> str | None:
        key = (owner if self.named else owner.partition("/")[0], name)
        return self._paths.get(key)


def _owner(path: str, named: Collection[str]) -> str:
    """Return the nearest group above `path` that is one of `named`, or ``""``."""
    meter.charge(1 + len(path) // 20, "looking for the owners of groups")
    while path := path.rpartition("/")[0]:
        if path in named:
            return path
    return ""


def list_layers(
    config: Mapping[str, Any] | None,
    named: Mapping[str, str | None],
    tensors: Collection[str],
    order: Sequence[str],
) -> tuple[Layer, ...]:
    """Return the layers that a configuration lists, each followed by those that only names give away.

    Without a configuration the groups of a legacy file come in the order of ``layer_names``, the unrecognised
    ones with an empty class.

    Args:
        config: the serialised model (``config.json`` or ``model_config``), or None.
        named: layer groups of a Keras 3 file with the user's name of each; empty for a legacy file.
        tensors: names of the tensors.
        order: ``layer_names`` of a legacy file.
    """
    groups = _Groups(named, tensors)
    layers: dict[str, Layer] = {}
    for layer in _walk(config or {}, "", groups, 0):
        layers.setdefault(layer.path, layer)
    inside: dict[str, list[Layer]] = {}
    for path, class_name in _guess(groups, tensors, () if layers else order).items():
        if path not in layers:
            inside.setdefault(_owner(path, layers), []).append(Layer(path, class_name, {}))
    listed = [inner for layer in layers.values() for inner in (layer, *inside.get(layer.path, ()))]
    return (*listed, *inside.get("", ()))


def _walk(node: Mapping[str, Any], owner: str, groups: _Groups, depth: int) -> Iterator[Layer]:
    """Yield the layers inside a serialised layer, those of a functional graph with what feeds them."""
    if depth > _MAX_DEPTH:
        return
    config = node.get("config")
    if isinstance(config, list):  # Sequential of Keras before 2.2
        config = {"layers": config}
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        children = [c for c in (value if isinstance(value, list) else [value]) if _is_layer(c)]
        meter.charge(1 + _CHILD * len(children), "listing layers")
        paths = _place(children, owner, groups, contained=key in ("layers", "layer"))
        names = {_name(child): path for child, path in zip(children, paths, strict=True) if path}
        for child, path in zip(children, paths, strict=True):
            if path is None:
                continue
            registered = child.get("registered_name")
            custom = isinstance(registered, str) and ">" in registered and not registered.startswith("keras>")
            class_name = str(registered if custom else child["class_name"])[:_LONGEST_CLASS]
            arguments = child["config"] if isinstance(child["config"], Mapping) else {}
            sources = dict.fromkeys(_sources(child.get("inbound_nodes"), names))
            yield Layer(path, class_name, arguments, tuple(sources))
            yield from _walk(child, path, groups, depth + 1)


def _is_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("class_name"), str) and "config" in value


def _name(node: Mapping[str, Any]) -> str:
    config = node["config"]
    name = (config.get("name") if isinstance(config, Mapping) else None) or node.get("name")
    return name if isinstance(name, str) else ""


def _place(children: Sequence[Mapping[str, Any]], owner: str, groups: _Groups, contained: bool) -> list[str | None]:
    """Find the path of every child: by the user's name, else by class and position as Keras counts them.

    A layer of a container that has no group (it has no weights) gets its name as path; anything else without a
    group is no layer (an initialiser, a policy).
    """
    counts: dict[str, int] = {}
    paths: list[str | None] = []
    for child in children:
        snake, name = snake_case(child["class_name"][:_LONGEST_CLASS]), _name(child)
        k = counts[snake] = counts.get(snake, -1) + 1
        counted = f"{owner}/layers/{snake}" if owner else f"layers/{snake}"
        counted = f"{counted}_{k}" if k else counted
        path = groups.find(owner, name)
        if path is None and contained:
            unnamed = groups.named.get(counted, "") is None
            path = counted if unnamed else "/".join(part for part in (owner, name) if part)
        paths.append(path or None)
    return paths


def _sources(value: Any, names: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths of the layers that ``inbound_nodes`` refers to, as ``[name, node, tensor, ...]`` at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        meter.charge(1, "looking for what feeds layers")
        if isinstance(one, Mapping):
            waiting.extend(reversed([*one.values()]))
        elif isinstance(one, list):
            if len(one) >= 3 and isinstance(one[0], str) and isinstance(one[1], int) and isinstance(one[2], int):
                if one[0] in names:
                    yield names[one[0]]
                one = one[3:]  # keyword arguments of Keras 2, which may refer to more layers
            waiting.extend(reversed(one))


def _guess(groups: _Groups, tensors: Collection[str], order: Sequence[str]) -> dict[str, str]:
    """Return the class of every group whose name tells it, by path; with `order`, of every group listed there."""
    found: dict[str, str] = {}
    for path, name in groups.named.items():
        parent, _, base = path.rpartition("/")
        guess = class_of(name or "") or class_of(base)
        # in a list (a parent that is no layer) Keras numbers the class itself; elsewhere `base` is an attribute
        if guess is None and parent and parent not in groups.named and re.fullmatch(r"[a-z0-9_]+", base):
            guess = _pascal(base)
        if path and guess:
            found[path] = guess
    if groups.named:
        return found
    by_top: dict[str, list[str]] = {name: [] for name in order}
    for path in _parents(tensors):
        by_top.setdefault(path.partition("/")[0], []).append(path)
    for top, paths in by_top.items():
        if order:
            found[groups.find("", top) or top] = class_of(top) or ""
        for group in dict.fromkeys(above for path in paths for above in _upwards(path)):
            if (guess := class_of(group.rpartition("/")[2])) and ("/" in group or group in paths):
                found.setdefault(group, guess)
    return found


def _upwards(path: str) -> list[str]:
    """Return the group and those above it, outermost first."""
    parts = path.split("/")
    meter.charge(len(parts) + len(parts) * len(path) // 100, "naming groups")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
