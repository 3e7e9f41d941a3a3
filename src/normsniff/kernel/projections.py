"""One pass over a matrix: norms of its rows, and their products with a direction and with random flips of its signs.

Such a pass is bound by memory, so it is made once, and in pieces that stay in the processor's cache while they are
squared and multiplied. The two products are one: coordinates are summed in `_BUCKETS` groups, both with the weights of
the direction and with those under random signs. The groups' sums under `draws` sets of random signs are then as many
random flips of all signs, at the cost of one.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_BUCKETS = 64

_PIECE = 1 << 16
"""Numbers worked on at a time: 256 KB of float32, so that what was squared is still in a core's own cache when it is
multiplied. Twice and four times as many are as fast on an idle machine, and slower on a busy one."""

_NARROW, _WIDE, _TOGETHER = 4, 64, 8
"""Coordinates of a bucket. Below the first the pieces are not worth their calls; below the second so many buckets enter
one product, as BLAS takes about as long for less."""


class Projections(msgspec.Struct, frozen=True):
    """What one pass gives, float64.

    Attributes:
        norms: squared norms of the rows, shape (n,).
        expectations: of their energies along random flips of the direction, sum of v²x² over the coordinates, (n,).
        along: products with the direction, (n,).
        flips: summed energies along each random flip, (draws,).
        total: sum of `norms`.
    """

    norms: Any
    expectations: Any
    along: Any
    flips: Any
    total: float


def projected(xp: Any, rows: Any, v: Any, draws: int, seed: int) -> Projections:
    """Return the projections of rows of shape (n, d) on v, of shape (d,) and their dtype."""
    d = rows.shape[1]
    signs, mixes = _signs(d, draws, seed)
    signed = v * xp.asarray(signs, dtype=rows.dtype, device=rows.device)
    flat = bool(xp.all(v == v[0]))
    width = d // _BUCKETS
    if xp is not np or width < _NARROW:
        norms, weighted, sums, along = _whole(xp, rows, v, signed, flat=flat)
    elif rows.flags.c_contiguous or rows.strides[1] == rows.itemsize:
        norms, weighted, sums, along = _by_rows(rows, v, signed, flat=flat)
    else:
        norms, weighted, sums, along = _by_columns(rows, v, signed, flat=flat)
    norms = xp.astype(norms, xp.float64)
    products = xp.astype(sums @ xp.matrix_transpose(sums), xp.float64)
    mixes = xp.asarray(mixes, dtype=xp.float64, device=rows.device)
    return Projections(
        norms=norms,
        expectations=norms * float(v[0]) ** 2 if flat else xp.astype(weighted, xp.float64),
        along=xp.astype(along, xp.float64),
        flips=xp.sum((products @ mixes) * mixes, axis=0),
        total=float(xp.sum(norms)),
    )


_Sums = tuple[Any, Any, Any, Any]
"""Squared norms (n,), those of the rows times v (n,), signed sums (_BUCKETS, n), along (n,); where v is flat, whatever
stands for the second."""


def _whole(xp: Any, rows: Any, v: Any, signed: Any, *, flat: bool) -> _Sums:
    """Arrays of other libraries: each product at once."""
    n, d = rows.shape
    width, spare = divmod(d, _BUCKETS)
    whole = d - spare
    grouped = xp.moveaxis(xp.reshape(rows[:, :whole], (n, _BUCKETS, width)), 1, 0)
    sums = xp.matmul(grouped, xp.reshape(signed[:whole], (_BUCKETS, width, 1)))[:, :, 0]
    if spare:
        rest = xp.matrix_transpose(rows[:, whole:] * signed[whole:])
        sums = sums + xp.concat([rest, xp.zeros((_BUCKETS - spare, n), dtype=rows.dtype, device=rows.device)])
    weighted = None if flat else _squared_norms(xp, rows * v)
    return _squared_norms(xp, rows), weighted, sums, rows @ v


def _squared_norms(xp: Any, rows: Any) -> Any:
    if xp is np and not rows.flags.c_contiguous:  # columns of a matrix: vecdot is ten times slower on them
        return np.einsum("ij,ij->i", rows, rows)
    return xp.vecdot(rows, rows)


def _by_rows(rows: Any, v: Any, signed: Any, *, flat: bool) -> _Sums:
    """Rows that lie together: some of them at a time."""
    n, d = rows.shape
    together = 1 if d >= _WIDE * _BUCKETS else _TOGETHER
    weights = _weights(v, signed, together)
    groups, _, length = weights.shape
    step = max(1, (_PIECE if flat else _PIECE // 4) // d)
    norms, weighted, buffer = (np.empty(shape, rows.dtype) for shape in (n, 0 if flat else n, (0 if flat else step, d)))
    found = np.zeros((groups, together + 1, n) if together == 1 else (groups, n, together + 1), rows.dtype)
    found = found if together == 1 else found.transpose(0, 2, 1)
    for first in range(0, n, step):
        piece = rows[first : first + step]
        at = slice(first, first + len(piece))
        np.vecdot(piece, piece, out=norms[at])  # and so the piece is in the cache
        grouped = piece[:, : groups * length].reshape(len(piece), groups, length)
        np.matmul(weights, grouped.transpose(1, 2, 0), out=found[:, :, at])
        if not flat:
            scaled = np.multiply(piece, v, out=buffer[: len(piece)])
            np.vecdot(scaled, scaled, out=weighted[at])
    sums = found[:, :together].reshape(_BUCKETS, n)
    return norms, weighted, *_with_spare(rows, v, signed, sums, found[:, together].sum(axis=0))


def _by_columns(rows: Any, v: Any, signed: Any, *, flat: bool) -> _Sums:
    """Rows that are the columns of what is stored: the coordinates of one bucket after the other."""
    n, d = rows.shape
    width = d // _BUCKETS
    weights = _weights(v, signed, 1)
    norms, weighted = np.zeros(n, rows.dtype), np.zeros(n, rows.dtype)
    found = np.zeros((_BUCKETS, 2, n), rows.dtype)
    columns, squares = rows.T, None if flat else v * v
    step = min(_BUCKETS, max(1, _PIECE // max(n * width, 1)))
    for first in range(0, _BUCKETS, step):
        piece = columns[first * width : min(first + step, _BUCKETS) * width]
        np.matmul(weights[first : first + step], piece.reshape(-1, width, n), out=found[first : first + step])
        norms += np.einsum("ij,ij->j", piece, piece)
        if squares is not None:
            weighted += np.einsum("ij,ij,i->j", piece, piece, squares[first * width : (first + step) * width])
    rest = columns[_BUCKETS * width :]
    norms += np.einsum("ij,ij->j", rest, rest)
    if squares is not None:
        weighted += np.einsum("ij,ij,i->j", rest, rest, squares[_BUCKETS * width :])
    return norms, weighted, *_with_spare(rows, v, signed, found[:, 0], found[:, 1].sum(axis=0))


def _with_spare(rows: Any, v: Any, signed: Any, sums: Any, along: Any) -> tuple[Any, Any]:
    """Add what the coordinates give that are left over when the others are shared out evenly."""
    spare = rows.shape[1] % _BUCKETS
    if spare:
        rest = rows[:, -spare:]
        sums[:spare] += (rest * signed[-spare:]).T
        along = along + rest @ v[-spare:]
    return sums, along


def _weights(v: Any, signed: Any, together: int) -> Any:
    """Return signs and direction by groups of buckets, (groups, `together` + 1, coordinates of a group)."""
    width = v.shape[0] // _BUCKETS
    groups, whole = _BUCKETS // together, _BUCKETS * width
    weights = np.zeros((groups, together + 1, together, width), v.dtype)
    for one in range(together):
        weights[:, one, one] = signed[:whole].reshape(groups, together, width)[:, one]
    weights[:, together] = v[:whole].reshape(groups, together, width)
    return weights.reshape(groups, together + 1, together * width)


@lru_cache(maxsize=8)
def _signs(d: int, draws: int, seed: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return random signs of shapes (d,) and (_BUCKETS, draws)."""
    # Bits of a hash: numpy.random takes a tenth of the time of a label to import.
    n = d + _BUCKETS * draws
    stream = hashlib.shake_128(f"normsniff {seed}".encode()).digest(-(-n // 8))
    signs = np.unpackbits(np.frombuffer(stream, np.uint8), count=n).astype(np.int8) * np.int8(2) - np.int8(1)
    return signs[:d], signs[d:].reshape(_BUCKETS, draws)
