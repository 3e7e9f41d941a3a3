"""The names of dtypes, what one stored unit takes, and what numpy calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# dtype name -> (elements, bytes) of the smallest unit that can be read on its own. Names are those of
# safetensors for plain types and of ggml for block types.
# Sources: safetensors README "Format"; ggml `GGML_QUANT_SIZES` in gguf-py constants.py (checked against it by a test).
UNITS: Mapping[str, tuple[int, int]] = {
    "BOOL": (1, 1), "U8": (1, 1), "I8": (1, 1), "U16": (1, 2), "I16": (1, 2), "U32": (1, 4), "I32": (1, 4),
    "U64": (1, 8), "I64": (1, 8), "F16": (1, 2), "BF16": (1, 2), "F32": (1, 4), "F64": (1, 8), "C64": (1, 8),
    "C128": (1, 16), "F8_E5M2": (1, 1), "F8_E4M3": (1, 1), "F8_E8M0": (1, 1), "F8_E4M3FNUZ": (1, 1),
    "F8_E5M2FNUZ": (1, 1), "F4": (2, 1), "I4": (2, 1), "U4": (2, 1), "I2": (4, 1), "U2": (4, 1),
    "F6_E2M3": (4, 3), "F6_E3M2": (4, 3),
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
    "Q8_1": (32, 40), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210), "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82), "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}  # fmt: skip

NUMPY: Mapping[str, str] = {
    "BOOL": "b1", "U8": "u1", "I8": "i1", "U16": "u2", "I16": "i2", "U32": "u4", "I32": "i4", "U64": "u8", "I64": "i8",
    "F16": "f2", "F32": "f4", "F64": "f8",
}  # fmt: skip
"""Real types that numpy has, by numpy's code without its byte order."""

COMPLEX: Mapping[str, str] = {"C64": "c8", "C128": "c16"}
"""Complex types, likewise. They are stored in some files and are weights in none."""

ML_DTYPES: Mapping[str, str] = {
    "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""Types of whole bytes that numpy lacks, by their name in the package ml_dtypes."""

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Plain floats: what scales and shifts are stored in. float64 holds every value of them exactly."""

INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
"""Whole numbers: positions, masks and counters, unless a scale beside them makes them weights."""

BY_CODE: Mapping[str, str] = {code: name for name, code in {**NUMPY, **COMPLEX}.items()}
"""Our names by numpy's codes."""

BY_NAME: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
    "complex128": "C128", **{word: name for name, word in ML_DTYPES.items()},
}  # fmt: skip
"""Our names by those that numpy, ml_dtypes, torch, JAX and TensorFlow share."""


def numpy_type(dtype: str, byteorder: str = "<") -> np.dtype[Any]:
    """Return the type of one stored element.

    Args:
        dtype: a key of `NUMPY`, `COMPLEX` or `ML_DTYPES`.
        byteorder: ``"<"`` or ``">"``.

    Raises:
        KeyError: the dtype is none of these.
    """
    import numpy as np

    code = NUMPY.get(dtype) or COMPLEX.get(dtype)
    if code is not None:
        return np.dtype(byteorder + code)
    import ml_dtypes

    kind: np.dtype[Any] = np.dtype(getattr(ml_dtypes, ML_DTYPES[dtype]))
    return kind.newbyteorder(">" if byteorder == ">" else "<")
