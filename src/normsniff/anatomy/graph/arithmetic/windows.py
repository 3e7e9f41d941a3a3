"""Convolutions, and what else slides or lies over the spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .operation import CannotRunError, Numbers, Operation, Table, along_channels, fits


def _windows(call: Operation, x: Numbers, kernel: Sequence[int], pad_with: float = 0.0) -> tuple[Numbers, Numbers]:
    """Return all windows of the spatial axes, and in how many elements of each the data lies."""
    rank = x.ndim - 2
    if len(kernel) != rank or rank < 1 or any(d != 1 for d in call.attribute("dilations", ())):
        raise CannotRunError(f"{call.op.op_type} with such a kernel")
    strides = list(call.attribute("strides", ())) or [1] * rank
    pads = list(call.attribute("pads", ())) or [0] * (2 * rank)
    padding = str(call.attribute("auto_pad", "NOTSET"))
    if padding.startswith("SAME"):
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = less + more if padding == "SAME_UPPER" else more + less
    around = [(0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))]
    fits([n + a + b for n, (a, b) in zip(x.shape, around, strict=True)])
    if min((b for pair in around for b in pair), default=0) < 0:
        raise CannotRunError("negative pads")
    spread = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
    axes = tuple(range(2, rank + 2))
    found = sliding_window_view(np.pad(x, around, constant_values=pad_with), tuple(kernel), axes)[tuple(spread)]
    inside = sliding_window_view(np.pad(np.ones(x.shape), around), tuple(kernel), axes)[tuple(spread)]
    fits(found.shape)
    return found, inside


def _pool(call: Operation) -> Numbers:
    x, kind, kernel = call[0], call.op.op_type, list(call.attribute("kernel_shape", ()))
    if call.attribute("ceil_mode", 0):
        raise CannotRunError("ceil_mode")
    found, inside = _windows(call, x, kernel, -np.inf if kind == "MaxPool" else 0.0)
    over = tuple(range(-len(kernel), 0))
    if kind == "MaxPool":
        return np.asarray(found.max(axis=over))
    if kind == "LpPool":
        p = call.attribute("p", 2)
        return np.asarray((np.abs(found) ** p).sum(axis=over) ** (1 / p))
    count = math.prod(kernel) if call.attribute("count_include_pad", 0) else inside.sum(axis=over)
    return np.asarray(found.sum(axis=over) / count)


def _global_pool(call: Operation) -> Numbers:
    x, kind, p = call[0], call.op.op_type, call.attribute("p", 2)
    over = tuple(range(2, x.ndim))
    if kind == "GlobalMaxPool":
        return np.asarray(x.max(axis=over, keepdims=True))
    if kind == "GlobalLpPool":
        return np.asarray((np.abs(x) ** p).sum(axis=over, keepdims=True) ** (1 / p))
    return np.asarray(x.mean(axis=over, keepdims=True))


def _conv(call: Operation) -> Numbers:
    x, weight, bias, group = call[0], call[1], call.optional(2), call.attribute("group", 1)
    if x.shape[1] != group * weight.shape[1] or weight.shape[0] % group:
        raise CannotRunError("Conv of other channels than its kernel has")
    found, _ = _windows(call, x, weight.shape[2:])
    rank = weight.ndim - 2
    over = (1, *range(-rank, 0))
    parts = [
        np.tensordot(piece, kernel, (over, (1, *range(2, rank + 2))))
        for piece, kernel in zip(np.split(found, group, 1), np.split(weight, group, 0), strict=True)
    ]
    result = np.moveaxis(np.concatenate(parts, -1), -1, 1)
    return np.asarray(result if bias is None else result + along_channels(bias, result.ndim, result.shape[1]))


TABLE: Table = {
    "Conv": _conv, "AveragePool": _pool, "MaxPool": _pool, "LpPool": _pool, "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool, "GlobalLpPool": _global_pool,
}  # fmt: skip
