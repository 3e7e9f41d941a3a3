"""Checkpoints with packed weights: the logical matrices in place of what stores them, and no side tensor left over.

A layout is used only if every shape agrees with it; otherwise the matrix is left out, with a warning that says why.
Norms are not quantised in any of these schemes and stay as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import decode, json_text, meter
from ..checkpoint import Checkpoint, Slab, TensorInfo
from ..errors import BudgetSpent, NormsniffError, parsing
from ..limits import Limits
from ..source.views import Extent
from .marks import PACKED_MARKS
from .slabs import Bnb4, Fp4, Gptq, Grouped, Scaled

# Tensors beside a packed weight, by what follows the module's name.
_SIDES = (
    "qzeros", "g_idx", "scales", "biases", "SCB", "weight_format", "weight_scale", "weight_scale_inv", "weight_scale_2",
    "weight_packed", "weight_shape", "weight_zero_point", "weight_global_scale", "input_global_scale", "weight_g_idx",
    "input_scale", "activation_scale", "qweight", "weight.absmax", "weight.quant_map", "weight.nested_absmax",
    "weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4",
)  # fmt: skip
_LONGEST_STATE = 4096  # bytes of bitsandbytes' quant_state; real ones have about 200
_SHOWN = 3
_MARK_STEPS = 15  # to look for all that may lie beside a packed weight
_ELEMENTS_A_STEP = 64
"""Dequantised in a step: an element takes 4 (AWQ) to 33 ns (GPTQ). With two bits an element that is 0.06 steps a byte,
of the 0.1 that there are where all of a file is wanted."""

_Sides = Mapping[str, TensorInfo]


class _Uncertain(NormsniffError):  # noqa: N818 - never leaves this module
    """Why a layout is not taken for certain."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Logical:
    """A weight as the network uses it."""

    shape: tuple[int, ...]
    dtype: str
    slab: Slab


def unpack(checkpoint: Checkpoint, limits: Limits) -> Checkpoint:
    """Replace packed weights by logical ones that dequantise what is asked for; drop what is only beside them.

    Reads a few hundred bytes a matrix for schemes that store shapes (bitsandbytes, compressed-tensors), else nothing.
    """
    tensors = checkpoint.tensors
    marked = [name for name in tensors if name.endswith(PACKED_MARKS)]
    found: dict[str, TensorInfo] = {}
    gone: set[str] = set()
    left_out: Counter[str] = Counter()
    for mark in meter.counted(marked, "looking for packed weights", _MARK_STEPS):
        module, sides = _sides_of(mark, tensors)
        if mark in gone or not sides:
            continue
        name = module if mark.endswith("_blocks") else f"{module}.weight"
        try:
            with parsing(mark):
                logical = _logical(sides, checkpoint.config or {}, module, limits)
        except BudgetSpent:
            raise
        except NormsniffError as error:
            left_out[str(error)] += 1
        else:
            if logical is None:
                continue  # a name like those of packed weights, and nothing else
            found[name] = TensorInfo(name, logical.dtype, logical.shape, _Guarded(name, logical.slab))
        gone.update(side.name for side in sides.values())
    kept = {name: tensor for name, tensor in tensors.items() if name not in gone}
    notes = [f"{n:,} packed weights left out: {why}" for why, n in left_out.most_common(_SHOWN)]
    return dataclasses.replace(checkpoint, tensors={**kept, **found}, warnings=(*checkpoint.warnings, *notes))


def _sides_of(mark: str, tensors: Mapping[str, TensorInfo]) -> tuple[str, _Sides]:
    """Return the module that a mark belongs to, and what lies in it by role."""
    if mark.endswith("_blocks"):
        stem = mark.removesuffix("_blocks")
        both = {"blocks": tensors[mark], "scales": tensors.get(f"{stem}_scales")}
        return stem, {key: tensor for key, tensor in both.items() if tensor is not None} if both["scales"] else {}
    end = next(end for end in PACKED_MARKS if mark.endswith(end))
    module = mark.removesuffix(end)
    sides = {side: tensors[f"{module}.{side}"] for side in _SIDES if f"{module}.{side}" in tensors}
    if (weight := tensors.get(f"{module}.weight")) is not None:
        sides["weight"] = weight
    return module, sides


