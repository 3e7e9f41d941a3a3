"""Arrays of any library: their namespace, where their arithmetic runs, and the way back to numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, MissingExtra

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def mover(device: Device) -> Callable[[Any], Any]:
    """Return a function that moves a numpy array to `device`.

    Raises:
        MissingExtra: ``cuda`` was asked for and CuPy is not installed.
        DeviceError: ``cuda`` was asked for and there is no working GPU, or the device is unknown.
    """
    if device == "cpu":
        return lambda array: array
    if device != "cuda":
        raise DeviceError(f"device {device!r} is not known; choose one of {', '.join(DEVICES)}")
    try:
        import cupy
    except ImportError as error:
        raise MissingExtra("gpu", "device 'cuda'") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own CUDARuntimeError, which exists only where CuPy does
        raise DeviceError(f"device 'cuda': no working GPU ({' '.join(str(error).split())[:120]})") from error
    if count == 0:
        raise DeviceError("device 'cuda': this machine has no GPU")
    move: Callable[[Any], Any] = cupy.asarray
    return move


def to_numpy(value: Any) -> NDArray[Any]:
    """Return an array of any library as a numpy array, off its graph and off its device."""
    if isinstance(value, np.ndarray):
        return value
    for method in ("detach", "cpu"):  # torch: off the autograd graph and off the device
        if hasattr(value, method):
            value = getattr(value, method)()
    try:
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except (TypeError, BufferError, RuntimeError):
        # CuPy wants its copies explicit; numpy does not know torch's bfloat16 and float8
        for method in ("get", "float"):
            if hasattr(value, method):
                return np.asarray(getattr(value, method)())
        raise


def namespace(*arrays: Any) -> Any:
    """Return the array-API namespace of the arrays."""
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np  # conforms since 2.0; array-api-compat's wrapper would import numpy.f2py and numpy.testing
    import array_api_compat

    return array_api_compat.array_namespace(*arrays)
