"""Tensors that are in memory already: a state dict of numpy, torch, JAX, TensorFlow or CuPy arrays.

No array library is imported here and nothing is converted before it is sampled, so that a model on an
accelerator is not copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import meter
from ..checkpoint import Checkpoint, TensorInfo
from ..dtypes import BY_NAME
from ..errors import FormatError, LimitExceeded, parsing
from ..formats.keras.layers import list_layers
from ..kernel.namespaces import to_numpy
from ..limits import Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN = 5


def from_arrays(
    mapping: Mapping[str, Any], limits: Limits | None = None, config: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Describe a mapping of names to arrays; mappings inside it are flattened with dots.

    Entries that are no arrays are left out with a warning.

    Args:
        mapping: for example ``model.state_dict()``; values have a shape and a dtype, and ``__array__`` or
            ``__dlpack__``.
        limits: caps on the number of tensors and the depth of nesting.
        config: the model's configuration as in config.json, where it is known; or that of a Keras model
            (``json.loads(model.to_json())``), whose weights are then named by their paths.

    Raises:
        FormatError: an entry is an array of Python objects, or two entries have the same name.
        LimitExceeded: there are more tensors than `limits` allows.
    """
    limits = limits or Limits()
    tensors: dict[str, TensorInfo] = {}
    skipped: list[str] = []
    for name, value in flatten(mapping, limits.nesting):
        described = _describe(name, value)
        if described is None:
            skipped.append(name)
            continue
        if name in tensors:
            raise FormatError("duplicate-key", f"<arrays> @ {name}", "two entries have this name")
        dtype, shape = described
        tensors[name] = TensorInfo(name, dtype, shape, _Tensor(name, value))
        meter.grow(tensors[name].nbytes)
        if len(tensors) > limits.tensors:
            raise LimitExceeded("<arrays>", "tensors", limits.tensors, len(tensors))
    dots = " ..." if len(skipped) > _SHOWN else ""
    note = f"{len(skipped):,} entries are no arrays and were left out: {', '.join(skipped[:_SHOWN])}{dots}"
    keras = config is not None and "class_name" in config
    return Checkpoint(
        format="Keras" if keras else "arrays",
        version=None,
        tensors=tensors,
        sources=(),
        header_sha256="",
        config=config,
        layers=list_layers(config, {}, tensors, ()) if keras else (),
        warnings=(note,) if skipped else (),
    )


def state_of(network: Any) -> Mapping[str, Any]:
    """Return names and arrays of what was handed over: of a mapping itself, of a module of torch its ``state_dict()``.

    Raises:
        TypeError: it is neither.
    """
    if not isinstance(network, Mapping) and callable(getattr(network, "state_dict", None)):
        network = network.state_dict()
    if not isinstance(network, Mapping):
        called = "a path, bytes, a binary file, a mapping of names to arrays or a module of torch"
        raise TypeError(f"{called} is needed, not {type(network).__name__}")
    return network


def flatten(mapping: Mapping[Any, Any], levels: int, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and entries, those of mappings inside it under dotted names.

    Raises:
        FormatError: mappings are nested more than `levels` deep.
    """
    if not levels:
        raise FormatError("too-deep", f"<arrays> @ {prefix}", "mappings nested too deeply")
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, levels - 1, f"{name}.")
        else:
            yield name, value


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An array of any library, converted to numpy where it is read."""

    name: str
    value: Any

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        with parsing(f"<arrays> @ {self.name}"):
            value = self.value if hasattr(self.value, "__getitem__") else to_numpy(self.value)
            return to_numpy(value[index] if index else value)


def _describe(name: str, value: Any) -> tuple[str, tuple[int, ...]] | None:
    """Return dtype and shape, or None if `value` is no array of numbers."""
    if not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return None
    dtype = getattr(value, "dtype", None)
    word = str(getattr(dtype, "name", dtype)).rpartition(".")[2]  # float32, torch.float32, tf.float32.name
    if word == "object":
        raise FormatError("object-array", f"<arrays> @ {name}", "an array of Python objects")
    if word not in BY_NAME:
        return None
    return BY_NAME[word], tuple(int(n) for n in value.shape)