def _logical(sides: _Sides, config: Mapping[str, Any], module: str, limits: Limits) -> _Logical | None:
    settings = config.get("quantization_config")
    settings = settings if isinstance(settings, Mapping) else {}
    if "blocks" in sides:
        return _mxfp4(sides, limits)
    if "qweight" in sides:
        return _gptq(sides, settings, limits)
    if "weight.absmax" in sides:
        return _bnb4(sides, limits)
    if "weight_packed" in sides:
        return _fp4(sides, limits) if sides["weight_packed"].dtype == "U8" else _pack_quantized(sides, limits)
    weight = sides.get("weight")
    if weight is None or len(weight.shape) != 2:
        return None
    if weight.dtype == "U32" and "scales" in sides:
        return _mlx(sides, config, module, limits)
    if weight.dtype == "U8" and "weight_scale_2" in sides:
        return _fp4({**sides, "weight_packed": weight}, limits)
    for key in ("SCB", "weight_scale_inv", "weight_scale"):
        if key in sides and weight.dtype in ("I8", "F8_E4M3", "F8_E5M2"):
            return _scaled(weight, sides[key], settings, 127.0 if key == "SCB" else 1.0, limits)
    return None


def _demand(true: bool, why: str) -> None:
    if not true:
        raise _Uncertain(why)


# --- one function a scheme ---------------------------------------------------------------------------------------


