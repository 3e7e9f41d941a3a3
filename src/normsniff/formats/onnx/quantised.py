"""Which stored integers stand for weights, and with which scale: the ONNX operators that consume them tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from ... import meter
from ...checkpoint import Affine, ArraySlab, Operator, TensorInfo
from ...errors import FormatError
from ...limits import Limits
from .nbits import decoded_blocks

_STEPS = 8  # operators between a weight and its consumer; exporters put one or two there


class _Use(NamedTuple):
    """Input indices of the weight, its scale and its zero point, and the axis that they run along."""

    weight: int
    scale: int | None
    zero_point: int
    axis: int


# onnx/docs/Operators.md, onnxruntime/docs/ContribOperators.md
_USES: Mapping[str, tuple[_Use, ...]] = {
    "DequantizeLinear": (_Use(0, 1, 2, 1),),
    "QLinearMatMul": (_Use(3, 4, 5, -1),),
    "QLinearConv": (_Use(3, 4, 5, 0),),
    "QLinearAdd": (_Use(0, 1, 2, -1), _Use(3, 4, 5, -1)),
    "QLinearMul": (_Use(0, 1, 2, -1), _Use(3, 4, 5, -1)),
    "QGemm": (_Use(3, 4, 5, -1),),
    "MatMulInteger": (_Use(1, None, 3, -1),),
    "ConvInteger": (_Use(1, None, 3, 0),),
    "DynamicQuantizeMatMul": (_Use(1, 2, 3, -1),),
    "MatMulIntegerToFloat": (_Use(1, 3, 5, -1),),
    "QAttention": (_Use(1, 4, 7, -1),),
    "QEmbedLayerNormalization": tuple(_Use(n, n + 6, n + 11, -1) for n in range(2, 7)),
}
_OPAQUE: Mapping[str, int] = {"MatMulNBits": 1, "GatherBlockQuantized": 0, "MatMulBnb4": 1}  # blocks with own scales


def with_affines(
    tensors: Mapping[str, TensorInfo],
    stored: Mapping[str, TensorInfo],
    operators: Sequence[Operator],
    where: str,
    limits: Limits,
) -> dict[str, TensorInfo]:
    """Return `tensors`, in which quantised weights know their scale and zero point.

    Raises:
        FormatError: a scale does not fit the weight.
    """
    finder = _Finder(stored, operators, where, limits)
    found = {name: tensor for operator in operators for name, tensor in finder.of(operator)}
    return {name: found.get(name, tensor) for name, tensor in tensors.items()}


class _Finder:
    def __init__(
        self, stored: Mapping[str, TensorInfo], operators: Sequence[Operator], where: str, limits: Limits
    ) -> None:
        self._stored, self._where, self._limits = stored, where, limits
        self._producers = {name: op for op in operators for name in op.outputs if name}
        wanted = {
            op.outputs[0] for op in operators if op.op_type in ("MatMulInteger", "ConvInteger", "Cast") and op.outputs
        }
        self._consumers: dict[str, Operator] = {}
        for operator in operators:
            meter.charge(1 + len(operator.inputs), "looking for quantised weights")
            for name in operator.inputs:
                if name in wanted:
                    self._consumers.setdefault(name, operator)

    def of(self, operator: Operator) -> list[tuple[str, TensorInfo]]:
        """Return the weights that an operator dequantises, with how; nothing for other operators."""
        opaque = _OPAQUE.get(operator.op_type)
        if opaque is not None:
            weight = self._root(_input(operator, opaque))
            return [] if weight is None else [(weight.name, self._blocks(operator, weight))]
        found = [self._dequantised(operator, use) for use in _USES.get(operator.op_type, ())]
        return [(weight.name, weight) for weight in found if weight is not None]

    def _dequantised(self, operator: Operator, use: _Use) -> TensorInfo | None:
        scale = self._product_scale(operator) if use.scale is None else self._root(_input(operator, use.scale))
        name = _input(operator, use.weight)
        weight = self._root(name) or self._gathered(name, scale)
        if weight is None or not weight.dtype.startswith(("I", "U", "F8")):
            return None
        if operator.attributes.get("block_size"):
            return msgspec.structs.replace(weight, dtype="BLOCKED")
        axis = int(operator.attributes.get("axis", use.axis)) if operator.op_type == "DequantizeLinear" else use.axis
        if operator.op_type == "QGemm" and operator.attributes.get("transB"):
            axis = 0
        affine = self._affine(weight, scale, self._root(_input(operator, use.zero_point)), axis)
        return msgspec.structs.replace(weight, affine=affine)

    def _blocks(self, operator: Operator, weight: TensorInfo) -> TensorInfo:
        known = None
        if operator.op_type == "MatMulNBits" and not _input(operator, 4):  # with g_idx the blocks are not contiguous
            scales, zeros = (self._root(_input(operator, index)) for index in (2, 3))
            known = decoded_blocks(weight, scales, zeros, operator.attributes, self._where, self._limits)
        return known or msgspec.structs.replace(weight, dtype="BLOCKED")

    def _affine(self, weight: TensorInfo, scale: TensorInfo | None, zero: TensorInfo | None, axis: int) -> Affine:
        if scale is None:  # computed somewhere: a common factor that does not change directions
            scale = TensorInfo(f"{weight.name} (unit scale)", "F32", (), ArraySlab(np.ones((), np.float32)))
        sizes = {tensor.size for tensor in (scale, zero) if tensor is not None}
        if sizes == {1}:
            return Affine(scale, zero, None)
        rank = len(weight.shape)
        along = axis + rank if axis < 0 else axis
        if not 0 <= along < rank or not sizes <= {1, weight.shape[along]}:
            detail = f"scale or zero point of {sorted(sizes)} elements for the shape {weight.shape}, axis {axis}"
            raise FormatError("bad-scale", f"{self._where} @ {weight.name[:200]}", detail)
        return Affine(scale, zero, along)

    def _product_scale(self, operator: Operator) -> TensorInfo | None:
        """Find the weight's factor in ``Mul(Cast(MatMulInteger(x, w)), Mul(x_scale, w_scale))``."""
        value = operator.outputs[0] if operator.outputs else ""
        for _ in range(2):
            consumer = self._consumers.get(value)
            if consumer is None or not consumer.outputs:
                return None
            if consumer.op_type != "Mul":
                value = consumer.outputs[0]
                continue
            other = next((name for name in consumer.inputs if name != value), "")
            product = self._producers.get(other)
            names = product.inputs[:2] if product is not None and product.op_type == "Mul" else (other,)
            return next((tensor for name in names if (tensor := self._root(name)) is not None), None)
        return None

    def _gathered(self, name: str, scale: TensorInfo | None) -> TensorInfo | None:
        """Return the table under ``DequantizeLinear(Gather(table, ids))``, where one scale serves all rows."""
        producer = self._producers.get(name)
        if producer is None or producer.op_type != "Gather" or scale is None or scale.size != 1:
            return None
        return self._root(_input(producer, 0))

    def _root(self, name: str) -> TensorInfo | None:
        for _ in range(_STEPS):
            meter.charge(1, "looking for quantised weights")
            if name in self._stored:
                return self._stored[name]
            producer = self._producers.get(name)
            if producer is None or producer.op_type not in ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Cast"):
                return None
            name = _input(producer, 0)
        return None


def _input(operator: Operator, index: int) -> str:
    return operator.inputs[index] if index < len(operator.inputs) else ""
