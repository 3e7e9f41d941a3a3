"""Where the kernel's arithmetic runs: numpy on the CPU, or CuPy on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

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
