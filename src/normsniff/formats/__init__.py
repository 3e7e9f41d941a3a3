"""One table of formats; a file is recognised by its content, never by its extension."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import FormatError, parsing
from ..limits import Limits
from ..source import ByteSource
from .checkpoint import Checkpoint

_PREFIX = 4096  # every test below decides on the first bytes; one page


def _is_safetensors(prefix: bytes, size: int) -> bool:
    # 8 + N must fit the file and the header must open an object: two bytes alone would match compressed data.
    if len(prefix) < 10:
        return False
    length = int.from_bytes(prefix[:8], "little")
    if 2 <= length <= size - 8:
        return prefix[8:].lstrip(b" \t\r\n")[:1] == b"{"
    return prefix[8:10] == b'{"' and size - 8 < length < 1 << 32  # cut off inside its header: the reader says so


def _is_gguf(prefix: bytes, _size: int) -> bool:
    return prefix[:4] == b"GGUF"


def _is_hdf5(prefix: bytes, _size: int) -> bool:
    # the signature may also follow a user block of 512, 1024, 2048 ... bytes
    return any(prefix[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024, 2048))


def _is_zip(prefix: bytes, _size: int) -> bool:
    return prefix[:4] == b"PK\x03\x04"


def _is_onnx(prefix: bytes, size: int) -> bool:
    """A ModelProto starts with small scalar fields; walk its first fields and demand that they make sense."""
    from .onnx import looks_like_model

    return looks_like_model(prefix, size)


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table: a name, a test on (first bytes, file size), and the module that has `read`."""

    name: str
    matches: Callable[[bytes, int], bool]
    module: str


# Order matters only for the last row: protobuf has no magic number, so every signature is tried before it.
FORMATS: tuple[Format, ...] = (
    Format("GGUF", _is_gguf, "normsniff.formats.gguf"),
    Format("Keras", _is_hdf5, "normsniff.formats.keras"),
    Format("Keras", _is_zip, "normsniff.formats.keras"),
    Format("safetensors", _is_safetensors, "normsniff.formats.safetensors"),
    Format("ONNX", _is_onnx, "normsniff.formats.onnx"),
)


def recognise(source: ByteSource) -> Format | None:
    """Return the format whose signature the first bytes of `source` bear, or None."""
    n = min(_PREFIX, source.size)
    prefix = bytes(source.read_at(0, n))
    source.bytes_read -= n  # the reader reads these bytes again and counts them
    return next((row for row in FORMATS if row.matches(prefix, source.size)), None)


def read_checkpoint(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse the header of one file, whatever format it is in.

    Raises:
        FormatError: no known format, or the file breaks the rules of its format.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    row = recognise(source)
    if row is None:
        raise FormatError("unknown-format", source.name, explain_unknown(source))
    module = importlib.import_module(row.module)
    with parsing(source.name):
        checkpoint: Checkpoint = module.read(source, limits)
    return checkpoint


def explain_unknown(source: ByteSource) -> str:
    """Say what a file that no format claims may be instead."""
    if source.size == 0:
        return "the file is empty"
    prefix = bytes(source.read_at(0, min(64, source.size)))
    if prefix.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the model: fetch the file with `git lfs pull`"
    if prefix.lstrip()[:1] in (b"{", b"<") or prefix.startswith((b"#", b"---")):
        return "a text file, not a model"
    return "not a format that normsniff reads (safetensors, GGUF, ONNX, Keras/HDF5)"
