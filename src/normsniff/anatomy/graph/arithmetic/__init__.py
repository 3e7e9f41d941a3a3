"""Operators of a graph run on a handful of numbers: what the probe needs to see what a region computes.

Everything is float64, int64 or bool: types of less precision are taken as exact, quantisation as if nothing were
rounded, since what matters is the function and not its error. An operator that is not in the table, or whose operands
are not, raises `CannotRunError`: unknown, which is never the same as *no*.

Source: Operators.md of ONNX, operator sets 1 to 26, and ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....checkpoint import Operator
from . import elementwise, layouts, normalising, products, quantised, reductions, windows
from .operation import MOST, CannotRunError, Numbers, Operation, Table, exact

__all__ = ["MOST", "CannotRunError", "Numbers", "exact", "run"]

_TABLE: Table = {
    name: function
    for family in (elementwise, reductions, products, windows, normalising, layouts, quantised)
    for name, function in family.TABLE.items()
}


def run(op: Operator, values: Sequence[Numbers | None], opset: int) -> tuple[Numbers, ...]:
    """Return what one operator makes of its operands.

    Raises:
        CannotRunError: it is not known, does not take these operands, or would make more than `MOST` elements.
    """
    function = _TABLE.get(op.op_type) if op.domain in ("", "com.microsoft") else None
    if function is None:
        raise CannotRunError(f"{op.domain + '::' if op.domain else ''}{op.op_type} is not run here")
    try:
        with np.errstate(all="ignore"):
            found = function(Operation(op, values, opset))
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise CannotRunError(f"{op.op_type}: {error}") from error
    results = found if isinstance(found, tuple) else (found,)
    return tuple(exact(np.asarray(result)) for result in results)
