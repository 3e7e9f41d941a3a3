"""Make the file of a row: random weights under its names, in its container."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .table import Row, Tensor

Arrays = dict[str, NDArray[Any]]
State = Literal["trained", "fresh"]
STATES: tuple[State, State] = ("trained", "fresh")
_SPREAD = 0.2
"""Standard deviation of what training adds to a constant: scales of real models leave 1 by 0.1 to 0.5, shifts 0 by
about as much; smaller, and they would count as untrained."""


def arrays(row: Row, state: State = "trained") -> Arrays:
    """Draw the tensors of a row, the same ones every time.

    Args:
        row: what the file holds.
        state: ``fresh`` leaves scales and shifts at the constants they start from; ``trained`` moves them off. The
            matrices are random in both: no shadow of any norm lies in them.

    Returns:
        Arrays by name, in the order of the file.
    """
    generator = np.random.default_rng(int.from_bytes(row.name.encode(), "big") % 2**63)
    return {name: _draw(generator, tensor, state) for name, tensor in row.tensors.items()}


def _draw(generator: np.random.Generator, tensor: Tensor, state: State) -> NDArray[Any]:
    shape = tensor.shape
    if not tensor.dtype.startswith("float"):
        return np.full(shape, 0 if tensor.start == "random" else tensor.start, dtype=tensor.dtype)
    if tensor.start == "random":
        values = generator.normal(0.0, 1 / math.sqrt(max(math.prod(shape[1:]), 1)), shape)
    else:
        moved = _SPREAD if state == "trained" and tensor.trained and len(shape) > 0 else 0.0
        values = tensor.start + moved * generator.standard_normal(shape)
    return np.asarray(values, tensor.dtype)


def write(row: Row, directory: Path, state: State = "trained") -> Path:
    """Write the file of a row, and what lies beside it, into an empty directory.

    Returns:
        What to label: the file, or the directory where a ``config.json`` belongs to it.

    Raises:
        ImportError: the library that writes the container is not installed.
        ValueError: there is no such container.
    """
    try:
        writer = _WRITERS[row.container]
    except KeyError:
        raise ValueError(f"{row.name}: no container is called {row.container!r}") from None
    return writer(row, arrays(row, state), directory)


def _torch(row: Row, values: Arrays, directory: Path) -> Path:
    import torch

    def inside(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: inside(part) for key, part in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    path = directory / "checkpoint.pt"
    nested = values if row.sep == "." else _nested(values, row.sep)  # a state dict is flat
    torch.save(_wrapped(row, inside(nested)), path)
    return path


def _wrapped(row: Row, values: Any) -> Any:
    """Put a state dict under its keys, and beside the innermost of them what the file says of the network."""
    for depth, key in enumerate(reversed(row.wrapper)):
        values = {key: values} | (dict(row.beside) if depth + 1 == len(row.wrapper) else {})
    return values


def _safetensors(row: Row, values: Arrays, directory: Path) -> Path:
    from safetensors.numpy import save_file

    path = directory / "model.safetensors"
    save_file(values, path)
    if not row.beside:
        return path
    (directory / "config.json").write_text(json.dumps(row.beside), encoding="utf-8")
    return directory


def _npz(row: Row, values: Arrays, directory: Path) -> Path:
    path = directory / f"{row.name}.npz"
    with path.open("wb") as file:
        named: Any = values  # numpy's stubs take a name for that of an option
        np.savez(file, **named)
    return path


def _flax(row: Row, values: Arrays, directory: Path) -> Path:
    """Write as ``flax.serialization.to_bytes``: nested maps in msgpack, arrays as its extension type 1."""
    import msgpack

    def pack(value: Any) -> Any:
        content = (value.shape, value.dtype.name, value.tobytes())
        return msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True))

    path = directory / "flax_model.msgpack"
    path.write_bytes(msgpack.packb(_wrapped(row, _nested(values, row.sep)), default=pack))
    return path


def _stream(row: Row, values: Arrays, directory: Path) -> Path:
    """Write as EasyLM: a stream of pairs (key tuple, array as flax packs it), one after the other."""
    import msgpack

    path = directory / "streaming_params"
    with path.open("wb") as file:
        for name, value in values.items():
            content = (value.shape, value.dtype.name, value.tobytes())
            packed = msgpack.packb(msgpack.ExtType(1, msgpack.packb(content, use_bin_type=True)))
            file.write(msgpack.packb(((*row.wrapper, *name.split(row.sep)), packed)))
    return path


def _h5(row: Row, values: Arrays, directory: Path) -> Path:
    import h5py

    path = directory / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file.create_dataset("/".join((*row.wrapper, *name.split(row.sep))), data=value)
    return path


def _gguf(row: Row, values: Arrays, directory: Path) -> Path:
    import gguf

    path = directory / "model.gguf"
    writer = gguf.GGUFWriter(path, str(row.beside.get("general.architecture", "unknown")))
    for key, value in row.beside.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif key != "general.architecture":
            writer.add_string(key, str(value))
    for name, array in values.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _nested(values: Mapping[str, Any], sep: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *above, leaf = name.split(sep)
        node = tree
        for part in above:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


_WRITERS = {
    "torch": _torch,
    "safetensors": _safetensors,
    "npz": _npz,
    "flax": _flax,
    "flax stream": _stream,
    "h5": _h5,
    "gguf": _gguf,
}
