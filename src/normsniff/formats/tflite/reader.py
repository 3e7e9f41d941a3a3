"""TensorFlow Lite (LiteRT): a flatbuffer with the graph, and the weights, which are not read here.

Source: TensorFlow Lite's schema.fbs, file identifier ``TFL3``. Field numbers below are those of its tables.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from ... import meter
from ...checkpoint import MOST_AXES, Affine, ArraySlab, Checkpoint, Graph, Operator, TensorInfo
from ...dtypes import FLOATS, NUMPY, UNITS, numpy_type
from ...errors import FormatError, LimitExceeded
from ...limits import Limits
from ...source.local import ByteSource
from ...source.views import Extent
from ...words import amount
from .flatbuffer import Flat, Table
from .ops import COMPOSITE, IF, WHILE, OperatorCall, Translator

_SMALL = 64  # elements; constants up to this size are decoded at once, they may be axes, exponents, epsilons, shapes
_NAME = 1000

# TensorType
_DTYPES = {
    0: "F32", 1: "F16", 2: "I32", 3: "U8", 4: "I64", 6: "BOOL", 7: "I16", 8: "C64", 9: "I8", 10: "F64", 11: "C128",
    12: "U64", 15: "U32", 16: "U16", 17: "I4", 18: "BF16", 19: "I2", 20: "U4", 21: "F8_E4M3", 22: "F8_E5M2",
}  # fmt: skip


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse a model; small constants are read, weights are not.

    Raises:
        FormatError: not a model, or its parts contradict each other.
        LimitExceeded: it asks for more than `limits` allows.
    """
    flat = Flat(source, limits.graph_bytes)
    if bytes(flat.take(4, 4)) != b"TFL3":
        raise FormatError("bad-magic", f"{source.name} @ 4", "the file identifier is not TFL3")
    model = flat.root()
    builder = _SubgraphFlattener(flat, model, limits)
    inputs, outputs = builder.main()
    return Checkpoint(
        format="TFLite",
        version=str(model.scalar(0, "I")),
        tensors=builder.tensors,
        sources=(source,),
        header_sha256=flat.digest(),
        metadata={"description": model.text(3, 200)},
        graph=Graph(tuple(builder.operators), inputs, outputs, builder.constants, shapes=builder.shapes),
        warnings=tuple(f"{amount(n, 'tensor')} {why}" for why, n in builder.left_out.items()),
    )


class _Value(NamedTuple):
    name: str
    rank: int


