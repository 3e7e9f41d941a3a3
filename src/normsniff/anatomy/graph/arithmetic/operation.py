"""One operator with its operands, in the types that are computed with, and how large a value may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ....checkpoint import Operator

Numbers: TypeAlias = NDArray[Any]
MOST = 1 << 20
"""Elements of one value: 8 MB, and a few milliseconds for the slowest operator."""
MOST_AXES = 12  # of a value; numpy takes 64, exporters of attention over windows use eight


class CannotRunError(Exception):
    """An operator that is not known here, or operands that it does not take."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator with its operands; absent ones are None."""

    op: Operator
    values: Sequence[Numbers | None]
    opset: int

    def __getitem__(self, index: int) -> Any:
        """Return an operand that must be there."""
        value = self.values[index] if index < len(self.values) else None
        if value is None:
            raise CannotRunError(f"{self.op.op_type} without operand {index}")
        return value

    def optional(self, index: int) -> Numbers | None:
        """Return an operand, or None."""
        return self.values[index] if index < len(self.values) else None

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.op.attributes.get(name, default)

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return a list that is an attribute or, in newer operator sets, an operand; None where it is neither."""
        found = self.op.attributes.get(name)
        if found is None and (value := self.optional(index)) is not None:
            if value.dtype.kind not in "iu" or value.size > MOST:
                raise CannotRunError(f"{name} of {self.op.op_type} is no list of integers")
            found = value.reshape(-1).tolist()
        if found is None:
            return None
        return [int(n) for n in (found if isinstance(found, list | tuple) else [found])]


def exact(array: Numbers) -> Numbers:
    """Return an array in the type that is computed with.

    Raises:
        CannotRunError: it holds neither numbers nor truth values.
    """
    kind = array.dtype.kind
    if kind == "b":
        return array
    if kind in "iu":
        return array.astype(np.int64, copy=False)
    if kind == "c" or kind in "SUOMm":
        raise CannotRunError(f"values of type {array.dtype}")
    with np.errstate(invalid="ignore"):  # a signalling NaN complains, and is one afterwards, too
        return array.astype(np.float64, copy=False)  # float16, bfloat16 and the like have the kinds f and V


def fits(shape: Sequence[int]) -> None:
    """Raise `CannotRunError` if a value of this shape has too many axes or elements."""
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) > MOST:
        raise CannotRunError(f"a value of shape {tuple(shape)[:MOST_AXES]}")


def fit_together(*values: Any) -> None:
    """Raise `CannotRunError` if values, laid over each other, would grow beyond that; those that are None are left out.

    Raises:
        ValueError: their shapes do not go together.
    """
    fits(np.broadcast_shapes(*(np.shape(value) for value in values if value is not None)))


def along_channels(value: Numbers, rank: int, channels: int) -> Numbers:
    """Return one number a channel so that it lies along the second of `rank` axes.

    Raises:
        CannotRunError: there are not as many: another number would broadcast, and grow with what it meets.
    """
    if value.size != channels:
        raise CannotRunError(f"{value.size:,} numbers for {channels:,} channels")
    return value.reshape(-1, *(1,) * (rank - 2))


def axes_of(found: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes counted from the start, in order, each once."""
    if any(not -rank <= a < rank for a in found):
        raise CannotRunError(f"axes {tuple(found)[:MOST_AXES]} of {rank}")
    return tuple(sorted({a % rank for a in found}))


Table: TypeAlias = Mapping[str, Callable[[Operation], Any]]
"""Operators by their type."""
