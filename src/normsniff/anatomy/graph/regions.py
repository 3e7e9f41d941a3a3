"""Regions of a graph: what lies between a value and a value that all of it was computed from.

Whatever is the same for every input (stored tensors, what hangs on them, what hangs on shapes alone) is *fixed* and not
data. The immediate dominator of an operator is the last one that all its data has passed through: LayerNorm's
subtraction and its variance part at x and meet again at the division.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...checkpoint import Operator

CAP = 60
"""Operators of a region: the longest spelled-out norm of an exporter has about thirty; what is larger is a block."""
_START = -1  # dominates everything


class Region(NamedTuple):
    """The operators on the paths from one value to another.

    Attributes:
        source: the value that it starts from.
        end: index of the operator that it ends with.
        inside: indices of its operators, without the one that makes `source`.
    """

    source: str
    end: int
    inside: frozenset[int]


class Flow:
    """The data paths of a graph, operators numbered in execution order after the inputs.

    Attributes:
        operators: a pseudo-operator ``@input`` for every input, then those of the graph.
        first: index of the first real one.
        producers: index by value.
        fixed: values that are the same for every input.
    """

    def __init__(self, operators: Sequence[Operator], inputs: Iterable[str]) -> None:
        given = [Operator("@input", "", "", (), (name,)) for name in inputs]
        self.operators = (*given, *operators)
        self.first = len(given)
        self.producers = {name: k for k, op in enumerate(self.operators) for name in op.outputs if name}
        self.fixed: set[str] = set()
        n = len(self.operators) + 1  # the last place, which is also that of index -1, is the start
        self._dominator, self._jump, self._depth = [_START] * n, [_START] * n, [1] * n
        self._depth[_START] = 0
        for k in range(self.first, len(self.operators)):
            self._add(k)

    def is_fixed(self, value: str) -> bool:
        """Whether a value does not depend on the data."""
        return value in self.fixed or value not in self.producers

    def _add(self, k: int) -> None:
        op = self.operators[k]
        if op.op_type in ("Shape", "Size") or all(self.is_fixed(name) for name in op.inputs):
            self.fixed.update(op.outputs)
            return
        found: int | None = None
        for name in op.inputs:
            if not self.is_fixed(name):
                p = self.producers[name]
                found = p if found is None else self._common(found, min(p, k))
        if found is not None and found < k:
            self._dominator[k], self._depth[k] = found, self._depth[found] + 1
            jump = self._jump[found]
            even = self._depth[found] - self._depth[jump] == self._depth[jump] - self._depth[self._jump[jump]]
            self._jump[k] = self._jump[jump] if even else found

    def _common(self, a: int, b: int) -> int:
        """Return the lowest common ancestor in logarithmic time (skew-binary jump pointers, Myers 1983)."""
        if self._depth[a] < self._depth[b]:
            a, b = b, a
        while self._depth[a] > self._depth[b]:
            a = self._jump[a] if self._depth[self._jump[a]] >= self._depth[b] else self._dominator[a]
        while a != b:
            if self._jump[a] != self._jump[b]:
                a, b = self._jump[a], self._jump[b]
            else:
                a, b = self._dominator[a], self._dominator[b]
        return a

    def dominator(self, k: int) -> int:
        """Return the immediate dominator of an operator; -1 for what several inputs flow into."""
        return self._dominator[k]

    def data(self, k: int) -> list[str]:
        """Return the operands of an operator that are data, each once."""
        return [name for name in dict.fromkeys(self.operators[k].inputs) if not self.is_fixed(name)]

    def region(self, end: int, start: int, *, first_only: bool) -> Region | None:
        """Return what lies between an output of `start` and the operator `end`; None if there is no such region.

        Args:
            end: the last operator.
            start: one that dominates it.
            first_only: follow only the first operand of `end` (the others are scale and shift).
        """
        todo, seen, sources = [end], {end}, set[str]()
        while todo:
            k = todo.pop()
            for name in self.operators[k].inputs[:1] if first_only and k == end else self.operators[k].inputs:
                if self.is_fixed(name):
                    continue
                producer = self.producers[name]
                if producer == start:
                    sources.add(name)
                elif producer < self.first or producer < start or len(seen) >= CAP:
                    return None
                elif producer not in seen:
                    seen.add(producer)
                    todo.append(producer)
        return Region(sources.pop(), end, frozenset(seen)) if len(sources) == 1 else None

    def regions(self, end: int, levels: int, *, first_only: bool) -> Iterator[tuple[int, Region]]:
        """Yield the regions that end with an operator, with the dominator that each starts at, the smallest first."""
        start = self._dominator[end]
        if first_only:
            name = self.operators[end].inputs[0]
            start = _START if self.is_fixed(name) else self.producers[name]
        for _ in range(levels):
            region = None if start == _START else self.region(end, start, first_only=first_only)
            if region is None:
                return
            yield start, region
            start = self._dominator[start]
