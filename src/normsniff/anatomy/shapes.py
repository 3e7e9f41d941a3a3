"""Anatomy from parameters alone: shapes, and nothing that a name, an operator or a missing bias could tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from .. import meter
from ..checkpoint import Checkpoint, TensorInfo
from ..decode.values import is_decodable
from .parts import Anatomy, Matrix

_MIN_WIDTH = 16
"""Below this a matrix has too few coordinates for a direction to stand out."""

_MIN_SHARE = 0.5
"""A transformer keeps most of its parameters in matrices along the residual stream; a CNN or an RNN does not."""

_RECURRING, _ENOUGH = 3, 4
"""A length that fewer matrices have than the first may be a vocabulary's; at least the second must be left to speak."""


def describe(checkpoint: Checkpoint) -> Anatomy:
    """Find d_model and the matrices along the residual stream from shapes only.

    d_model is the length that the most matrices have as an axis. A non-square matrix with exactly one axis of that
    length runs along the stream with it; a square one could do so with either axis, and the wrong axis of an attention
    output projection shows a deficit under RMSNorm too. So it says something only where its numbers tell the axis
    (`measure.ties`). Norm sites are not named: without names a scale cannot be told from a bias.
    """
    meter.charge(3 * len(checkpoint.tensors), "reading shapes")
    matrices = [t for t in checkpoint.tensors.values() if _is_matrix(t)]
    width = _common_width(matrices)
    if width is None:
        return Anatomy((), (), {}, "shapes", ("no length is shared by enough matrices to be a residual stream",))
    along = [t for t in matrices if t.shape.count(width) == 1]
    squares = [t for t in matrices if t.shape == (width, width) and is_decodable(t.dtype)]
    stream_share = _weight(t for t in matrices if width in t.shape) / max(_weight(_any_weights(checkpoint)), 1)
    notes = []
    if stream_share < _MIN_SHARE:
        notes.append(f"only {stream_share:.0%} of the parameters run along the likeliest residual stream (d = {width})")
        along, squares = [], []
    vectors = tuple(t for t in checkpoint.tensors.values() if t.shape == (width,) and _is_number(t))
    if squares and not vectors:
        notes.append(f"{len(squares)} square matrices left out: without names or scales the residual axis is unknown")
        squares = []
    found = _with_role([Matrix(t, t.shape.index(width), "unknown") for t in along if is_decodable(t.dtype)])
    found += [Matrix(t, 0, "unknown", either=True) for t in squares]
    return Anatomy((), tuple(found), {"main": width}, "shapes", tuple(notes), vectors=vectors)


def _with_role(matrices: list[Matrix]) -> list[Matrix]:
    """Tell inner matrices from embeddings by how often their other length recurs.

    A block's matrices recur with the layers; a vocabulary, a number of positions or of classes does not. Embeddings may
    show any ρ under either norm, so they must not speak, unless too little is left without them.
    """
    lengths = Counter(_others(m) for m in matrices)
    inner = sum(lengths[_others(m)] >= _RECURRING for m in matrices)
    if inner < _ENOUGH:
        return matrices
    return [m if lengths[_others(m)] >= _RECURRING else msgspec.structs.replace(m, role="embedding") for m in matrices]


def _others(matrix: Matrix) -> int:
    """Return the number of vectors along the residual axis."""
    return matrix.tensor.size // matrix.tensor.shape[matrix.axis]


def _is_matrix(tensor: TensorInfo) -> bool:
    """Two axes, or three (an expert stack, a merged head axis, a convolution over a sequence), none of them trivial."""
    shape = tensor.shape
    return len(shape) in (2, 3) and sum(n >= _MIN_WIDTH for n in shape) >= 2 and _is_number(tensor)


def _is_number(tensor: TensorInfo) -> bool:
    return tensor.dtype not in ("BOOL", "I64", "I32", "U32", "U64", "I16", "U16", "C64", "C128")


def _any_weights(checkpoint: Checkpoint) -> Iterable[TensorInfo]:
    return (t for t in checkpoint.tensors.values() if len(t.shape) >= 2 and _is_number(t))


def _weight(tensors: Iterable[TensorInfo]) -> int:
    return sum(t.size for t in tensors)


def _common_width(matrices: list[TensorInfo]) -> int | None:
    """Return the length that most matrices have on an axis; the number of elements breaks ties. None below three."""
    votes: Counter[int] = Counter()
    elements: Counter[int] = Counter()
    for tensor in matrices:
        for length in {n for n in tensor.shape if n >= _MIN_WIDTH}:
            votes[length] += 1
            elements[length] += tensor.size
    if not votes:
        return None
    width = max(votes, key=lambda length: (votes[length], elements[length], -length))
    return width if votes[width] >= 3 else None
