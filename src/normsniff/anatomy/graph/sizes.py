"""Sizes of the values of a graph along their axes, worked out from its inputs on: what a region can be run on.

A size that the file leaves open (batch, positions) gets a stand-in: small, different from the others, and equal to none
that the weights have, so that arithmetic on shapes runs on plain numbers. A value whose sizes cannot be told has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import meter
from ...checkpoint import MOST_AXES, Operator, TensorInfo
from .arithmetic import CannotRunError, Numbers, exact, run

Shape = tuple[int, ...]
_FEW = 64  # elements of a value that may be a shape, an axis or a number: these are computed, not only their sizes
_LARGEST = 1 << 62  # size along an axis; what grows beyond is a bomb
_INFERENCE = 20  # steps an operator
_PASSES = 2  # a converter to float16 appends the casts of the inputs, which everything hangs on, at the end
_STAND_INS = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
_IMAGES = (224, 192, 160, 128)  # where four axes are open: convolutions with strides must leave something


class Sizes(NamedTuple):
    """What is known of the values.

    Attributes:
        shapes: sizes by value.
        values: small values that hang on constants and shapes alone.
        guessed: stand-ins that were given to open sizes.
    """

    shapes: dict[str, Shape]
    values: dict[str, Numbers]
    guessed: frozenset[int]


def find_sizes(
    operators: Iterable[Operator],
    given: Mapping[str, Sequence[int | None]],
    tensors: Mapping[str, TensorInfo],
    constants: Mapping[str, Any],
    opset: int,
    inexact: Collection[str] = (),
) -> Sizes:
    """Return the sizes of every value for which they can be told.

    Args:
        operators: in execution order.
        given: what the file says of inputs and of other values, None where a size is open.
        tensors: stored weights.
        constants: decoded constants.
        opset: version of the operator set.
        inexact: operators whose operands are not those of ONNX.
    """
    taken = {n for tensor in tensors.values() for n in tensor.shape}
    taken |= {n for shape in given.values() for n in shape if n}
    stand_ins = [n for n in _STAND_INS if n not in taken] or list(_STAND_INS)
    images = [n for n in _IMAGES if n not in taken] or list(_IMAGES)
    shapes = {name: _filled(shape, stand_ins, images) for name, shape in given.items()}
    shapes |= {name: tensor.shape for name, tensor in tensors.items()}
    values: dict[str, Numbers] = {}
    for name, array in constants.items():
        shapes[name] = array.shape
        if array.dtype.kind in "iubf":
            values[name] = exact(array)
    todo = [op for op in operators if op.op_type not in inexact]
    for _ in range(_PASSES):
        for op in todo:
            meter.charge(_INFERENCE + len(op.inputs) + len(op.outputs), "working out sizes")
            _infer(op, shapes, values, opset)
        todo = [op for op in todo if op.outputs and op.outputs[0] not in shapes]
    return Sizes(shapes, values, frozenset(stand_ins + images))


def _filled(shape: Sequence[int | None], stand_ins: Sequence[int], images: Sequence[int]) -> Shape:
    spatial = iter(images) if len(shape) == 4 and None in shape[2:] else iter(())
    small = iter(stand_ins)
    return tuple(
        n if n is not None and n >= 0 else (next(spatial, 0) if i > 1 else 0) or next(small, 3)
        for i, n in enumerate(shape)
    )


def _infer(op: Operator, shapes: dict[str, Shape], values: dict[str, Numbers], opset: int) -> None:
    if op.op_type in ("Shape", "Size") and op.inputs and op.inputs[0] in shapes:
        shape = shapes[op.inputs[0]]
        found = np.array(shape[op.attributes.get("start", 0) : op.attributes.get("end")], np.int64)
        values[op.outputs[0]] = np.array(math.prod(shape)) if op.op_type == "Size" else found
        shapes[op.outputs[0]] = values[op.outputs[0]].shape
        return
    if op.inputs and all(name in values or not name for name in op.inputs):
        try:
            results = run(op, [values.get(name) for name in op.inputs], opset)
        except CannotRunError:
            results = ()
        for name, value in zip(op.outputs, results, strict=False):
            shapes[name] = value.shape
            if value.size <= _FEW:
                values[name] = value
        if results:
            return
    rule = _RULES.get(op.op_type)
    if rule is None or op.domain not in ("", "com.microsoft"):
        return
    try:
        inferred = list(rule(_Case(op, shapes, values)))
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, AssertionError):
        return
    for name, one in zip(op.outputs, inferred, strict=False):
        if name and name not in shapes and len(one) <= MOST_AXES and all(0 <= n < _LARGEST for n in one):
            shapes[name] = tuple(int(n) for n in one)


class _Case(NamedTuple):
    op: Operator
    shapes: Mapping[str, Shape]
    values: Mapping[str, Numbers]

    def shape(self, index: int) -> Shape:
        return self.shapes[self.op.inputs[index]]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.op.attributes.get(name, default)

    def integers(self, name: str, index: int) -> list[int] | None:
        found = self.op.attributes.get(name)
        if found is None and index < len(self.op.inputs) and self.op.inputs[index]:
            found = self.values[self.op.inputs[index]].reshape(-1).tolist()
        return None if found is None else [int(n) for n in (found if isinstance(found, list | tuple) else [found])]


_SizeRule = Callable[[_Case], Iterable[Shape]]


def _first(case: _Case) -> Iterator[Shape]:
    yield from [case.shape(0)] * len(case.op.outputs)


def _broadcast(case: _Case) -> Iterator[Shape]:
    found = [case.shapes[name] for name in case.op.inputs if name]
    rank = max(len(shape) for shape in found)
    padded = [(1,) * (rank - len(shape)) + shape for shape in found]
    # a stand-in that meets a size of the file gives way to it: it was the wrong guess
    yield tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def _reduced(case: _Case) -> Iterator[Shape]:
    shape, axes = case.shape(0), case.integers("axis" if case.op.op_type.startswith("Arg") else "axes", 1)
    if not axes and case.attribute("noop_with_empty_axes", 0):
        axes = []
    elif not axes:
        axes = [0] if case.op.op_type.startswith("Arg") else list(range(len(shape)))
    at = {a % len(shape) for a in axes}
    kept = case.attribute("keepdims", 1)
    yield tuple(1 if i in at else n for i, n in enumerate(shape) if kept or i not in at)


def _product(case: _Case) -> Iterator[Shape]:
    a, b = case.shape(0), case.shape(1)
    a = (*a[:-2], a[-1], a[-2]) if case.attribute("transA", 0) else a
    b = (*b[:-2], b[-1], b[-2]) if case.attribute("transB", 0) else b
    outer = np.broadcast_shapes(a[:-2], b[:-2])
    yield (*outer, *(a[-2:-1] if len(a) > 1 else ()), *(b[-1:] if len(b) > 1 else ()))


def _quantised_product(case: _Case) -> Iterator[Shape]:
    if case.op.op_type == "MatMulNBits":
        yield (*case.shape(0)[:-1], case.attribute("N"))
    else:
        weight = case.shape(3 if case.op.op_type.startswith("Q") and case.op.op_type != "QAttention" else 1)
        yield (*case.shape(0)[:-1], weight[-1])


def _einsum(case: _Case) -> Iterator[Shape]:
    left, _, right = str(case.attribute("equation")).replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for index, term in enumerate(left.split(",")):
        for letter, n in zip(term, case.shape(index), strict=True):
            sizes[letter] = max(n, sizes.get(letter, 1))
    yield tuple(sizes[letter] for letter in right)


def _windows(case: _Case) -> Iterator[Shape]:
    kind = case.op.op_type
    x, pool = case.shape(0), kind.endswith("Pool")
    weight = () if pool else case.shape(3 if kind == "QLinearConv" else 1)
    kernel = list(case.attribute("kernel_shape", ())) or list(weight[2:])
    rank = len(kernel)
    strides = list(case.attribute("strides", ())) or [1] * rank
    dilations = list(case.attribute("dilations", ())) or [1] * rank
    pads = list(case.attribute("pads", ())) or [0] * (2 * rank)
    padding = str(case.attribute("auto_pad", "NOTSET"))
    group = case.attribute("group", 1)
    spatial = []
    for i, n in enumerate(x[2:]):
        reach = dilations[i] * (kernel[i] - 1) + 1
        if kind == "ConvTranspose":
            more = (list(case.attribute("output_padding", ())) or [0] * rank)[i]
            spatial.append(strides[i] * (n - 1) + more + reach - pads[i] - pads[rank + i])
        elif padding.startswith("SAME"):
            spatial.append(-(-n // strides[i]))
        else:
            room = n + (0 if padding == "VALID" else pads[i] + pads[rank + i]) - reach
            spatial.append((-(-room // strides[i]) if case.attribute("ceil_mode", 0) else room // strides[i]) + 1)
    channels = x[1] if pool else weight[1] * group if kind == "ConvTranspose" else weight[0]
    yield (x[0], channels, *spatial)


def _global(case: _Case) -> Iterator[Shape]:
    yield (*case.shape(0)[:2], *(1 for _ in case.shape(0)[2:]))


def _reshaped(case: _Case) -> Iterator[Shape]:
    shape, target = case.shape(0), case.integers("shape", 1)
    assert target is not None
    if not case.attribute("allowzero", 0):
        target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    if -1 in target:
        rest = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = math.prod(shape) // rest
    yield tuple(target)  # even where the count differs: a stand-in was the wrong guess, what is written is right


def _flattened(case: _Case) -> Iterator[Shape]:
    shape, axis = case.shape(0), case.attribute("axis", 1)
    yield math.prod(shape[:axis]), math.prod(shape[axis:])


def _transposed(case: _Case) -> Iterator[Shape]:
    shape = case.shape(0)
    yield tuple(shape[p] for p in case.attribute("perm", None) or reversed(range(len(shape))))


def _squeezed(case: _Case) -> Iterator[Shape]:
    shape, axes = case.shape(0), case.integers("axes", 1)
    at = {a % len(shape) for a in axes} if axes else {i for i, n in enumerate(shape) if n == 1}
    yield tuple(n for i, n in enumerate(shape) if i not in at)


def _unsqueezed(case: _Case) -> Iterator[Shape]:
    shape, axes = case.shape(0), case.integers("axes", 1) or []
    total = len(shape) + len(axes)
    at, rest = {a % total for a in axes}, iter(shape)
    yield tuple(1 if i in at else next(rest) for i in range(total))


def _expanded(case: _Case) -> Iterator[Shape]:
    yield np.broadcast_shapes(case.shape(0), tuple(case.integers("shape", 1) or ()))


def _tiled(case: _Case) -> Iterator[Shape]:
    yield tuple(n * r for n, r in zip(case.shape(0), case.integers("repeats", 1) or [], strict=True))


def _joined(case: _Case) -> Iterator[Shape]:
    shapes = [case.shape(i) for i in range(len(case.op.inputs))]
    axis = case.attribute("axis", 1) % len(shapes[0])
    yield (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _split(case: _Case) -> Iterator[Shape]:
    shape, count = case.shape(0), len(case.op.outputs)
    axis = case.attribute("axis", 0) % len(shape)
    for n in case.integers("split", 1) or [-(-shape[axis] // count)] * count:
        yield (*shape[:axis], n, *shape[axis + 1 :])


def _sliced(case: _Case) -> Iterator[Shape]:
    shape, starts, ends = list(case.shape(0)), case.integers("starts", 1), case.integers("ends", 2)
    assert starts is not None
    assert ends is not None
    axes, steps = case.integers("axes", 3) or list(range(len(starts))), case.integers("steps", 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        n = shape[axis]
        shape[axis] = len(range(*slice(start, None if step < 0 and end < -n else end, step).indices(n)))
    yield tuple(shape)


def _gathered(case: _Case) -> Iterator[Shape]:
    shape = case.shape(0)
    axis = case.attribute("axis", 0) % len(shape)
    yield (*shape[:axis], *case.shape(1), *shape[axis + 1 :])


def _padded(case: _Case) -> Iterator[Shape]:
    shape, pads = case.shape(0), case.integers("pads", 1) or []
    yield tuple(n + pads[i] + pads[i + len(shape)] for i, n in enumerate(shape))


def _of_value(case: _Case) -> Iterator[Shape]:  # ConstantOfShape
    yield tuple(case.values[case.op.inputs[0]].reshape(-1).tolist())


def _embedded(case: _Case) -> Iterator[Shape]:
    yield (*case.shape(0), case.shape(2)[-1])


def _recurrent(case: _Case) -> Iterator[Shape]:
    length, batch, _ = case.shape(0)
    directions, _, hidden = case.shape(2)
    yield length, directions, batch, hidden
    yield directions, batch, hidden
    yield directions, batch, hidden


def _attended(case: _Case) -> Iterator[Shape]:
    if not case.op.domain:  # the standard's takes queries, keys and values
        yield case.shape(0)
    else:
        yield (*case.shape(0)[:-1], case.shape(1)[-1] // 3)


_KEEPING = (
    "Identity", "Cast", "CastLike", "Dropout", "Clip", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid",
    "HardSigmoid", "HardSwish", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Rsqrt", "Reciprocal", "Neg", "Abs", "Sign",
    "Floor", "Ceil", "Round", "Sin", "Cos", "Tan", "Atan", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Not",
    "IsNaN", "IsInf", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Mish", "Swish", "CumSum", "LayerNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "InstanceNormalization", "GroupNormalization", "GroupNorm", "MeanVarianceNormalization", "LpNormalization", "LRN",
    "QuantizeLinear", "DequantizeLinear", "Trilu", "EyeLike", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
    "ScatterND", "ScatterElements", "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding", "Square",
    "Sinh", "Cosh", "ThresholdedRelu",
)  # fmt: skip
_BROADCASTING = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "Where", "And", "Or", "Xor", "Equal",
    "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "PRelu",
)  # fmt: skip
_REDUCING = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin",
)  # fmt: skip
_SLIDING = (
    "Conv", "ConvInteger", "FusedConv", "QLinearConv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool",
)  # fmt: skip
_RULES: Mapping[str, _SizeRule] = {
    **dict.fromkeys(_KEEPING, _first),
    **dict.fromkeys(_BROADCASTING, _broadcast),
    **dict.fromkeys(_REDUCING, _reduced),
    **dict.fromkeys(["MatMul", "MatMulInteger", "FusedMatMul", "Gemm", "TransposeMatMul"], _product),
    **dict.fromkeys(
        ["MatMulNBits", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"], _quantised_product
    ),
    **dict.fromkeys(_SLIDING, _windows),
    **dict.fromkeys(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"], _global),
    "BatchNormalization": lambda case: [case.shape(0)], "DynamicQuantizeLinear": lambda case: [case.shape(0), (), ()],
    "QLinearAdd": lambda case: [np.broadcast_shapes(case.shape(0), case.shape(3))],
    "QLinearMul": lambda case: [np.broadcast_shapes(case.shape(0), case.shape(3))],
    "Einsum": _einsum, "Reshape": _reshaped, "Flatten": _flattened, "Transpose": _transposed, "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed, "Expand": _expanded, "Tile": _tiled, "Concat": _joined, "Split": _split,
    "Slice": _sliced, "Gather": _gathered, "Pad": _padded, "ConstantOfShape": _of_value,
    "EmbedLayerNormalization": _embedded, "LSTM": _recurrent, "GRU": _recurrent, "Attention": _attended,
    "QAttention": _attended,
}  # fmt: skip
