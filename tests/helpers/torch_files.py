"""Files of torch.save, written opcode by opcode where needed, so that no test depends on torch."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

VALUES = np.arange(12, dtype=np.float32)
FLOATS = VALUES.tobytes()
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Ask:
    """Pickles as a call of a function that need not exist."""

    def __init__(self, module: str, name: str, *arguments: Any, state: Any = None, new: bool = False) -> None:
        self.module, self.name, self.arguments, self.state, self.new = module, name, arguments, state, new


class Global:
    """Pickles as a name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Outside:
    """Pickles as a persistent id."""

    def __init__(self, key: Any) -> None:
        self.key = key


def dumps(value: Any) -> bytes:
    """A pickle of protocol 2 with the shapes that PyTorch writes."""
    return b"\x80\x02" + code(value) + b"."


def code(value: Any) -> bytes:
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Ask):
        called = code(Global(value.module, value.name)) + code(value.arguments) + (b"\x81" if value.new else b"R")
        return called if value.state is None else called + code(value.state) + b"b"
    if isinstance(value, Outside):
        return code(value.key) + b"Q"
    if isinstance(value, dict):
        return b"}(" + b"".join(code(key) + code(inner) for key, inner in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(code, value)) + b"e"
    if isinstance(value, bytes):
        return value  # opcodes as they are
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    return pickle.dumps(value, 2)[2:-1]


def storage(kind: str, key: str, count: int, *view: Any) -> Outside:
    module = "torch.storage" if kind == "UntypedStorage" else "torch"
    return Outside(("storage", Global(module, kind), key, "cpu", count, *view))


def tensor(key: str, shape: Any, strides: Any, offset: Any = 0, kind: str = "FloatStorage", count: int = 12) -> Ask:
    hooks = Ask("collections", "OrderedDict")
    return Ask("torch._utils", "_rebuild_tensor_v2", storage(kind, key, count), offset, shape, strides, False, hooks)


def archive(
    value: Any,
    data: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    records: dict[str, bytes] | None = None,
) -> bytes:
    """The zip file of torch.save; `value` may be the bytes of a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", value if isinstance(value, bytes) else dumps(value))
        for name, content in {"version": b"3\n", **(records or {})}.items():
            file.writestr(f"archive/{name}", content)
        for key, content in (data if data is not None else {"0": FLOATS}).items():
            file.writestr(f"archive/data/{key}", content)
    return buffer.getvalue()


def stream(value: Any, storages: dict[str, tuple[int, bytes]] | None = None, protocol: int = PROTOCOL) -> bytes:
    """The older file of torch.save."""
    parts = [pickle.dumps(one, 2) for one in (MAGIC, protocol, {"little_endian": True})]
    parts.append(value if isinstance(value, bytes) else dumps(value))
    default = {"0": (12, FLOATS)} if b"storage" in parts[3] else {}
    found = default if storages is None else storages
    parts.append(pickle.dumps(list(found), 2))
    parts += [struct.pack("<q", count) + data for count, data in found.values()]
    return b"".join(parts)
