"""Anatomy of a checkpoint that stores its computation: nothing rests on names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ...checkpoint import Checkpoint
from ..parts import Anatomy, Matrix, MatrixRole, NormRole, Site
from .epsilon import epsilon_of
from .norms import Norm, find_norms
from .roles import Place, adds_up, feeds_attention, readers, writers
from .unmatched import complete
from .view import GraphView

# Only for display and order: "layers.3", "block.0", "h.11" in the name of a node or a weight
_LAYER = re.compile(r"(?:^|[./_])(?:layers?|blocks?|h|resblocks|stages)[._/]?(\d+)(?:[./_]|$)")


def describe(checkpoint: Checkpoint) -> Anatomy | None:
    """Return the norm sites of a graph and the matrices around them, or None if the checkpoint stores no graph."""
    if checkpoint.graph is None:
        return None
    view = GraphView(checkpoint, checkpoint.graph)
    norms, others, unexplained = complete(view, checkpoint, checkpoint.graph, find_norms(view))
    read = list(readers(view, norms))
    widths = _widths(norms, read)
    residual = [adds_up(view, norm) for norm in norms]
    roles = _roles(view, norms, widths, residual, {place.norm for place in read})
    stream = {index for index, role in enumerate(roles) if role == "stream"}
    written = list(writers(view, norms, stream))
    matrices = _matrices([*written, *(place for place in read if place.norm in stream)], checkpoint)
    width = _most_common(widths[index] for index in stream)
    sites = tuple(
        _site(view, norm, role, site_width) for norm, role, site_width in zip(norms, roles, widths, strict=True)
    )
    opaque = sum(tensor.dtype == "BLOCKED" for tensor in checkpoint.tensors.values())
    notes = (f"{opaque:,} block-quantised weights are of a layout that is not decoded",) if opaque else ()
    widths_of = {} if width is None else {"main": width}
    return Anatomy(
        sites,
        matrices,
        widths_of,
        "graph",
        notes,
        dict(others),
        explained=len(norms) + others.total(),
        unexplained=unexplained,
    )


def _site(view: GraphView, norm: Norm, role: NormRole, width: int | None) -> Site:
    scale = None if norm.scale is None else norm.scale.tensor
    name = norm.op.name.removesuffix("/" + norm.op.op_type)
    name = name or (scale.name if scale is not None else norm.output)
    layer = _LAYER.search(name) or (None if scale is None else _LAYER.search(scale.name))
    return Site(
        name=name,
        scale=scale,
        shift=None if norm.shift is None else norm.shift.tensor,
        layer=None if layer is None else int(layer[1][:9]),
        role=role,
        kind=norm.kind,
        offset=0.0 if norm.scale is None else norm.scale.offset,
        width=width,
        why=norm.why,
        output=norm.output,
        by_name=norm.by_name,
        epsilon=epsilon_of(view, norm.op),
    )


def _widths(norms: list[Norm], read: list[Place]) -> list[int | None]:
    """Return the width of every norm: the length of its scale, else of what reads it."""
    lengths: dict[int, list[int]] = {}
    for place in read:
        lengths.setdefault(place.norm, []).append(place.weight.tensor.shape[place.axis])
    return [
        norm.scale.tensor.size if norm.scale is not None and norm.scale.channel is not None
        else norm.shift.tensor.size if norm.shift is not None and norm.shift.channel is not None
        else _most_common(lengths.get(index, []))
        for index, norm in enumerate(norms)
    ]  # fmt: skip


def _most_common(values: Iterable[int | None]) -> int | None:
    counts = Counter(value for value in values if value is not None)
    return max(counts, key=lambda value: (counts[value], value)) if counts else None


def _roles(
    view: GraphView, norms: list[Norm], widths: list[int | None], residual: list[bool], read: set[int]
) -> list[NormRole]:
    """Tell norms of the residual stream from those of queries and keys, and from norms inside a block."""
    attention = [index not in read and feeds_attention(view, norm) for index, norm in enumerate(norms)]
    stream = {widths[i] for i in range(len(norms)) if residual[i] and not attention[i]} - {None}
    if not stream:  # no sum and no table in sight: the most common width is the best guess
        stream = {_most_common(w for w, inside in zip(widths, attention, strict=True) if not inside)}
    return [
        "query-key" if attention[i] else "stream" if residual[i] or widths[i] in stream else "other"
        for i in range(len(norms))
    ]


def _matrices(places: list[Place], checkpoint: Checkpoint) -> tuple[Matrix, ...]:
    """Return each matrix once for what it does, in the order of the file."""
    order = {name: index for index, name in enumerate(checkpoint.tensors)}
    largest = max((p.weight.tensor.size for p in places if p.role == "embedding"), default=0)
    found: dict[tuple[str, int, str], Matrix] = {}
    for place in places:
        tensor = place.weight.tensor
        smaller = place.role == "embedding" and tensor.size < largest  # that one holds the tokens
        role: MatrixRole = "position" if smaller else place.role
        site = place.norm if role in ("reader", "unembedding") else None
        layer = _LAYER.search(tensor.name)
        matrix = Matrix(tensor, place.axis, role, layer=None if layer is None else int(layer[1][:9]), site=site)
        found.setdefault((tensor.name, place.axis, role), matrix)
    return tuple(sorted(found.values(), key=lambda matrix: order.get(matrix.tensor.name, len(order))))
