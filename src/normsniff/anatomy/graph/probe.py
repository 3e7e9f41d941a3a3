"""Norms recognised by what they do: a region of the graph is run on a handful of numbers.

It is arithmetic, not inference: no weight is read but the region's own constants. Where something cannot be run or its
sizes are not known, the answer is *unknown*, which is never taken for *no norm*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...checkpoint import Checkpoint, Graph, Operator
from ...limits import Limits
from .arithmetic import MOST, CannotRunError, Numbers, exact, run
from .judge import Match, agree, contrast, judge, sample
from .regions import Flow, Region
from .sizes import Shape, Sizes, find_sizes
from .structure import averages, is_average
from .view import RESHAPING, GraphView

_LEVELS = 10  # dominators above a division: a norm spelled out has four at most
_NEAR = 16  # operators between a pooling and what it divides
_FIXED = 200  # fixed operators that one region may hang on: shapes put together, scales unpacked
_SMALL_AXES = (4, 5, 6, 7, 8, 9, 10, 11)  # stand-ins for long axes that nothing in the region ties to their length
_LONG = 16
_RUN = 1 << 17
"""Elements that a region is run on: some 50 tokens of 2,048 channels, 5 ms for a norm."""
_WORK = 1 << 29
"""Elements times operators that may be run for one graph: about a second. Exporters use a handful of forms."""
_VISITS = 500_000
"""Operators of regions that may be looked at for one graph, about a second; no real one came to a tenth of it."""
_ON_A_GUESS = "it is no norm on the sizes that were tried, but its own are not known"
_WIDEST = 1 << 14  # of a guessed width
_SCALES = (30.0, 1.0)
"""Of the numbers that are run: at 30 an ε of 0.1 is noise; at 1 bounds that are meant for float16 are far."""
FUSED = frozenset(["LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"])  # with their own γ
AS_NORM = FUSED | {"InstanceNormalization", "MeanVarianceNormalization", "LpNormalization", "GroupNormalization"}
_LIMITS = Limits()  # nothing above `MOST` elements is read here, whatever a caller allows
_POOLS = frozenset(["AveragePool", "GlobalAveragePool", "LpPool", "GlobalLpPool", "CumSum", "MaxPool", "GlobalMaxPool"])
_PRODUCTS = frozenset(["MatMul", "Gemm", "Einsum", "Conv", "FusedMatMul"])
_DIVIDING = frozenset(["Div", "Reciprocal", "Rsqrt", "Pow", "Exp", "Mod"])
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
_INEXACT = frozenset(["Slice", "Split", "Pad", "Expand", "Tile", "Gather", "Conv", "AveragePool", "MaxPool"])
"""Operators that the readers of other formats than ONNX name so for the patterns' sake, with operands of their own."""


@dataclass(frozen=True, slots=True)
class Found:
    """A norm's core.

    Attributes:
        match: what it computes.
        region: the operators.
        scaled_inside: whether it holds only with the scales of its channels taken away: one lies inside.
        beyond_reshape: whether there is a value before a reshape of which it is no norm: groups may be pooled.
    """

    match: Match
    region: Region
    scaled_inside: bool
    beyond_reshape: bool


@dataclass(frozen=True, slots=True)
class Untold:
    """A region that pools and divides and was not understood."""

    end: int
    why: str


