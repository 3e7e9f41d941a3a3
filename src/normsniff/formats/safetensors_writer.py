"""Small arrays into a safetensors file; the rules of the format are in `normsniff.formats.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..dtypes import BY_CODE

_ALIGNMENT = 8  # of the data: readers map it


def write(file: BinaryIO, arrays: Mapping[str, NDArray[np.floating]], metadata: Mapping[str, str]) -> None:
    """Write floating-point arrays under their names, in their order.

    Args:
        file: open for writing, at the place where the safetensors file begins.
        arrays: float16, float32 or float64, any shape.
        metadata: the file's ``__metadata__``; left out if empty.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": BY_CODE[array.dtype.str[1:]], "shape": array.shape, "data_offsets": (start, end)}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())
