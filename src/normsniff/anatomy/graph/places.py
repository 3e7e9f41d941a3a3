"""Where in a graph a norm may be: what pools, what may end a norm's core, what is never inside of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ... import meter
from .arithmetic import CannotRunError
from .bench import LIMITS, Bench
from .poolings import MULTIPLYING, NEAR, POOLS
from .structure import averages, is_average
from .view import RESHAPING

# never inside of a norm's core
_STOPS = frozenset(
    [
        "LSTM", "GRU", "RNN", "Loop", "If", "Scan", "Resize", "Upsample", "ConvTranspose", "TopK", "NonZero", "Softmax",
        "LogSoftmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "Gelu", "LRN", "Hardmax", "GridSample",
        "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "MatMulNBits", "MatMulInteger",
        "QLinearMatMul", "DynamicQuantizeMatMul", "ConvInteger", "QLinearConv", "FusedConv", "QAttention", "GatherND",
        "ScatterND",
    ]
)  # fmt: skip


class Places:
    """Places of one graph.

    Args:
        bench: the graph.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self._flow = bench, bench.flow
        self._structured: dict[str, bool] = {}

    def is_pool(self, k: int) -> bool:
        """Whether an operator makes one number of many: a reduction, a pooling, a product with constant weights."""
        op = self._flow.operators[k]
        if op.op_type.startswith("Reduce") or op.op_type in POOLS:
            return bool(self._flow.data(k))
        if op.op_type not in MULTIPLYING:
            return False
        data = self._flow.data(k)
        if data and not any(self._flow.is_fixed(name) for name in op.inputs[:2]):
            return len(op.inputs) > 1 and len({self._rooted(name) for name in data}) == 1  # x · x
        fixed = [name for name in op.inputs[:2] if name and self._flow.is_fixed(name)]
        if len(data) != 1 or len(fixed) != 1:
            return False
        shape = self._bench.sizes.shapes.get(fixed[0])
        if shape is None:
            return False
        longer = [n for n in shape if n > 1]
        if len(longer) < 2:
            return True
        return self.structured(fixed[0])

    def _rooted(self, value: str) -> str:
        """Return the value behind what only moves axes."""
        for _ in range(4):
            k = self._flow.producers.get(value, -1)
            op = self._flow.operators[k]
            if k < self._flow.first or not op.inputs or (op.op_type not in RESHAPING and op.op_type != "Transpose"):
                break
            value = op.inputs[0]
        return value

    def structured(self, value: str) -> bool:
        """Whether a fixed matrix is aI + b11ᵀ: only such a one is in a core."""
        if value not in self._structured:
            try:
                self._structured[value] = self._is_structured(value)
            except CannotRunError:
                self._structured[value] = False
        return self._structured[value]

    def _is_structured(self, value: str) -> bool:
        shape = self._bench.sizes.shapes.get(value, ())
        longer = [n for n in shape if n > 1]
        if len(longer) < 2:
            return True
        if len(longer) > 2 or longer[0] != longer[1]:
            return False
        if self._bench.view.weight(value) is not None:
            return averages(self._bench.view, value, LIMITS)
        return is_average(self._bench.constant(value).reshape(longer)[:2])

    def candidates(self, pools: Iterable[int], done: set[int]) -> Iterator[int]:
        """Yield the operators that may end a norm's core: they combine two values near a pooling, or are fused."""
        near: dict[int, int] = dict.fromkeys(pools, 0)
        todo = list(near)
        consumers = self._consumers()
        for k in todo:
            if near[k] >= NEAR:
                continue
            for name in self._flow.operators[k].outputs:
                users = consumers.get(name, ())[:64]
                meter.charge(1 + len(users), "looking for norms")
                for user in users:
                    if user not in near and user not in done and not self.stops(user):
                        near[user] = near[k] + 1
                        todo.append(user)
        for k in sorted(near):
            op = self._flow.operators[k]
            if op.op_type in ("Div", "Mul", "Sub", "Add", "Einsum", "MatMul", "Where") and len(self._flow.data(k)) >= 2:
                yield k

    def _consumers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for k, op in enumerate(self._flow.operators):
            for name in dict.fromkeys(op.inputs):
                found.setdefault(name, []).append(k)
        return found

    def stops(self, k: int) -> bool:
        """Whether an operator is never inside of a norm's core."""
        op = self._flow.operators[k]
        if op.op_type in _STOPS or (op.domain not in ("", "com.microsoft")):
            return True
        if op.op_type == "Gather" and len(op.inputs) > 1 and not self._flow.is_fixed(op.inputs[1]):
            return True  # data as an index: an embedding
        if op.op_type in MULTIPLYING and len(self._flow.data(k)) < 2:
            return not all(self.structured(n) for n in op.inputs[:2] if n and self._flow.is_fixed(n))
        return False
