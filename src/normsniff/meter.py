"""What one answer may cost: steps of work and bytes of memory, counted where a file decides how long a loop runs.

A clock would give another answer on another machine; steps do not. One is about a microsecond of Python on a machine
of 2024: a turn of a loop that looks something up or makes one small object. Whoever loops over what a file holds calls
`charge` with what the loop costs, before or while it runs; whoever keeps what a file makes large calls `hold`. Outside
of `metered` both do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from .errors import BudgetSpent
from .limits import Limits

T = TypeVar("T")

_STEPS, _STEPS_A_BYTE, _MOST_STEPS = 800_000, 0.25, 6_000_000
"""A file of up to a megabyte ends in about a second, any file in six. Of the real files at hand the dearest took 3 % of
its budget of steps and 1.5 % of that of memory."""

_ASKED_A_BYTE = 0.1
"""Steps for a byte that the caller wants read, whatever it costs: matrices of BF16 take 0.0014, of two bits 0.03, of
GPTQ's two bits 0.06."""

_HELD, _HELD_A_BYTE, _MOST_HELD = 100_000_000, 16.0, 700_000_000
"""Python's objects take up to 30 times the text that they were made of, and about 16 times a header's bytes."""

TENSOR_STEPS, TENSOR_BYTES = 4, 700
"""What a reader charges for a tensor: its entry is parsed and checked; name, shape and place are kept."""

OPERATOR_STEPS, OPERATOR_BYTES, EDGE_BYTES = 6, 500, 60
"""What a reader charges for an operator of a graph, and for every value that it takes or gives."""

_EVERY = 256  # items between two charges of `counted`


class Meter:
    """The budget of one answer.

    Attributes:
        where: the model, for messages.
        steps: work that was done.
        held: bytes that are held.
        size: bytes of the files that were opened so far; a budget that is not set by the caller grows with them.
        asked: bytes of them that the caller wants read, however many; it grows with these, too, and without an end.
    """

    __slots__ = ("_held_limit", "_limits", "_steps_limit", "asked", "held", "size", "steps", "where")

    def __init__(self, where: str, limits: Limits) -> None:
        self.where = where
        self.steps = self.held = self.size = self.asked = 0
        self._limits = limits
        self.grow(0)

    def grow(self, size: int) -> None:
        """Take note of one more file of `size` bytes."""
        self.size += size
        steps, held = self._limits.steps, self._limits.held_bytes
        bounded = min(int(_STEPS + _STEPS_A_BYTE * self.size), _MOST_STEPS) + int(_ASKED_A_BYTE * self.asked)
        self._steps_limit = bounded if steps is None else steps
        self._held_limit = min(int(_HELD + _HELD_A_BYTE * self.size), _MOST_HELD) if held is None else held

    def ask(self, size: int) -> None:
        """Take note that the caller wants `size` bytes of the files read, as a whole matrix or as a copy."""
        self.asked += size
        self.grow(0)

    def charge(self, steps: int, doing: str) -> None:
        """Count work; `doing` is what a message says was being done.

        Raises:
            BudgetSpent: there was more of it than the budget allows.
        """
        self.steps += steps
        if self.steps > self._steps_limit:
            raise BudgetSpent(self.where, f"steps of work ({doing})", self._steps_limit, self.steps)

    def hold(self, nbytes: int, doing: str) -> None:
        """Count bytes that stay; a negative number gives them back.

        Raises:
            BudgetSpent: together they are more than the budget allows.
        """
        self.held += nbytes
        if self.held > self._held_limit:
            raise BudgetSpent(self.where, f"bytes held in memory ({doing})", self._held_limit, self.held)


_current: ContextVar[Meter | None] = ContextVar("normsniff-meter", default=None)


@contextmanager
def metered(where: str, limits: Limits) -> Iterator[Meter]:
    """Count what the block does; blocks inside it count for themselves."""
    meter = Meter(where, limits)
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


def grow(size: int) -> None:
    """See `Meter.grow`."""
    meter = _current.get()
    if meter is not None:
        meter.grow(size)


def ask(size: int) -> None:
    """See `Meter.ask`."""
    meter = _current.get()
    if meter is not None:
        meter.ask(size)


def charge(steps: int, doing: str) -> None:
    """See `Meter.charge`."""
    meter = _current.get()
    if meter is not None:
        meter.charge(steps, doing)


def hold(nbytes: int, doing: str) -> None:
    """See `Meter.hold`."""
    meter = _current.get()
    if meter is not None:
        meter.hold(nbytes, doing)


@contextmanager
def held(nbytes: int, doing: str) -> Iterator[None]:
    """Count bytes that the block takes for a while; before it takes them, so that none are taken in vain.

    Raises:
        BudgetSpent: with those that are held they are more than the budget allows.
    """
    try:
        hold(nbytes, doing)
        yield
    finally:
        hold(-nbytes, doing)


def charge_tensors(n: int, doing: str) -> None:
    """Charge what `n` tensors cost a reader."""
    meter = _current.get()
    if meter is not None:
        meter.charge(TENSOR_STEPS * n, doing)
        meter.hold(TENSOR_BYTES * n, doing)


def charge_operator(edges: int, doing: str) -> None:
    """Charge what an operator with so many inputs and outputs costs a reader."""
    meter = _current.get()
    if meter is not None:
        meter.charge(OPERATOR_STEPS + edges, doing)
        meter.hold(OPERATOR_BYTES + EDGE_BYTES * edges, doing)


def charge_json(text: bytes | str, where: str) -> None:
    """Charge what a JSON text costs that is about to be decoded, by the marks in it."""
    meter = _current.get()
    if meter is None:
        return
    marks = ("[", "{", ",", '"') if isinstance(text, str) else (b"[", b"{", b",", b'"')
    lists, objects, commas, quotes = (text.count(mark) for mark in marks)  # type: ignore[arg-type]  # of one kind
    meter.charge(len(text) // 100 + (lists + objects + commas + quotes) // 5, f"decoding {where}")
    meter.hold(len(text) + 60 * lists + 200 * objects + 40 * commas + 30 * quotes, f"decoding {where}")


def counted(items: Iterable[T], doing: str, steps: int = 1) -> Iterator[T]:
    """Yield the items, and charge `steps` for each, some hundred at a time."""
    meter = _current.get()
    if meter is None:
        yield from items
        return
    seen = 0
    for item in items:
        if not seen:
            meter.charge(_EVERY * steps, doing)
            seen = _EVERY
        seen -= 1
        yield item
    meter.steps -= seen * steps
