"""HDF5 files for tests: written by h5py in every style that it knows, and changed where structure is.

`changed` knows what it touches: addresses that lead elsewhere, counts and sizes at their ends, nodes that overwrite
each other. That is what killed libhdf5; random bytes mostly hit weights.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from random import Random
from typing import Any

import h5py
import numpy as np

VERSIONS: dict[str, Any] = {
    "earliest": "earliest",
    "v108": ("v108", "v108"),
    "v110": ("v110", "v110"),
    "v112": ("v112", "v112"),
    "latest": "latest",
}
SIGNATURES = (
    b"TREE", b"SNOD", b"HEAP", b"OHDR", b"OCHK", b"GCOL", b"FRHP", b"FHDB", b"FHIB", b"BTHD", b"BTLF", b"BTIN",
    b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EASB", b"EADB",
)  # fmt: skip
_EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 17, 32, 127, 128, 255)
_FAR = (0, 8, 2**16, 2**31, 2**32 - 1, 2**63, 2**64 - 8, 2**64 - 1)


def write(fill: Callable[[h5py.File], Any], **options: Any) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def low_level(file: h5py.File, name: str, values: Any, kind: Any = None, **options: Any) -> None:
    """Write a dataset with settings that h5py's own call does not have: `layout`, `alloc_time`, `chunk`."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for setting, value in options.items():
        if setting != "most":
            getattr(plan, f"set_{setting}")(value)
    kind = kind or h5py.h5t.py_create(values.dtype)
    space = h5py.h5s.create_simple(values.shape, options.get("most", values.shape))
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, plan)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values, None if h5py.h5t.py_create(values.dtype) == kind else kind)


def keras(file: h5py.File, layers: int = 2) -> None:
    """Write weights as Keras 3 does, with every kind of storage that a file of weights may have."""
    file.attrs["keras_version"] = "3.5"
    file.attrs["model_config"] = json.dumps({"class_name": "M", "config": {"layers": []}})
    file.attrs["layer_names"] = np.array([b"a", b"bc"])
    for i in range(layers):
        group = file.create_group(f"layers/layer_normalization_{i}/vars")
        group["0"], group["1"] = np.ones(8, "f4"), np.zeros(8, "f4")
        group.attrs["name"] = f"n{i}"
    group = file.create_group("layers/dense/vars")
    values = np.random.default_rng(0).normal(size=(32, 32))
    group.create_dataset("0", data=values, chunks=(8, 16), compression="gzip", shuffle=True, fletcher32=True)
    group.create_dataset("1", data=np.ones(32), chunks=(4,), maxshape=(None,))
    group.create_dataset("2", data=np.zeros((8, 8), "V2"))
    group["2"].attrs["dtype"] = "bfloat16"
    group.create_dataset("3", data=values, chunks=(8, 8), maxshape=(None, None))
    group.create_dataset("4", data=values, chunks=(8, 8), maxshape=(40, 40))
    for k in range(12):  # dense storage, with large objects
        group.attrs[f"x{k}"] = "v" * (k * 40)
        group.attrs[f"y{k}"] = np.bytes_(b"w" * (1 + k * 500))
    for k in range(20):
        group[f"more{k}"] = np.float32(k)


@cache
def seeds() -> dict[str, bytes]:
    """Return files to change, by words for them."""
    found = {}
    for words, version in VERSIONS.items():
        for layers in (2, 18):
            found[f"{words}, {layers} layers"] = write(partial(keras, layers=layers), libver=version)
    return found


@lru_cache(maxsize=64)
def _places(data: bytes) -> tuple[list[int], list[tuple[int, int]]]:
    """Return where structures start, and where addresses stand and what they are."""
    starts = [0, 48, 64, 96]
    for signature in SIGNATURES:
        at = data.find(signature)
        while at >= 0 and len(starts) < 4000:
            starts.append(at)
            at = data.find(signature, at + 4)
    headers = re.finditer(rb"\x01\0[\x01-\x14]\0\x01\0\0\0", data)  # of objects, in version 1
    starts += [match.start() for match in headers if match.start() % 8 == 0]
    values = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8).copy().view("<u8")[:, 0]
    near = np.zeros(len(values), bool)
    for start in starts:
        near[start : start + 200] = True
    places = np.flatnonzero(near & (values >= 48) & (values < len(data)) & (values % 8 == 0))
    return starts, [(int(at), int(values[at])) for at in places]


def changed(random: Random, data: bytes) -> bytes:
    """Return the file with one to three changes of its structure."""
    starts, addresses = _places(data)
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.randrange(7)
        start = random.choice(starts)
        if kind <= 2 and addresses:  # an address leads elsewhere
            at, value = random.choice(addresses)
            far = random.choice((*starts, *_FAR, at, len(data)))
            target = random.choice(addresses)[1] if random.random() < 0.7 else far
            target = target if random.random() < 0.5 else value + random.choice((-8, 1, 8, 40))
            result[at : at + 8] = struct.pack("<Q", target % 2**64)
        elif kind == 3:  # a number at its ends
            at, width = start + 4 + random.randrange(40), random.choice((1, 2, 4, 8))
            result[at : at + width] = random.choice((b"\xff" * width, bytes(width), b"\1" + bytes(width - 1)))
        elif kind == 4:  # a structure over another one
            other, size = random.choice(starts), random.choice((8, 16, 32, 64, 200, 512))
            if max(start, other) + size <= len(data):
                result[start : start + size] = result[other : other + size]
        elif kind == 5:
            result[(start + random.randrange(120)) % len(data)] = random.choice((*_EDGES, random.randrange(256)))
        else:
            at, width = start + 8 + random.randrange(80), random.choice((1, 2, 4))
            result[at : at + width] = random.randbytes(width)
    return bytes(result[: len(data)]) if random.random() < 0.95 else bytes(result[: random.randrange(len(data))])


def every_change(data: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield the file with every address led to every kind of structure, or nowhere: cycles, above all."""
    starts, addresses = _places(data)
    targets = sorted({*starts[:: max(len(starts) // 8, 1)], 0, len(data) - 8, 2**64 - 1})
    for at, _ in addresses[::step]:
        for target in (*targets, at - at % 8):
            result = bytearray(data)
            result[at : at + 8] = struct.pack("<Q", target)
            yield bytes(result)
