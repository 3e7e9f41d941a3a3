"""One table of formats; a file is recognised by its content, never by its extension."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache

from ..checkpoint import Checkpoint
from ..errors import FormatError, parsing
from ..limits import Limits
from ..source.local import ByteSource

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


def _is_keras_archive(names: Collection[str]) -> bool:
    return any(name.endswith(".weights.h5") and "/" not in name for name in names)


def _is_pytorch_archive(names: Collection[str]) -> bool:
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def _is_npz(names: Collection[str]) -> bool:
    return any(name.endswith(".npy") for name in names)


def _is_pytorch_stream(prefix: bytes, _size: int) -> bool:
    return prefix[:1] == b"\x80" and b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in prefix[2:24]


def _is_npy(prefix: bytes, _size: int) -> bool:
    return prefix[:6] == b"\x93NUMPY"


def _is_flax(prefix: bytes, size: int) -> bool:
    """MessagePack has no magic number: demand a map of text keys that leads to a map or an array."""
    from .flax import looks_like_model

    return looks_like_model(prefix, size)


def _not_by_bytes(_prefix: bytes, _size: int) -> bool:
    return False


def _is_onnx(prefix: bytes, size: int) -> bool:
    """A ModelProto starts with small scalar fields; walk its first fields and demand that they make sense."""
    from .onnx.reader import looks_like_model

    return looks_like_model(prefix, size)


def _is_ctranslate2(prefix: bytes, _size: int) -> bool:
    if prefix[1:4] != b"\0\0\0":  # before the import, which costs more than most headers
        return False
    from .ctranslate2 import looks_like_model

    return looks_like_model(prefix)


def _is_tflite(prefix: bytes, _size: int) -> bool:
    return prefix[4:8] == b"TFL3"


def _is_openvino(prefix: bytes, _size: int) -> bool:
    if prefix.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"<":
        return False
    from .openvino.reader import looks_like_model

    return looks_like_model(prefix)


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table.

    Attributes:
        name: as `Checkpoint.format` has it.
        matches: test on (first bytes, file size); not asked for zip archives.
        module: dotted name of the module that has `read`.
        holds: test on the names of the members, for formats that are zip archives.
    """

    name: str
    matches: Callable[[bytes, int], bool]
    module: str
    holds: Callable[[Collection[str]], bool] | None = None


# Order matters only for the last rows: protobuf and MessagePack have no magic number, so signatures go before them.
FORMATS: tuple[Format, ...] = (
    Format("GGUF", _is_gguf, "normsniff.formats.gguf"),
    Format("Keras", _is_hdf5, "normsniff.formats.keras.reader"),
    Format("Keras", _not_by_bytes, "normsniff.formats.keras.reader", _is_keras_archive),
    Format("PyTorch", _is_pytorch_stream, "normsniff.formats.pytorch.reader", _is_pytorch_archive),
    Format("NumPy", _is_npy, "normsniff.formats.numpy_files", _is_npz),
    Format("safetensors", _is_safetensors, "normsniff.formats.safetensors"),
    Format("TFLite", _is_tflite, "normsniff.formats.tflite.reader"),
    Format("CTranslate2", _is_ctranslate2, "normsniff.formats.ctranslate2"),
    Format("OpenVINO", _is_openvino, "normsniff.formats.openvino.reader"),
    Format("ONNX", _is_onnx, "normsniff.formats.onnx.reader"),
    Format("Flax", _is_flax, "normsniff.formats.flax"),
)


@cache
def plugged_in() -> tuple[Format, ...]:
    """Return the rows that installed packages offer under the entry-point group ``normsniff.formats``.

    Packages are searched only once a file is in no format of our own.
    """
    from importlib.metadata import entry_points

    rows = []
    for point in sorted(entry_points(group="normsniff.formats"), key=lambda point: point.name):
        with parsing(f"plug-in {point.name}"):
            row = point.load()
        if not isinstance(row, Format):
            raise FormatError("bad-plugin", f"plug-in {point.name}", f"{point.value} is not a normsniff.formats.Format")
        rows.append(row)
    return tuple(rows)


def recognise(source: ByteSource) -> Format | None:
    """Return the format whose signature the first bytes of `source` bear, or None.

    Built-in formats come first, then those of plug-ins; a zip archive is decided by its members alone.
    """
    prefix = bytes(source.read_at(0, min(_PREFIX, source.size)))
    if prefix[:4] == b"PK\x03\x04":
        return _recognise_archive(source)
    return next((row for row in _rows() if row.matches(prefix, source.size)), None)


def _rows() -> Iterator[Format]:
    yield from FORMATS
    yield from plugged_in()


def _recognise_archive(source: ByteSource) -> Format | None:
    """Decide by the names of members; the first one mostly tells and spares us the directory."""
    from . import archives

    for names, rows in ((archives.first_names(source), FORMATS), (archives.all_names(source), _rows())):
        for row in rows:
            if row.holds is not None and row.holds(names):
                return row
    return None


def read_checkpoint(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse the header of one file, whatever format it is in.

    Raises:
        FormatError: no known format, or the file breaks the rules of its format.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    row = recognise(source)
    if row is None:
        from .refusals import refusal

        code = "unknown-format" if refusal(source) is None else "unsupported"
        raise FormatError(code, source.name, explain_unknown(source))
    module = importlib.import_module(row.module)
    with parsing(source.name):
        checkpoint: Checkpoint = module.read(source, limits)
    return checkpoint


def explain_unknown(source: ByteSource) -> str:
    """Say what a file that no format claims may be instead."""
    if source.size == 0:
        return "the file is empty"
    prefix = bytes(source.read_at(0, min(512, source.size)))
    if prefix[:4] == b"PK\x03\x04":
        from . import archives

        return archives.explain(archives.all_names(source))
    from .refusals import refusal

    unsupported = refusal(source)
    if unsupported is not None:
        return unsupported
    if prefix[:1] == b"\x80" and 2 <= int.from_bytes(prefix[1:2], "big") <= 5:
        return "a pickle that is no PyTorch checkpoint; pickles are never loaded"
    if prefix.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the model: fetch the file with `git lfs pull`"
    if prefix.lstrip()[:1] in (b"{", b"<") or prefix.startswith((b"#", b"---")):
        return "a text file, not a model"
    known = ", ".join(dict.fromkeys(row.name for row in FORMATS))
    return f"not a format that normsniff reads ({known})"
