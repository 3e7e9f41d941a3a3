"""Operators that lay values out in another way, or speak of shapes."""

from __future__ import annotations

import math

import numpy as np

from .operation import MOST, CannotRunError, Numbers, Operation, Table, axes_of, exact, fits


def _reshape(call: Operation) -> Numbers:
    x, target = call[0], call.integers("shape", 1)
    if target is None:
        raise CannotRunError("Reshape to an unknown shape")
    if not call.attribute("allowzero", 0):
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    return np.asarray(x.reshape(target))


def _transpose(call: Operation) -> Numbers:
    return np.asarray(np.transpose(call[0], call.attribute("perm", None)))


def _squeeze(call: Operation) -> Numbers:
    x, axes = call[0], call.integers("axes", 1)
    return np.asarray(np.squeeze(x) if axes is None else np.squeeze(x, axes_of(axes, x.ndim)))


def _unsqueeze(call: Operation) -> Numbers:
    axes = call.integers("axes", 1) or []
    return np.asarray(np.expand_dims(call[0], axes_of(axes, call[0].ndim + len(axes))))


def _flatten(call: Operation) -> Numbers:
    x, axis = call[0], call.attribute("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return np.asarray(x.reshape(math.prod(x.shape[:axis]), -1))


def _expand(call: Operation) -> Numbers:
    shape = np.broadcast_shapes(call[0].shape, tuple(call.integers("shape", 1) or ()))
    fits(shape)
    return np.asarray(np.broadcast_to(call[0], shape))


def _tile(call: Operation) -> Numbers:
    repeats = call.integers("repeats", 1) or []
    fits([n * r for n, r in zip(call[0].shape, repeats, strict=True)])
    return np.asarray(np.tile(call[0], repeats))


def _concat(call: Operation) -> Numbers:
    parts = [call[index] for index in range(len(call.values))]
    if sum(part.size for part in parts) > MOST:
        raise CannotRunError("Concat of so much")
    return np.asarray(np.concatenate(parts, call.attribute("axis", 1)))


def _split(call: Operation) -> tuple[Numbers, ...]:
    x, sizes = call[0], call.integers("split", 1)
    axis = axes_of([call.attribute("axis", 0)], x.ndim)[0]
    if sizes is None:
        each = -(-x.shape[axis] // max(len(call.op.outputs), 1))
        sizes = [each] * len(call.op.outputs)
    return tuple(np.split(x, np.cumsum(sizes)[:-1].tolist(), axis))


def _slice(call: Operation) -> Numbers:
    x, starts, ends = call[0], call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None:
        raise CannotRunError("Slice from somewhere")
    axes, steps = call.integers("axes", 3) or list(range(len(starts))), call.integers("steps", 4) or [1] * len(starts)
    taken = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return np.asarray(x[tuple(taken)])


def _gather(call: Operation) -> Numbers:
    x, indices, axis = call[0], call[1], call.attribute("axis", 0)
    fits((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 or x.ndim :]))
    return np.asarray(np.take(x, indices, axis))


def _pad(call: Operation) -> Numbers:
    pads, x = call.integers("pads", 1) or [], call[0]
    around = [(pads[i], pads[i + x.ndim]) for i in range(x.ndim)]
    fits([n + a + b for n, (a, b) in zip(x.shape, around, strict=True)])
    if str(call.attribute("mode", "constant")) != "constant" or call.optional(3) is not None or min(pads) < 0:
        raise CannotRunError("Pad of such a kind")
    value = call.optional(2)
    return np.asarray(
        np.pad(x, around, constant_values=call.attribute("value", 0.0) if value is None else value.reshape(-1)[0])
    )


def _shape(call: Operation) -> Numbers:
    return np.array(call[0].shape[call.attribute("start", 0) : call.attribute("end", None)], np.int64)


def _constant_of_shape(call: Operation) -> Numbers:
    shape = tuple(call[0].reshape(-1).tolist())
    fits(shape)
    value = call.attribute("value", None)
    return np.asarray(np.full(shape, 0.0 if value is None else exact(np.asarray(value)).reshape(-1)[0]))


def _range(call: Operation) -> Numbers:
    start, stop, step = (call[index].reshape(-1)[0] for index in range(3))
    fits([max(math.ceil((stop - start) / step), 0)])
    return np.asarray(np.arange(start, stop, step))


TABLE: Table = {
    "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Flatten": _flatten,
    "Expand": _expand, "Tile": _tile, "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather,
    "Pad": _pad, "Shape": _shape, "Size": lambda call: np.array(call[0].size), "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}  # fmt: skip