class _SubgraphFlattener:
    """Flattens a model: its first subgraph, and those that this one calls.

    Attributes:
        tensors: stored tensors that may be weights.
        operators: in execution order.
        constants: small values, decoded.
        shapes: sizes of computed values, None where they are open.
        left_out: why tensors cannot be decoded, counted.
    """

    def __init__(self, flat: Flat, model: Table, limits: Limits) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.operators: list[Operator] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        self.left_out: Counter[str] = Counter()
        self._flat, self._limits = flat, limits
        codes = model.tables(1, "operator codes", limits.operators)
        self._codes = [max(code.scalar(0, "b"), code.scalar(3, "i")) for code in codes]
        self._customs = [code.text(1, 100) for code in codes]
        self._graphs = model.tables(2, "subgraphs", limits.operators)
        self._buffers = model.tables(4, "buffers", limits.tensors + 1)
        self._names: set[str] = set()
        self._translator = Translator(self.constants.get)

    def main(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Add the first subgraph; return its inputs and outputs."""
        if not self._graphs:
            raise FormatError("no-graph", self._flat.source.name, "a model without a subgraph")
        return self._add(0, 0)

    def _add(self, number: int, depth: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if depth > self._limits.nesting:
            raise LimitExceeded(self._flat.source.name, "depth of subgraphs", self._limits.nesting, depth)
        graph = self._graphs[number]
        tensors = graph.tables(0, "tensors", self._limits.tensors - len(self._names))
        values = [self._value(tensor, number, index) for index, tensor in enumerate(tensors)]
        inputs, outputs = (tuple(self._value_of(values, n, graph).name for n in _list(graph, f)) for f in (1, 2))
        for table in graph.tables(3, "operators", self._limits.operators - len(self.operators)):
            self._operator(table, values, depth)
        return inputs, outputs

    def _operator(self, table: Table, values: list[_Value], depth: int) -> None:
        meter.charge(3, "flattening subgraphs")
        index = table.scalar(0, "I")
        if index >= len(self._codes):
            self._fail(table.at, "bad-operator", f"operator code {index:,} of {len(self._codes):,}")
        given = [self._value_of(values, n, table) for n in _list(table, 1)]
        inputs = tuple(value.name for value in given)
        results = [self._value_of(values, n, table) for n in _list(table, 2)]
        outputs = tuple(value.name for value in results)
        code, options = self._codes[index], table.table(4)
        name = outputs[0] if outputs else ""
        if code == COMPOSITE and self._composite(table, inputs, outputs, depth):
            return
        if code in (IF, WHILE) and options is not None:
            for field in (0, 1):
                inputs += self._call(options.scalar(field, "i"), given[1:] if code == IF else given, depth)
        if code == 32:  # custom
            self._append(Operator(self._customs[index] or "Custom", "custom", name, inputs, outputs))
            return
        ranks = (some[0].rank if some else 0 for some in (given, results))
        for op in self._translator.translate(OperatorCall(code, name, inputs, outputs, options, *ranks)):
            self._append(op)

    def _append(self, op: Operator) -> None:
        if len(self.operators) >= self._limits.operators:
            raise LimitExceeded(self._flat.source.name, "operators", self._limits.operators, len(self.operators) + 1)
        meter.charge_operator(len(op.inputs) + len(op.outputs), "flattening subgraphs")
        self.operators.append(op)

    def _composite(self, table: Table, inputs: tuple[str, ...], outputs: tuple[str, ...], depth: int) -> bool:
        """Put the decomposition of a composite (StableHLO) in its place."""
        options = table.table(12)
        if options is None:
            return False
        results = self._call(options.scalar(1, "i", -1), [_Value(name, 0) for name in inputs], depth)
        for result, out in zip(results, outputs, strict=False):
            self._append(Operator("Identity", "", out, (result,), (out,)))
        return bool(results)

    def _call(self, number: int, given: list[_Value], depth: int) -> tuple[str, ...]:
        if not 0 < number < len(self._graphs):  # the first one calls, it is not called
            return ()
        at = len(self.operators)
        formal, results = self._add(number, depth + 1)
        bound = [Operator("Identity", "", "", (a.name,), (f,)) for f, a in zip(formal, given, strict=False)]
        self.operators[at:at] = bound
        return results

    def _value_of(self, values: list[_Value], number: int, table: Table) -> _Value:
        if number == -1:  # an optional input that is not there
            return _Value("", 0)
        if not 0 <= number < len(values):
            self._fail(table.at, "bad-tensor", f"tensor {number:,} of {len(values):,}")
        return values[number]

    # --- tensors -----------------------------------------------------------------------------------------------

    def _value(self, table: Table, graph: int, index: int) -> _Value:
        meter.charge_tensors(1, "reading tensors")
        shape = tuple(table.array(0, "<i4")[: MOST_AXES + 1].tolist())
        name = table.text(3, _NAME)
        if not name or name in self._names:
            name = f"{name}#{graph}.{index}.{len(self._names)}"
        self._names.add(name)
        meter.charge(len(name) >> 4, "reading tensors")
        extent = self._extent(table)
        if extent is not None:
            if len(shape) > MOST_AXES or min(shape, default=0) < 0:
                self._fail(table.at, "bad-shape", f"{name[:100]} has the shape {shape[:8]}")
            self._store(table, name, shape, extent)
        elif shape:
            signature = table.array(7, "<i4")[: MOST_AXES + 1].tolist()  # like the shape, -1 where it is open
            signature = signature if len(signature) == len(shape) else shape
            self.shapes[name] = tuple(n if n >= 0 else None for n in signature)
        return _Value(name, len(shape))

    def _extent(self, table: Table) -> Extent | None:
        """Return where the data of a tensor lies; None for a value that is computed."""
        index, source = table.scalar(2, "I"), self._flat.source
        if not index:  # by convention the first buffer is empty
            return None
        if index >= len(self._buffers):
            self._fail(table.at, "bad-buffer", f"buffer {index:,} of {len(self._buffers):,}")
        buffer = self._buffers[index]
        start, size = buffer.vector(0, 1) or (0, 0)
        if not size:
            start, size = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")  # behind the flatbuffer, in files beyond 2 GB
            if start <= 1 or not size:
                return None
            if start + size > source.size:
                self._fail(buffer.at, "truncated", f"a buffer ends at {start + size:,}, the file at {source.size:,}")
        return Extent(source, start, start + size)

    def _store(self, table: Table, name: str, shape: tuple[int, ...], extent: Extent) -> None:
        kind = table.scalar(1, "b")
        dtype = _DTYPES.get(kind, f"TFLite_{kind}")
        if table.table(6) is not None:
            dtype, _ = "SPARSE", self.left_out.update(["are stored sparsely, which is not decoded"])
        elements, unit = UNITS.get(dtype, (1, 0))
        nbytes = -(-math.prod(shape) // elements) * unit
        if unit and nbytes != extent.stop - extent.start:
            detail = f"{name[:100]}: {extent.stop - extent.start:,} bytes of data for the shape {shape} of {dtype}"
            self._fail(table.at, "bad-length", detail)
        tensor = self._quantised(table, TensorInfo(name, dtype, shape, extent))
        if tensor.size <= _SMALL and dtype in NUMPY:
            data = self._flat.take(extent.start, nbytes)
            self.constants[name] = _plain(np.frombuffer(data, numpy_type(dtype)).reshape(shape), tensor.affine)
        if tensor.size > _SMALL or (tensor.size > 1 and (dtype in FLOATS or tensor.affine is not None)):
            self.tensors[name] = tensor

    def _quantised(self, table: Table, tensor: TensorInfo) -> TensorInfo:
        """Attach scale and zero point: one for the tensor, or one for each slice of an axis."""
        quantisation = table.table(4)
        if quantisation is None or tensor.dtype in FLOATS:
            return tensor
        if quantisation.scalar(4, "B") > 1:  # blockwise, or along several axes
            self.left_out["are quantised in blocks, which is not decoded"] += 1
            return msgspec.structs.replace(tensor, dtype="BLOCKED")
        scale, zero = quantisation.array(2, "<f4"), quantisation.array(3, "<i8")
        if not scale.size:
            return tensor
        axis = None if scale.size == 1 else quantisation.scalar(6, "i")
        if axis is not None and len(tensor.shape) == 1:
            axis = 0  # converters give a bias the axis of the kernel that it belongs to
        along = 1 if axis is None else tensor.shape[axis] if 0 <= axis < len(tensor.shape) else -1
        if scale.size != along or zero.size not in (0, 1, along):
            detail = f"{tensor.name[:100]}: {scale.size:,} scales and {zero.size:,} zero points for {tensor.shape}"
            self._fail(table.at, "bad-scale", detail)
        offset = TensorInfo(f"{tensor.name} (zero point)", "I64", zero.shape, ArraySlab(zero)) if zero.any() else None
        factor = TensorInfo(f"{tensor.name} (scale)", "F32", scale.shape, ArraySlab(scale))
        return msgspec.structs.replace(tensor, affine=Affine(factor, offset, axis))

    def _fail(self, at: int, code: str, detail: str) -> NoReturn:
        raise FormatError(code, f"{self._flat.source.name} @ {at}", detail)


def _list(table: Table, field: int) -> list[int]:
    return [int(n) for n in table.array(field, "<i4").tolist()]


def _plain(array: NDArray[Any], affine: Affine | None) -> NDArray[Any]:
    """Return the numbers that a small quantised constant stands for."""
    if affine is None or affine.axis is not None:
        return array
    scale, zero = (0.0 if t is None else _first(t) for t in (affine.scale, affine.zero_point))
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: NDArray[Any] = (array.astype(np.float64) - zero) * scale
    return numbers


def _first(tensor: TensorInfo) -> float:
    assert isinstance(tensor.storage, ArraySlab)
    return float(tensor.storage.array[0])
