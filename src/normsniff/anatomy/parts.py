"""What is what in a network: norm sites, and the matrices around them. No bytes are read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from ..checkpoint import TensorInfo

NormKind = Literal["LayerNorm", "RMSNorm"]
NormRole = Literal["stream", "query-key", "other"]
Hint = Literal[
    "parallel", "biased-mlp", "layer-words", "group-norm", "gamma", "positions", "staged", "gated-mlp", "outside",
    "one-variable",
]  # fmt: skip
MatrixRole = Literal["writer", "reader", "embedding", "unembedding", "position", "unknown"]

SERVING_TOWERS = frozenset(["vision", "audio", "qformer", "projector", "tokenizer", "units", "depth"])
"""Components that serve another one: seldom the main stream, and not what the keys of a language model speak of."""


@dataclass(frozen=True, slots=True)
class Site:
    """One place where the network normalises.

    Attributes:
        name: module path or graph node, for example ``"model.layers.0.input_layernorm"``.
        scale: γ as stored, or None if the norm has none.
        shift: β as stored, or None if the norm has none.
        component: the tower that it belongs to, ``"main"`` where there is only one.
        layer: index of the block, or None (embedding norms, final norms).
        role: ``"stream"`` if it normalises the residual stream, ``"query-key"`` inside attention, else ``"other"``.
        kind: what the file itself says that this site computes (operators of its graph, or the class
            of its layer); None where the file does not say.
        offset: the effective scale is ``offset + stored`` (1.0 in zero-centred families, else 0.0).
        width: d, or None where no parameter tells.
        why: how `kind` and `offset` are known, one sentence, or "".
        output: name of the value that it puts out, where the file stores a graph; else "".
        named: whether a name, a class or a graph says that this is a norm; False where only its shape does.
        mistakable: whether the words do not tell which of the two vectors is the scale; their values do.
        by_name: whether `kind` is only what a name says, of an operator or a class that nobody defines here.
        epsilon: what is added under its root, where its operator or its layer says so; else None.
        word: what its module is called, the last word of the path; "" where there is no path.
    """

    name: str
    scale: TensorInfo | None
    shift: TensorInfo | None
    component: str = "main"
    layer: int | None = None
    role: NormRole = "stream"
    kind: NormKind | None = None
    offset: float = 0.0
    width: int | None = None
    why: str = ""
    output: str = ""
    named: bool = True
    mistakable: bool = False
    by_name: bool = False
    epsilon: float | None = None
    word: str = ""


class Matrix(msgspec.Struct, frozen=True, gc=False):
    """A weight with one axis along the residual stream.

    Attributes:
        tensor: the stored weight.
        axis: which axis of ``tensor.shape`` runs along the residual stream (length d).
        role: writes into the stream, reads a norm's output, is an embedding or unembedding; or unknown.
        component: tower.
        layer: index of the block, or None.
        site: index into `Anatomy.sites` of the norm whose output it reads (readers and unembeddings), or None.
        either: whether the other axis of a square matrix may be the one along the stream as well.
        bias: what is added to what a writer puts into the stream, shape (d,), where one is stored under its name.
    """

    # A Struct that the collector need not walk over, as TensorInfo is: files have 100,000, and no cycle is possible.

    tensor: TensorInfo
    axis: int
    role: MatrixRole
    component: str = "main"
    layer: int | None = None
    site: int | None = None
    either: bool = False
    bias: TensorInfo | None = None


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A thing in the file that was not understood, and that may be a norm or hide one.

    Attributes:
        what: ``"operator"`` that no public set defines, ``"region"`` of a graph that pools and divides, ``"layer"``
            of a class that is not known, or ``"vector"`` that nothing names.
        where: the name of a node, a value, a layer or a tensor.
        why: what is not understood about it, a few words.
        width: its length, of a vector.
        named: whether its name is a norm's.
    """

    what: Literal["operator", "region", "layer", "vector"]
    where: str
    why: str
    width: int | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Norm sites and the matrices around them.

    Attributes:
        sites: in the order of the network, or of the file.
        matrices: in the order of the file.
        widths: d_model of every component.
        basis: how this was worked out: ``"graph"``, ``"names"`` or ``"shapes"``.
        notes: what could not be placed, and other caveats.
        others: normalisers that are neither LayerNorm nor RMSNorm, by kind (``{"BatchNorm": 12}``).
        hints: by component, what in its structure makes the lack of a shift say less than usual.
        group_norms: how many of these are GroupNorms, by component, where names tell.
        vectors: vectors as long as the stream is wide that nothing names (scales or biases), from shapes alone.
        explained: how many vectors, norms and layers were understood.
        of_matrices: how many of these are no norm's for sure: a matrix's, or called what no scale is called.
        attending: components in which matrices of attention were told by their names.
        bare: whether a name speaks of attention, of a mixer or of an adaptive norm: such networks may normalise without
            parameters.
        unreadable: whether most modules that hold a matrix have no word of a layer in their names: what they do is not
            known.
        unexplained: what was not; while there is any, nothing may be said to be absent.
    """

    sites: tuple[Site, ...]
    matrices: tuple[Matrix, ...]
    widths: Mapping[str, int]
    basis: str
    notes: tuple[str, ...] = ()
    others: Mapping[str, int] | None = None
    group_norms: Mapping[str, int] = field(default_factory=dict)
    vectors: tuple[TensorInfo, ...] = ()
    hints: Mapping[str, tuple[Hint, ...]] = field(default_factory=dict)
    explained: int = 0
    of_matrices: int = 0
    attending: frozenset[str] = frozenset()
    bare: bool = False
    unreadable: bool = False
    unexplained: tuple[Unexplained, ...] = ()