class Probe:
    """Runs regions of one graph; equal regions are run once.

    Attributes:
        flow: the data paths.
        sizes: sizes of the values.
    """

    def __init__(self, view: GraphView, checkpoint: Checkpoint, graph: Graph) -> None:
        self.flow = Flow(graph.operators, graph.inputs)
        self._opset = _opset(checkpoint)
        self._inexact = frozenset() if checkpoint.format == "ONNX" else _INEXACT
        given: dict[str, Sequence[int | None]] = dict(graph.shapes.items())
        self.sizes: Sizes = find_sizes(
            graph.operators, given, checkpoint.tensors, graph.constants, self._opset, self._inexact
        )
        self._view, self._checkpoint = view, checkpoint
        self._tensors: dict[str, Numbers] = {}
        self._structured: dict[str, bool] = {}
        self._work = self._visits = 0
        self._seen: dict[Any, tuple[Match, bool] | str | None] = {}

    # --- where -----------------------------------------------------------------------------------------------------

    def is_pool(self, k: int) -> bool:
        """Whether an operator makes one number of many: a reduction, a pooling, a product with constant weights."""
        op = self.flow.operators[k]
        if op.op_type.startswith("Reduce") or op.op_type in _POOLS:
            return bool(self.flow.data(k))
        if op.op_type not in _PRODUCTS:
            return False
        data = self.flow.data(k)
        if data and not any(self.flow.is_fixed(name) for name in op.inputs[:2]):
            return len(op.inputs) > 1 and len({self._rooted(name) for name in data}) == 1  # x · x
        fixed = [name for name in op.inputs[:2] if name and self.flow.is_fixed(name)]
        if len(data) != 1 or len(fixed) != 1:
            return False
        shape = self.sizes.shapes.get(fixed[0])
        if shape is None:
            return False
        longer = [n for n in shape if n > 1]
        if len(longer) < 2:
            return True
        return self.structured(fixed[0])

    def _rooted(self, value: str) -> str:
        """Return the value behind what only moves axes."""
        for _ in range(4):
            k = self.flow.producers.get(value, -1)
            op = self.flow.operators[k]
            if k < self.flow.first or not op.inputs or (op.op_type not in RESHAPING and op.op_type != "Transpose"):
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
        shape = self.sizes.shapes.get(value, ())
        longer = [n for n in shape if n > 1]
        if len(longer) < 2:
            return True
        if len(longer) > 2 or longer[0] != longer[1]:
            return False
        if self._view.weight(value) is not None:
            return averages(self._view, value, _LIMITS)
        return is_average(self.constant(value).reshape(longer)[:2])

    def candidates(self, pools: Iterable[int], done: set[int]) -> Iterator[int]:
        """Yield the operators that may end a norm's core: they combine two values near a pooling, or are fused."""
        near: dict[int, int] = dict.fromkeys(pools, 0)
        todo = list(near)
        consumers = self._consumers()
        for k in todo:
            if near[k] >= _NEAR:
                continue
            for name in self.flow.operators[k].outputs:
                for user in consumers.get(name, ())[:64]:
                    if user not in near and user not in done and not self._stops(user):
                        near[user] = near[k] + 1
                        todo.append(user)
        for k in sorted(near):
            op = self.flow.operators[k]
            if op.op_type in ("Div", "Mul", "Sub", "Add", "Einsum", "MatMul", "Where") and len(self.flow.data(k)) >= 2:
                yield k

    def _consumers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for k, op in enumerate(self.flow.operators):
            for name in dict.fromkeys(op.inputs):
                found.setdefault(name, []).append(k)
        return found

    def _stops(self, k: int) -> bool:
        op = self.flow.operators[k]
        if op.op_type in _STOPS or (op.domain not in ("", "com.microsoft")):
            return True
        if op.op_type == "Gather" and len(op.inputs) > 1 and not self.flow.is_fixed(op.inputs[1]):
            return True  # data as an index: an embedding
        if op.op_type in _PRODUCTS and len(self.flow.data(k)) < 2:
            return not all(self.structured(n) for n in op.inputs[:2] if n and self.flow.is_fixed(n))
        return False

    # --- what ------------------------------------------------------------------------------------------------------

    def examine(self, end: int, done: set[int], *, strict: bool = True) -> Found | Untold | None:
        """Say what an operator ends: the farthest value that it is a norm of wins.

        Args:
            end: index of the operator.
            done: operators of norms that were found before: what they put out is data.
            strict: whether the region must pool and divide by itself (it need not where a fused norm is part of it).

        Returns:
            The core; None if it is no norm; or why that cannot be told.
        """
        fused = _is_norm(self.flow.operators[end])
        best: Found | None = None
        why, ran = "", False
        for start, region in self.flow.regions(end, _LEVELS, first_only=fused):
            self._visits += len(region.inside)
            if self._visits > _VISITS:
                return Untold(end, "more regions than may be looked at")
            if start in done or (region.inside - {end}) & done or any(self._stops(k) for k in region.inside - {end}):
                break
            kinds = {self.flow.operators[k].op_type for k in region.inside}
            if not fused and strict and not (kinds & (_DIVIDING | AS_NORM) and self._has_pool(region)):
                continue
            more = frozenset() if best is None else region.inside - best.region.inside
            if best is not None and not self._may_change(more) and not self._regroups(more):
                continue
            # a bias in front of a norm must not pass for a shift inside of it
            verdict = self._run(region, flat=best is None or best.scaled_inside)
            if isinstance(verdict, str) and not (verdict == _ON_A_GUESS and best is not None):
                if best is None or self._may_change(more):
                    why = why or verdict
                continue
            ran = ran or self._has_pool(region)  # what does not even pool settles nothing
            if isinstance(verdict, tuple):
                best = Found(verdict[0], region, verdict[1], False)
                why = ""
            elif best is not None and "Reshape" in kinds:
                best = Found(best.match, best.region, best.scaled_inside, True)
        if why and (best is not None or not ran):
            return Untold(end, why)
        return best

    def _may_change(self, more: Iterable[int]) -> bool:
        """Whether further operators in front of a norm may make another norm of it: only pooling and joining do."""
        return any(self.is_pool(k) or self.flow.operators[k].op_type == "Concat" for k in more)

    def _regroups(self, more: Iterable[int]) -> bool:
        """Whether further operators change what is beside what: groups may be normalised."""
        return any(self.flow.operators[k].op_type == "Reshape" for k in more)

    def _has_pool(self, region: Region) -> bool:
        return any(self.is_pool(k) or self.flow.operators[k].op_type in AS_NORM for k in region.inside)

    def _run(self, region: Region, *, flat: bool) -> tuple[Match, bool] | str | None:
        """Run a region on the sizes that it has, else on likely ones; return the match, None, or why it is unknown."""
        known = self.sizes.shapes.get(region.source)
        why, ran = "its sizes cannot be told", False
        if known is not None and 0 in known:
            return why
        for shape in self._shapes(region, known):
            if math.prod(shape) > _RUN:
                why = "its values are too large to be run"
                continue
            for flattened in (False, True)[: 1 + flat]:
                verdict = self._run_on(region, shape, flattened)
                if isinstance(verdict, tuple):
                    return verdict
                ran = ran or verdict is None
                why = verdict or why
        if ran:
            return None if known is not None else _ON_A_GUESS
        return why

    def _run_on(self, region: Region, shape: Shape, flat: bool) -> tuple[Match, bool] | str | None:
        runner = _Runner(self, region, shape, flat)
        try:
            key = (runner.key(), shape)
        except CannotRunError as error:
            return str(error)
        self._work += 0 if key in self._seen else math.prod(shape) * len(region.inside)
        if self._work > _WORK:
            return "more regions than may be run"
        if key not in self._seen:
            self._seen[key] = self._match(runner, shape, flat)
        return self._seen[key]

    def _match(self, runner: _Runner, shape: Shape, flat: bool) -> tuple[Match, bool] | str | None:
        try:
            for scale in _SCALES if runner.clamps else _SCALES[:1]:
                x = sample(shape, scale, 7)
                first = judge(x, runner.run(x))
                if first is None:
                    continue
                x = contrast(x, 8)
                if agree(first, judge(x, runner.run(x))):
                    return first, flat
        except CannotRunError as error:
            return str(error)[:200]
        return None

    def _shapes(self, region: Region, known: Shape | None) -> Iterator[Shape]:
        tied = self._tied(region)
        if known is None:
            for d in [n for n in tied if 2 < n < _WIDEST][:2] or [17]:
                yield from ((3, 4, d), (4, d), (3, d, 5), (3, d, 5, 7), (3, 4, 5, d))
                yield from ((*target[:-1], d) for target in self._targets(region))
            return
        small = iter([n for n in _SMALL_AXES if n not in tied and n not in known])
        open_ = self.sizes.guessed - set(tied)
        shorter = tuple(
            n if n <= _LONG and not (i == 0 and n in open_ and n > 2) else 2 if i == 0 and n in open_
            else n if n in tied else next(small, n)
            for i, n in enumerate(known)
        )  # fmt: skip
        if shorter != known:
            yield shorter
        yield known

    def _targets(self, region: Region) -> Iterator[Shape]:
        """Yield the shapes that a region has written into it."""
        for k in sorted(region.inside):
            op = self.flow.operators[k]
            value = (
                self.sizes.values.get(op.inputs[1]) if op.op_type in ("Reshape", "Expand") and op.inputs[1:] else None
            )
            if value is not None and value.ndim == 1 and value.size and (value > 0).all():
                yield tuple(int(n) for n in value)

    def _tied(self, region: Region) -> list[int]:
        """Return lengths that the constants of a region, and the vectors after it, have or speak of."""
        found: list[int] = []
        spoken: list[int] = []
        flow = self.flow
        after = [op for name in flow.operators[region.end].outputs[:1] for op in self._view.near(name)[:8]]
        for op in (*(flow.operators[k] for k in sorted(region.inside)), *after):
            for name in op.inputs:
                if name and flow.is_fixed(name):
                    shape = [n for n in self.sizes.shapes.get(name, ()) if n > 1]
                    found = shape + found if len(shape) == 1 else found + shape
                    value = self.sizes.values.get(name)
                    spoken += [] if value is None else _spoken_of(value)
        return list(dict.fromkeys(found + spoken))

    # --- constants -------------------------------------------------------------------------------------------------

    def constant(self, name: str) -> Numbers:
        """Return a stored tensor or constant.

        Raises:
            CannotRunError: it is too large, or cannot be decoded, or is not there.
        """
        if name not in self._tensors:
            value = self.sizes.values.get(name)
            self._tensors[name] = value if value is not None else self._stored(name)
        return self._tensors[name]

    def _stored(self, name: str) -> Numbers:
        from ...decode import is_decodable, read

        tensor = self._checkpoint.tensors.get(name)
        if tensor is None or tensor.size > MOST or not is_decodable(tensor.dtype):
            raise CannotRunError(f"the constant {name[:60]} cannot be read")
        return exact(read(tensor, _LIMITS))

    def operands(self, op: Operator) -> None:
        """Refuse operators whose operands the reader of the format did not put into ONNX's words."""
        if op.op_type in self._inexact:
            raise CannotRunError(f"{op.op_type} of this format is not run here")

    @property
    def opset(self) -> int:
        """Version of the operator set."""
        return self._opset