def _gptq(sides: _Sides, settings: Mapping[str, Any], limits: Limits) -> _Logical:
    words, scales, zeros = sides["qweight"], sides.get("scales"), sides.get("qzeros")
    _demand(scales is not None and zeros is not None and len(words.shape) == 2, "qweight without scales and qzeros")
    assert scales is not None
    assert zeros is not None
    _demand(words.dtype == "I32" and len(scales.shape) == len(zeros.shape) == 2, "qweight in an unknown layout")
    _demand(words.size > 0, "qweight without elements")
    n_groups, out = scales.shape
    awq = words.shape[1] * 8 == out
    if awq:
        bits: Any = 4
        inputs = words.shape[0]
    else:
        _demand(words.shape[1] == out, "qweight and scales do not fit each other")
        order = sides.get("g_idx")
        bits = settings.get("bits")
        if order is not None and len(order.shape) == 1 and words.shape[0]:
            bits = 32 * words.shape[0] // max(order.shape[0], 1)
        _demand(isinstance(bits, int) and bits in (2, 4, 8), "qweight of an unknown number of bits")
        inputs = words.shape[0] * (32 // bits)
    _demand(zeros.shape == (n_groups, out * bits // 32), "qzeros do not fit the scales")
    _demand(n_groups > 0 and inputs % n_groups == 0, "groups that do not divide the inputs")
    groups: TensorInfo | int = inputs // n_groups
    if not awq and "g_idx" in sides:
        _demand(sides["g_idx"].shape == (inputs,), "g_idx does not fit qweight")
        groups = _flat(sides["g_idx"])
    offset = 0 if awq or settings.get("checkpoint_format") == "gptq_v2" else 1
    slab = Gptq(limits, words, zeros, scales, groups, bits, awq, offset)
    return _Logical((out, inputs), _width(bits), slab)


def _bnb4(sides: _Sides, limits: Limits) -> _Logical:
    weight, absmax, codes = sides.get("weight"), sides["weight.absmax"], sides.get("weight.quant_map")
    state = next((sides[key] for key in sides if "quant_state" in key), None)
    _demand(weight is not None and codes is not None and state is not None, "4-bit weight without its quant_state")
    assert weight is not None
    assert codes is not None
    assert state is not None
    _demand(state.size <= _LONGEST_STATE, "an oversized quant_state")
    _demand(weight.dtype == "U8" and codes.size == 16, "4-bit weight in an unknown layout")
    try:
        told = json_text.decode(decode.read(state, limits).astype(np.uint8).tobytes(), "a quantisation state")
        shape = tuple(int(n) for n in told["shape"])
        block = int(told["blocksize"])
        nested = None
        if "nested_offset" in told:
            scale, code = sides["weight.nested_absmax"], sides["weight.nested_quant_map"]
            nested = (scale, code, int(told["nested_blocksize"]), float(told["nested_offset"]))
            _demand(nested[2] > 0 and scale.size * nested[2] >= absmax.size and code.size <= 256, "nested absmax")
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise _Uncertain("a quant_state that cannot be read") from error
    _demand(len(shape) == 2 and min(shape) > 0 and math.prod(shape) == 2 * weight.size, "quant_state and weight differ")
    _demand(block > 0 and -(-math.prod(shape) // block) == absmax.size, "absmax does not fit the weight")
    if nested is not None:
        nested = (_flat(nested[0]), _flat(nested[1]), *nested[2:])
    return _Logical(shape, "I4", Bnb4(limits, _flat(weight), _flat(codes), _flat(absmax), shape, block, nested))


def _pack_quantized(sides: _Sides, limits: Limits) -> _Logical:
    words, scales, stored = sides["weight_packed"], sides.get("weight_scale"), sides.get("weight_shape")
    _demand("weight_zero_point" not in sides and "weight_g_idx" not in sides, "weight_packed with zero points")
    _demand(scales is not None and stored is not None and stored.size == 2, "weight_packed without scale or shape")
    assert scales is not None
    assert stored is not None
    _demand(words.dtype == "I32" and len(words.shape) == 2 and len(scales.shape) == 2, "weight_packed: unknown layout")
    rows, columns = (int(n) for n in decode.read(stored, limits).reshape(-1))
    bits = next((b for b in (4, 8, 2) if -(-columns * b // 32) == words.shape[1]), None)
    _demand(
        bits is not None and columns > 0 and words.shape[0] == rows == scales.shape[0], "weight_packed and its shape"
    )
    assert bits is not None
    _demand(scales.shape[1] > 0 and columns % scales.shape[1] == 0, "groups that do not divide the inputs")
    group = columns // scales.shape[1]
    return _Logical((rows, columns), _width(bits), Grouped(limits, words, scales, None, bits, group, 1 << (bits - 1)))


def _mlx(sides: _Sides, config: Mapping[str, Any], module: str, limits: Limits) -> _Logical:
    words, scales, biases = sides["weight"], sides["scales"], sides.get("biases")
    settings = config.get("quantization")
    settings = settings if isinstance(settings, Mapping) else {}
    own = settings.get(module)
    settings = own if isinstance(own, Mapping) else settings
    bits, group = settings.get("bits"), settings.get("group_size")
    _demand(
        isinstance(bits, int) and isinstance(group, int), "MLX weights without bits and group_size in a config.json"
    )
    assert isinstance(bits, int)
    assert isinstance(group, int)
    _demand(
        bits in (2, 4, 8) and group > 0 and settings.get("mode", "affine") == "affine", f"MLX weights of {bits} bits"
    )
    _demand(
        biases is not None and biases.shape == scales.shape and len(scales.shape) == 2, "MLX weights without biases"
    )
    columns = words.shape[1] * 32 // bits
    _demand(scales.shape == (words.shape[0], columns // group) and columns % group == 0, "MLX weight and scales differ")
    return _Logical((words.shape[0], columns), _width(bits), Grouped(limits, words, scales, biases, bits, group, 0))


def _scaled(
    weight: TensorInfo, scales: TensorInfo, settings: Mapping[str, Any], divisor: float, limits: Limits
) -> _Logical:
    rows, columns = weight.shape
    given = settings.get("weight_block_size")
    shape = scales.shape if len(scales.shape) == 2 else (scales.size, 1)
    block = (0, 0)
    if scales.size == rows and shape[-1] == 1 and rows > 1:
        block = (1, 0)
    elif scales.size != 1:
        size = given if isinstance(given, list) and len(given) == 2 else [128, 128]
        _demand(all(isinstance(n, int) and n > 0 for n in size), "FP8 blocks of an unknown size")
        fits = shape == (-(-rows // size[0]), -(-columns // size[1]))
        _demand(fits, "FP8 scales that do not fit blocks of the size that the configuration gives, or of 128")
        block = (size[0], size[1])
    scales = _reshaped(scales, shape)
    return _Logical((rows, columns), "F8_E4M3", Scaled(limits, weight, scales, block, divisor))


def _mxfp4(sides: _Sides, limits: Limits) -> _Logical | None:
    words, scales = sides["blocks"], sides["scales"]
    if words.dtype != "U8" or scales.dtype not in ("U8", "F8_E8M0") or len(words.shape) not in (3, 4):
        return None
    _demand(words.shape[-1] == 16 and words.shape[:-1] == scales.shape, "MXFP4 blocks and scales differ")
    *lead, rows, groups, _ = words.shape
    shape = (*lead, rows, 32 * groups)
    flat = math.prod(lead) * rows
    slab = Fp4(
        limits, _reshaped(words, (flat, 16 * groups)), _reshaped(scales, (flat, groups), "U8"), shape, 32, True, _one
    )
    return _Logical(shape, "I4", slab)


def _fp4(sides: _Sides, limits: Limits) -> _Logical:
    words, scales = sides["weight_packed"], sides.get("weight_scale")
    _demand(scales is not None and len(words.shape) == 2, "weight_packed without block scales")
    assert scales is not None
    rows, columns = words.shape[0], 2 * words.shape[1]
    if scales.dtype in ("U8", "F8_E8M0"):  # MXFP4, as compressed-tensors stores it
        _demand(scales.shape == (rows, columns // 32) and columns % 32 == 0, "MXFP4 weight and scales differ")
        exponents = _reshaped(scales, scales.shape, "U8")
        return _Logical((rows, columns), "I4", Fp4(limits, words, exponents, (rows, columns), 32, True, _one))
    _demand(scales.dtype == "F8_E4M3", "weight_packed with block scales of an unknown type")
    _demand(scales.shape == (rows, columns // 16) and columns % 16 == 0, "NVFP4 weight and scales differ")
    whole, inverse = sides.get("weight_scale_2"), sides.get("weight_global_scale")
    _demand(sum(t is not None and t.size == 1 for t in (whole, inverse)) == 1, "NVFP4 without its global scale")
    return _Logical(
        (rows, columns), "I4", Fp4(limits, words, scales, (rows, columns), 16, False, _factor(whole, inverse, limits))
    )


# --- small parts -------------------------------------------------------------------------------------------------


def _one() -> float:
    return 1.0


def _factor(whole: TensorInfo | None, inverse: TensorInfo | None, limits: Limits) -> Callable[[], float]:
    def factor() -> float:
        if whole is not None:
            return float(decode.read(whole, limits).reshape(-1)[0])
        assert inverse is not None
        with np.errstate(divide="ignore"):
            return float(1 / decode.read(inverse, limits).reshape(-1)[0])

    return factor


def _width(bits: int) -> str:
    """A dtype that costs as much to read; the slab yields floats whatever it is called."""
    return {2: "I2", 4: "I4", 8: "F8_E4M3"}[bits]


def _flat(tensor: TensorInfo) -> TensorInfo:
    """The same values as one row."""
    return _reshaped(tensor, (1, tensor.size))


def _reshaped(tensor: TensorInfo, shape: tuple[int, ...], dtype: str | None = None) -> TensorInfo:
    """The same values under another shape."""
    if isinstance(tensor.storage, Extent):
        return TensorInfo(tensor.name, dtype or tensor.dtype, shape, tensor.storage, tensor.byteorder)
    return TensorInfo(tensor.name, dtype or tensor.dtype, shape, _Reshaped(tensor, shape, dtype), tensor.byteorder)


@dataclasses.dataclass(frozen=True, slots=True)
class _Guarded:
    """A slab over numbers that nobody has checked: whatever goes wrong is the file's fault."""

    name: str
    slab: Slab

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        meter.charge(5 + math.prod(one.stop - one.start for one in index) // _ELEMENTS_A_STEP, "unpacking weights")
        with parsing(self.name), np.errstate(all="ignore"):
            return self.slab.read(index)


@dataclasses.dataclass(frozen=True, slots=True)
class _Reshaped:
    """An array of a library under another shape; its leading axes are merged, so that rows stay rows."""

    tensor: TensorInfo
    shape: tuple[int, ...]
    dtype: str | None

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        assert not isinstance(self.tensor.storage, Extent)
        values = np.asarray(self.tensor.storage.read(tuple(slice(0, n) for n in self.tensor.shape)))
        if self.dtype == "U8" and values.dtype.itemsize == 1:
            values = values.view(np.uint8)
        return values.reshape(self.shape)[index]
