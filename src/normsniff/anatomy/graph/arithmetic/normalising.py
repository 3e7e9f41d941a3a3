"""Norms that are operators of their own."""

from __future__ import annotations

import numpy as np

from .operation import Numbers, Operation, Table, along_channels, axes_of, fit_together


def _normalised(x: Numbers, axes: tuple[int, ...], epsilon: float, *, centred: bool) -> Numbers:
    x = x - x.mean(axis=axes, keepdims=True) if centred else x
    return np.asarray(x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + epsilon))


def _trailing_norm(call: Operation) -> Numbers:
    centred = call.op.op_type == "LayerNormalization"
    x, axis = call[0], call.attribute("axis", -1)
    over = tuple(range(axes_of([axis], x.ndim)[0], x.ndim))
    y = _normalised(x, over, call.attribute("epsilon", 1e-5), centred=centred)
    scale, shift = call.optional(1), call.optional(2) if centred else None
    fit_together(y, scale, shift)
    y = y if scale is None else y * scale
    return np.asarray(y if shift is None else y + shift)


def _instance_norm(call: Operation) -> Numbers:
    x = call[0]
    y = _normalised(x, tuple(range(2, x.ndim)), call.attribute("epsilon", 1e-5), centred=True)
    scale, shift = (along_channels(v, x.ndim, x.shape[1]) for v in (call[1], call[2]))
    return np.asarray(y * scale + shift)


def _group_norm(call: Operation) -> Numbers:
    x, groups = call[0], call.attribute("num_groups", 0)
    grouped = x.reshape(x.shape[0], groups, -1)
    y = _normalised(grouped, (2,), call.attribute("epsilon", 1e-5), centred=True)
    if call.opset < 21 and call[1].size == groups:
        scale, shift = (along_channels(v, 3, groups) for v in (call[1], call[2]))
        return np.asarray((y * scale + shift).reshape(x.shape))
    scale, shift = (along_channels(v, x.ndim, x.shape[1]) for v in (call[1], call[2]))
    return np.asarray(y.reshape(x.shape) * scale + shift)


def _mean_variance(call: Operation) -> Numbers:
    x = call[0]
    axes = call.attribute("axes", (0, 2, 3))
    return _normalised(x, axes_of(axes, x.ndim), 1e-9, centred=True)


def _batch_norm(call: Operation) -> Numbers:
    x, axes = call[0], (0, *range(2, call[0].ndim))
    mean, variance = call[3], call[4]
    if call.attribute("training_mode", 0):
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    scale, shift, mean, variance = (along_channels(v, x.ndim, x.shape[1]) for v in (call[1], call[2], mean, variance))
    return np.asarray((x - mean) / np.sqrt(variance + call.attribute("epsilon", 1e-5)) * scale + shift)


def _lp_norm(call: Operation) -> Numbers:
    x, p = call[0], call.attribute("p", 2)
    axes = call.integers("axes", 1)  # OpenVINO's NormalizeL2
    over = axes_of([call.attribute("axis", -1)] if axes is None else axes, x.ndim)
    length = (np.abs(x) ** p).sum(axis=over, keepdims=True) ** (1 / p)
    return np.asarray(np.divide(x, length, out=np.zeros_like(x), where=length > 0))


TABLE: Table = {
    "LayerNormalization": _trailing_norm, "RMSNormalization": _trailing_norm,
    "SimplifiedLayerNormalization": _trailing_norm, "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm, "MeanVarianceNormalization": _mean_variance, "BatchNormalization": _batch_norm,
    "LpNormalization": _lp_norm,
}  # fmt: skip