class _Runner:
    """One region with the fixed operators that it hangs on, in order, ready to be run on some x."""

    def __init__(self, probe: Probe, region: Region, shape: Shape, flat: bool) -> None:
        self._probe, self._region, self._shape, self._flat = probe, region, shape, flat
        self._order = sorted(region.inside)
        self.clamps = any(
            probe.flow.operators[k].op_type in ("Clip", "Max", "Min", "Where", "Relu", "Abs") for k in self._order
        )

    def key(self) -> tuple[Any, ...]:
        """Return what equal regions have in common."""
        names: dict[str, Any] = {self._region.source: 0}
        key: list[Any] = [self._flat]
        for k in self._order:
            op = self._probe.flow.operators[k]
            key.append((op.op_type, op.domain, _frozen(op.attributes), tuple(self._known(n, names) for n in op.inputs)))
            for name in op.outputs:
                names[name] = len(names)
        return tuple(key)

    def _known(self, name: str, names: dict[str, Any]) -> Any:
        if name in names or not name:
            return names.get(name)
        value = self._probe.sizes.values.get(name)
        return name if value is None else (value.dtype.str, value.shape, value.tobytes())

    def run(self, x: Numbers) -> Numbers:
        """Return what the region makes of x.

        Raises:
            CannotRunError: an operator of it cannot be run.
        """
        flow, values = self._probe.flow, {self._region.source: x}
        fixed: dict[str, Numbers] = {}
        spent = [0]
        for k in self._order:
            op = flow.operators[k]
            operands = [self._operand(op, i, values, fixed, spent) for i in range(len(op.inputs))]
            if _is_norm(op):
                operands = _unscaled(op, operands)
            self._probe.operands(op)
            values.update(zip(op.outputs, run(op, operands, self._probe.opset), strict=False))
        return values[flow.operators[self._region.end].outputs[0]]

    def _operand(
        self, op: Operator, index: int, values: dict[str, Numbers], fixed: dict[str, Numbers], spent: list[int]
    ) -> Numbers | None:
        name = op.inputs[index]
        if not name:
            return None
        if name in values:
            return values[name]
        if _is_norm(op) and index:
            return None
        value = self._fixed(name, values, fixed, spent, 0)
        if self._flat and value.size > 1 and value.dtype.kind == "f" and op.op_type in ("Mul", "Div", "Add", "Sub"):
            return np.full(value.shape, float(op.op_type in ("Mul", "Div")))
        if self._flat and value.ndim == 1 and op.op_type == "Einsum" and _is_kept(op, index):
            return np.ones(value.shape)
        return value

    def _fixed(
        self, name: str, values: dict[str, Numbers], fixed: dict[str, Numbers], spent: list[int], depth: int
    ) -> Numbers:
        """Return a value that hangs on constants and shapes alone; shapes are those of the values that run here."""
        if name in fixed:
            return fixed[name]
        flow, sizes = self._probe.flow, self._probe.sizes
        k = flow.producers.get(name)
        if k is None:
            return self._probe.constant(name)
        op = flow.operators[k]
        spent[0] += 1
        if spent[0] > _FIXED or depth > 40:
            raise CannotRunError("it hangs on too many constants")
        if op.op_type in ("Shape", "Size"):
            of = op.inputs[0]
            shape = values[of].shape if of in values else sizes.shapes.get(of)
            if shape is None or (of not in values and shape == sizes.shapes.get(self._region.source)):
                shape = self._shape
            results = run(op, [np.broadcast_to(np.zeros(()), shape)], self._probe.opset)
        else:
            self._probe.operands(op)
            operands = [self._fixed(n, values, fixed, spent, depth + 1) if n else None for n in op.inputs]
            results = run(op, operands, self._probe.opset)
        fixed.update(zip(op.outputs, results, strict=False))
        return fixed[name]


