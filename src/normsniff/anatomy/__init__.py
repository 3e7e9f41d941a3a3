"""What is what: norm sites, and the matrices that read and write the residual stream.

Three ways, the most certain first: from the computation graph, from names and layer classes, from shapes alone.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ..checkpoint import Checkpoint
from ..formats import by_name
from .parts import Anatomy, Matrix, Site

__all__ = ["OWN", "Anatomy", "Matrix", "Site", "describe"]

OWN = {"keras": "normsniff.anatomy.keras.describe", "ctranslate2": "normsniff.anatomy.names.ctranslate2"}
"""Modules that describe what a format alone says of its layers; the table of formats names them by these keys."""


def describe(checkpoint: Checkpoint, *, parameters_alone: bool = False) -> Anatomy:
    """Return the anatomy of a model.

    Args:
        checkpoint: the parsed file.
        parameters_alone: use shapes only; names, operators and layer classes must not influence the result.
    """
    from . import shapes

    if parameters_alone:
        return shapes.describe(checkpoint)
    anatomy = _described(checkpoint)
    return replace(
        anatomy, matrices=tuple([_with_bias(m, checkpoint) if m.role == "writer" else m for m in anatomy.matrices])
    )


def _with_bias(matrix: Matrix, checkpoint: Checkpoint) -> Matrix:
    """Join a writer with the bias that is stored under its name."""
    for word in ("weight", "kernel"):
        path, found, rest = matrix.tensor.name.rpartition(word)
        bias = checkpoint.tensors.get(f"{path}bias{rest}") if found else None
        if bias is not None and bias.shape == (matrix.tensor.shape[matrix.axis],):
            return msgspec.structs.replace(matrix, bias=bias)
    return matrix


def _described(checkpoint: Checkpoint) -> Anatomy:
    from . import shapes

    anatomy = _informed(checkpoint)
    if not _recognised(anatomy) and checkpoint.graph is None:
        found = shapes.describe(checkpoint)
        return replace(
            found, explained=anatomy.explained, of_matrices=anatomy.of_matrices, unexplained=anatomy.unexplained,
            attending=anatomy.attending, bare=anatomy.bare, unreadable=anatomy.unreadable,
        )  # fmt: skip
    if any(m.role in ("writer", "reader") for m in anatomy.matrices) or len(anatomy.widths) > 1:
        return anatomy
    # Norms without any matrix of known role: shapes can still say which matrices run along the stream.
    unnamed = shapes.describe(checkpoint)
    if anatomy.widths and unnamed.widths != anatomy.widths:
        return anatomy
    known = {m.tensor.name for m in anatomy.matrices}
    more = tuple(m for m in unnamed.matrices if m.tensor.name not in known)
    return replace(anatomy, matrices=anatomy.matrices + more, widths=anatomy.widths or unnamed.widths)


def _informed(checkpoint: Checkpoint) -> Anatomy:
    """Use the graph, the layer list or the names, whichever the format has."""
    if checkpoint.graph is not None:
        from .graph import describe as graph

        computed = graph.describe(checkpoint)
        if computed is not None:
            return computed
    row = by_name(checkpoint.format)
    if row is not None and row.anatomy is not None:
        own: Anatomy | None = importlib.import_module(OWN.get(row.anatomy, row.anatomy)).describe(checkpoint)
        if checkpoint.layers and checkpoint.config is not None:
            own = _with_operations(own, checkpoint.config)
        if own is not None and _recognised(own):
            return own
    from .names import describe as names

    return names.describe(checkpoint)


def _with_operations(own: Anatomy | None, config: Mapping[str, Any]) -> Anatomy | None:
    """Add what a functional model spells out in operations between its layers."""
    from .graph.operations import describe as operations

    spelled = operations(config)
    if own is None or spelled is None:
        return own or spelled
    return replace(
        own, sites=own.sites + spelled.sites, widths={**spelled.widths, **own.widths},
        others=dict(Counter(own.others or {}) + Counter(spelled.others or {})) or None,
        explained=own.explained + spelled.explained, unexplained=own.unexplained + spelled.unexplained,
    )  # fmt: skip


def _recognised(anatomy: Anatomy) -> bool:
    return bool(anatomy.sites or anatomy.others or any(m.role != "unknown" for m in anatomy.matrices))
