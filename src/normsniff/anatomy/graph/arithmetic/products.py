"""Products of matrices."""

from __future__ import annotations

import math

import numpy as np

from .operation import MOST, CannotRunError, Numbers, Operation, Table, fit_together, fits


def _matmul(call: Operation) -> Numbers:
    a, b = call[0], call[1]
    if a.ndim and b.ndim:
        fits((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:]))
    return np.asarray(call.attribute("alpha", 1.0) * np.matmul(a, b))


def _gemm(call: Operation) -> Numbers:
    """Gemm; also a batched product with flags, which the readers of TFLite and OpenVINO write so."""
    a, b = call[0], call[1]
    a = np.swapaxes(a, -1, -2) if call.attribute("transA", 0) else a
    b = np.swapaxes(b, -1, -2) if call.attribute("transB", 0) else b
    fits((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *a.shape[-2:-1], *b.shape[-1:]))
    product = call.attribute("alpha", 1.0) * np.matmul(a, b)
    added = call.optional(2)
    fit_together(product, added)
    return np.asarray(product if added is None else product + call.attribute("beta", 1.0) * added)


def _einsum(call: Operation) -> Numbers:
    equation = str(call.attribute("equation", "")).replace(" ", "")
    operands = [call[index] for index in range(len(call.values))]
    letters: dict[str, int] = {}
    work = 1
    for term, value in zip(equation.partition("->")[0].split(","), operands, strict=True):
        named = term.replace("...", "")
        work = max(work, math.prod(value.shape[: value.ndim - len(named)]))  # axes that an ellipsis stands for
        for letter, n in zip(named[::-1], value.shape[::-1], strict=False):
            letters[letter] = max(n, letters.get(letter, 1))
    if len(operands) > 3 or work * math.prod(letters.values()) > 8 * MOST:  # the work of a plain einsum
        raise CannotRunError(f"Einsum {equation[:40]}")
    return np.asarray(np.einsum(equation, *operands))


TABLE: Table = {
    "MatMul": _matmul, "FusedMatMul": _gemm, "Gemm": _gemm, "Einsum": _einsum,
}  # fmt: skip