def _is_kept(op: Operator, index: int) -> bool:
    """Whether the axis of a vector is one of the result: then it scales, and does not pool."""
    left, _, right = str(op.attributes.get("equation", "")).replace(" ", "").partition("->")
    terms = left.split(",")
    return index < len(terms) and terms[index] in right


def _is_norm(op: Operator) -> bool:
    """Whether an operator is a norm by itself, whatever it scales with."""
    return op.op_type in AS_NORM or (op.op_type == "BatchNormalization" and bool(op.attributes.get("training_mode", 0)))


def _unscaled(op: Operator, operands: list[Numbers | None]) -> list[Numbers | None]:
    """Return the operands of a fused norm with γ = 1 and β = 0."""
    x = operands[0]
    if x is None:
        raise CannotRunError(f"{op.op_type} of nothing")
    if op.op_type not in ("InstanceNormalization", "GroupNormalization", "BatchNormalization"):
        return [x]
    ones = np.ones(x.shape[1] if x.ndim > 1 else 1)
    return [x, ones, 0 * ones, 0 * ones, ones]


def _spoken_of(value: Numbers) -> list[int]:
    """Return the whole numbers that small constants are, or are the inverse, the root, or one less of."""
    found: list[int] = []
    for number in value.reshape(-1)[:8].tolist():
        size = abs(float(number))
        forms = (size, 1 / size if size else 0, size**2, 1 / size**2 if size else 0, size + 1)
        found += [round(n) for n in forms if 2 <= n < 1 << 20 and abs(n - round(n)) < 1e-3 * n]
    return found


def _frozen(attributes: Any) -> Any:
    if isinstance(attributes, np.ndarray):
        return attributes.dtype.str, attributes.shape, attributes.tobytes()
    if isinstance(attributes, dict):
        return tuple(sorted((key, _frozen(value)) for key, value in attributes.items()))
    return attributes if isinstance(attributes, str | int | float | tuple) else repr(attributes)[:200]


def _opset(checkpoint: Checkpoint) -> int:
    found = checkpoint.metadata.get("opset.ai.onnx", 0)
    return found if isinstance(found, int) and found > 0 else 13
