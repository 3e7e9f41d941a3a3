"""Operators that pool or sum whole axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .operation import Numbers, Operation, Table, axes_of

_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "Mean": np.mean, "Sum": np.sum, "Max": np.max, "Min": np.min, "Prod": np.prod,
    "L1": lambda x, **k: np.sum(np.abs(x), **k), "L2": lambda x, **k: np.sqrt(np.sum(np.square(x), **k)),
    "SumSquare": lambda x, **k: np.sum(np.square(x), **k), "LogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "LogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}  # fmt: skip


def _reduce(call: Operation) -> Numbers:
    found, x = call.integers("axes", 1), call[0]
    if not found and call.attribute("noop_with_empty_axes", 0):
        return np.asarray(_REDUCTIONS[call.op.op_type[6:]](x[..., None], axis=-1))
    axes = axes_of(found, x.ndim) if found else tuple(range(x.ndim))
    return np.asarray(_REDUCTIONS[call.op.op_type[6:]](x, axis=axes, keepdims=bool(call.attribute("keepdims", 1))))


def _softmax(call: Operation) -> Numbers:
    x, axis = call[0], call.attribute("axis", -1 if call.opset >= 13 else 1)
    over = tuple(range(axes_of([axis], x.ndim)[0], x.ndim)) if call.opset < 13 else (axis,)
    raised = np.exp(x - x.max(axis=over, keepdims=True))
    result = raised / raised.sum(axis=over, keepdims=True)
    return np.asarray(np.log(result) if call.op.op_type == "LogSoftmax" else result)


def _cumulative(call: Operation) -> Numbers:
    x, axis = call[0], int(call[1].reshape(-1)[0])
    x = np.flip(x, axis) if call.attribute("reverse", 0) else x
    total = np.cumsum(x, axis) - (x if call.attribute("exclusive", 0) else 0)
    return np.asarray(np.flip(total, axis) if call.attribute("reverse", 0) else total)


TABLE: Table = {
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS}, "Softmax": _softmax, "LogSoftmax": _softmax,
    "CumSum": _cumulative,
}  # fmt: skip
