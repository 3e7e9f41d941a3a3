"""What a reader returns: names, types, shapes and places of tensors. Nothing here is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec

from .dtypes import UNITS
from .source.local import ByteSource
from .source.views import Extent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MOST_AXES = 64
"""Of any tensor or value: numpy's own limit, and torch's. It keeps the product of a shape cheap, and a graph may double
the axes of a value again and again."""


class Slab(Protocol):
    """A tensor that only a library can slice (HDF5 datasets), or that is an array already."""

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index` (one slice an axis), nothing more."""
        ...


class ArraySlab(msgspec.Struct, frozen=True):
    """An array in memory."""

    array: NDArray[Any]

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return self.array[index]


class Affine(msgspec.Struct, frozen=True):
    """Integer weights that stand for ``(stored - zero_point) * scale`` (ONNX, per tensor or per slice of `axis`)."""

    scale: TensorInfo
    zero_point: TensorInfo | None
    axis: int | None


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """One stored tensor.

    Attributes:
        name: as the file has it.
        dtype: a key of `UNITS`, or the file's own word for a type that we cannot decode.
        shape: elements along each axis, slowest first (numpy's order), as stored.
        storage: where the values are.
        byteorder: ``"<"`` or ``">"``, of the stored numbers.
        affine: how to turn stored integers into weights, where the file says so.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    storage: Extent | Slab
    byteorder: str = "<"
    affine: Affine | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        if isinstance(self.storage, Extent):
            return self.storage.stop - self.storage.start
        elements, unit = UNITS.get(self.dtype, (1, 1))
        return self.size * unit // elements


class Operator(msgspec.Struct, frozen=True):
    """One node of a computation graph, sub-graphs flattened in, functions kept once per call."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = {}


class Graph(msgspec.Struct, frozen=True):
    """Operators in execution order. Every value name is unique over the whole graph.

    Attributes:
        operators: the nodes; an `Operator` input that is a key of `Checkpoint.tensors` is a stored weight.
        inputs: names of the model's inputs.
        outputs: names of the model's outputs.
        constants: small integer/float constants by value name (axes, exponents, epsilons, shapes), decoded.
        ranks: number of axes of the inputs, where the file tells.
        shapes: sizes of inputs and other values, where the file tells; None for a size that it leaves open.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[np.generic]]
    ranks: Mapping[str, int] = {}
    shapes: Mapping[str, tuple[int | None, ...]] = {}


class Layer(msgspec.Struct, frozen=True):
    """What a file's own configuration says of one Keras layer.

    Attributes:
        path: the prefix of its variables in `Checkpoint.tensors`, for example ``"layers/ln_1"``.
        class_name: for example ``"LayerNormalization"`` or ``"keras_hub>LlamaLayerNorm"``.
        config: the layer's arguments, JSON values.
        inputs: paths of the layers that feed it, where the file has a functional graph.
    """

    path: str
    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...] = ()


class Alarm(NamedTuple):
    """Something in a file that is made to deceive or to harm, or looks like it.

    Attributes:
        code: of the finding that it becomes.
        grave: whether it is surely so, and does harm.
        what: one sentence.
    """

    code: Literal["dangerous-pickle", "disguised"]
    grave: bool
    what: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model file, or several that are one model, after its header was parsed.

    Attributes:
        format: a name of the table of formats, or ``"arrays"``.
        version: the container's version in its own words, or None.
        tensors: by name, in the order of the file.
        metadata: the container's own scalar metadata (GGUF keys, safetensors ``__metadata__``, ONNX producer).
            Arrays are not kept; their length is, as ``("array", n)`` under the same key.
        config: a configuration beside or inside the file (config.json, Keras model_config), or None.
        graph: the computation, where the format stores one.
        layers: the layers that a Keras configuration lists.
        sources: every source that was opened, the main one first.
        header_sha256: SHA-256 over the header bytes that were parsed, hexadecimal.
        warnings: oddities that do not stop the reading.
        alarms: what no file of good faith has.
    """

    format: str
    version: str | None
    tensors: Mapping[str, TensorInfo]
    sources: tuple[ByteSource, ...]
    header_sha256: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    graph: Graph | None = None
    layers: tuple[Layer, ...] = ()
    warnings: tuple[str, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Bytes read so far from all sources."""
        return sum(source.bytes_read for source in self.sources)

    @property
    def requests(self) -> int | None:
        """Requests sent for the model so far, all its files together; None where no file is behind a URL."""
        return max((n for source in self.sources if (n := getattr(source, "requests", None)) is not None), default=None)

    @property
    def file_size(self) -> int:
        """Total size of all files of the model, in bytes."""
        return sum(source.size for source in self.sources)

    def close(self) -> None:
        """Close every source."""
        for source in self.sources:
            source.close()
