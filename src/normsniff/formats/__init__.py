"""One table of formats; a file is recognised by its content, never by its extension."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from .. import meter, plugins
from ..checkpoint import MOST_AXES, Alarm, Checkpoint
from ..errors import FormatError, parsing
from ..limits import Limits
from ..source.local import ByteSource
from .row import Format, Shards

if TYPE_CHECKING:
    from .contained import Contained

__all__ = [
    "FORMATS",
    "SHARED_SUFFIXES",
    "Format",
    "Shards",
    "by_name",
    "explain_unknown",
    "plugged_in",
    "read_checkpoint",
    "recognise",
    "rows",
]

SHARED_SUFFIXES = frozenset({".bin", ".xml"})
"""Suffixes of models that other files have as well: they say nothing against a content, and a file of them that is
something else is no model."""

_PICKLES = "PyTorch"  # the format whose loaders run code
_LARGEST_AXIS = 2**63 - 1  # of every format that counts in 64 bits
_ANY_SIZE = 1 << 62  # of a file that may have been cut off anywhere
_PREFIX = 4096  # every test of the table decides on the first bytes; one page


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


def _is_ggml(prefix: bytes, _size: int) -> bool:
    return prefix[:4] in (b"lmgg", b"fmgg", b"tjgg")  # ggml, ggmf, ggjt


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


def _is_pytorch_distributed(prefix: bytes, _size: int) -> bool:
    return prefix[:1] == b"\x80" and b"torch.distributed.checkpoint.metadata" in prefix[2:200]


def _is_npy(prefix: bytes, _size: int) -> bool:
    return prefix[:6] == b"\x93NUMPY"


def _is_flax(prefix: bytes, size: int) -> bool:
    """MessagePack has no magic number: demand a map of text keys, or pairs of keys and bytes, that lead to an array."""
    # no map and no pair; before the import
    if not 0x80 <= (prefix or b"\0")[0] <= 0x8F and prefix[:1] not in (b"\xde", b"\xdf", b"\x92"):
        return False
    from .flax import looks_like_model

    return looks_like_model(prefix, size)


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


_CONFIG = ("config.json",)
_CONFIGS = ("config.json", "params.json", "adapter_config.json")  # the second is Mistral's, PEFT's names a base

# Recognised in this order, which matters only for the last row: of ONNX's protobuf any tag may be the first byte.
# Of two formats in one directory the upper one is preferred.
FORMATS: tuple[Format, ...] = (
    Format(
        "GGUF",
        _is_gguf,
        "normsniff.formats.gguf",
        suffixes=(".gguf", ".llamafile"),
        shards=Shards(numbered=".gguf", own=True),
    ),
    Format("ggml", _is_ggml, "normsniff.formats.ggml", suffixes=(".ggml",)),
    Format(
        "safetensors",
        _is_safetensors,
        "normsniff.formats.safetensors",
        suffixes=(".safetensors",),
        shards=Shards(".safetensors.index.json", ".safetensors"),
        configs=_CONFIGS,
        canonical=(
            "model.safetensors.index.json",
            "diffusion_pytorch_model.safetensors.index.json",
            "model.safetensors",
            "diffusion_pytorch_model.safetensors",
            "consolidated.safetensors",
        ),
        packed=True,
    ),
    Format(
        "Keras",
        _is_hdf5,
        "normsniff.formats.keras.reader",
        _is_keras_archive,
        suffixes=(".keras", ".h5", ".hdf5"),
        shards=Shards(".weights.json", own=True),
        configs=_CONFIG,
        own_config=True,
        canonical=("model.weights.json", "model.weights.h5", "tf_model.h5"),
        anatomy="keras",
    ),
    Format(
        "PyTorch",
        _is_pytorch_stream,
        "normsniff.formats.pytorch.reader",
        _is_pytorch_archive,
        suffixes=(".bin", ".pt", ".pth", ".ckpt", ".nemo"),
        shards=Shards(".bin.index.json", ".bin"),
        configs=_CONFIGS,
        canonical=(
            "pytorch_model.bin.index.json",
            "pytorch_model.bin",
            "diffusion_pytorch_model.bin",
            "consolidated.00.pth",
        ),
        packed=True,
    ),
    Format(
        "PyTorch DCP",
        _is_pytorch_distributed,
        "normsniff.formats.pytorch.distributed",
        pieces=".distcp",
        configs=_CONFIGS,
        canonical=(".metadata",),
        packed=True,
    ),
    Format(
        "Flax",
        _is_flax,
        "normsniff.formats.flax",
        suffixes=(".msgpack",),
        shards=Shards(".msgpack.index.json", ".msgpack"),
        configs=_CONFIG,
        canonical=("flax_model.msgpack.index.json", "flax_model.msgpack"),
    ),
    Format(
        "OpenVINO",
        _is_openvino,
        "normsniff.formats.openvino.reader",
        suffixes=(".xml",),
        beside=".bin",
        configs=_CONFIG,
        canonical=("openvino_model.xml",),
    ),
    Format(
        "CTranslate2",
        _is_ctranslate2,
        "normsniff.formats.ctranslate2",
        configs=_CONFIG,
        canonical=("model.bin",),
        anatomy="ctranslate2",
    ),
    Format(
        "NumPy", _is_npy, "normsniff.formats.numpy_files", _is_npz, suffixes=(".npz",), configs=_CONFIG, packed=True
    ),
    Format("TFLite", _is_tflite, "normsniff.formats.tflite.reader", suffixes=(".tflite",)),
    Format(
        "ONNX",
        _is_onnx,
        "normsniff.formats.onnx.reader",
        suffixes=(".onnx",),
        configs=("config.json", "onnx/../config.json"),  # Hugging Face repositories keep exports in a sub-folder
    ),
)

ARRAYS = Format("arrays", lambda _prefix, _size: False, "", packed=True)
"""What a caller hands over in memory: no file bears it."""


@cache
def plugged_in() -> tuple[Format, ...]:
    """Return the rows that installed packages offer under the entry-point group ``normsniff.formats``.

    Packages are searched only once a file is in no format of our own.
    """
    points = plugins.offered("formats").values()
    return tuple(plugins.load(point, Format, "a normsniff.formats.Format") for point in points)


def recognise(source: ByteSource, limits: Limits) -> Format | None:
    """Return the format whose signature the first bytes of `source` bear, or None.

    Built-in formats come first, then those of plug-ins; a zip archive is decided by its members alone, a tar archive
    and a program by the model inside.
    """
    row = _recognise_plain(source, limits)
    if row is not None:
        return row
    try:
        inside = _look_inside(source, limits)
    except FormatError:  # `explain_unknown` has the words
        return None
    return None if inside is None or inside.model is None else _recognise_plain(inside.model, limits)


def _recognise_plain(source: ByteSource, limits: Limits) -> Format | None:
    """Return the format of a file that is no archive of models."""
    prefix = bytes(source.read_at(0, min(_PREFIX, source.size)))
    if prefix[:4] == b"PK\x03\x04":
        return _recognise_archive(source, limits)
    return next((row for row in rows() if row.matches(prefix, source.size)), None)


def rows() -> Iterator[Format]:
    """Yield the formats that are known: our own, and only if the caller goes on those of plug-ins."""
    yield from FORMATS
    yield from plugged_in()


def by_name(name: str) -> Format | None:
    """Return the row of the format that `Checkpoint.format` names."""
    return ARRAYS if name == ARRAYS.name else next((row for row in rows() if row.name == name), None)


def _recognise_archive(source: ByteSource, limits: Limits) -> Format | None:
    """Decide by the names of members; the first one mostly tells and spares us the directory."""
    from . import archives

    first = archives.first_names(source)
    row = next((row for row in FORMATS if row.holds is not None and row.holds(first)), None)
    if row is not None:
        return row
    names = archives.all_names(source, limits)
    return next((row for row in rows() if row.holds is not None and row.holds(names)), None)


def read_checkpoint(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse the header of one file, whatever format it is in.

    Raises:
        FormatError: no known format, or the file breaks the rules of its format.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    row, inside = _recognise_plain(source, limits), None
    if row is None:
        inside = _look_inside(source, limits)
        row = None if inside is None or inside.model is None else _recognise_plain(inside.model, limits)
    if row is None:
        unknown = explain_unknown(source, limits)
        raise FormatError(unknown.code, source.name, unknown.reason)
    module = importlib.import_module(row.module)
    meter.grow(source.size)
    if inside is None or inside.model is None:
        checkpoint = _read(module.read, source, limits)
        return replace(checkpoint, alarms=(*checkpoint.alarms, *_disguise(row, source)))
    checkpoint = _read(module.read, inside.model, limits)
    settings = {} if "settings" in checkpoint.metadata or not inside.settings else {"settings": inside.settings}
    return replace(
        checkpoint,
        metadata={**checkpoint.metadata, **settings},
        sources=tuple(source if one is inside.model else one for one in checkpoint.sources),
        warnings=(*inside.notes, *checkpoint.warnings),
    )


def _disguise(row: Format, source: ByteSource) -> Iterator[Alarm]:
    """Yield an alarm if a file has the extension that belongs to another format: loaders and scanners go by it.

    Under the name of a pickle everybody expects the worst, so that nothing is hidden there: loaders fail, no more.
    """
    if source.path is None:
        return
    suffix = PurePath(source.path.name).suffix.lower()
    others = [other.name for other in FORMATS if suffix in other.suffixes]
    if others and row.name not in others and suffix not in SHARED_SUFFIXES:
        grave = _PICKLES not in others
        said = f"its content is {row.name}, its name ends in {suffix} as of {' or '.join(others)}"
        yield Alarm("disguised", grave, said if grave else f"{said}: loaders that go by it try to unpickle the file")


def _read(reader: Callable[[ByteSource, Limits], Checkpoint], source: ByteSource, limits: Limits) -> Checkpoint:
    with parsing(source.name):
        checkpoint = reader(source, limits)
    _check_shapes(checkpoint, source.name)
    return checkpoint


def _look_inside(source: ByteSource, limits: Limits) -> Contained | None:
    """Return what lies in a tar archive or a program; None for other files."""
    from .contained import look_inside

    suffixes = {suffix for row in rows() for suffix in row.suffixes}
    return look_inside(source, limits, suffixes, lambda inner: _recognise_plain(inner, limits) is not None)


def _check_shapes(checkpoint: Checkpoint, where: str) -> None:
    """Refuse axes that no array has; without elements they take no bytes, so that no size of a file bounds them."""
    for shape in dict.fromkeys([tensor.shape for tensor in checkpoint.tensors.values()]):  # layers repeat theirs
        if len(shape) > MOST_AXES or max(shape, default=0) > _LARGEST_AXIS:
            # its digits may be too many to be written, or to be rounded to a float
            said = (
                f"{len(shape)} axes"
                if len(shape) > MOST_AXES
                else f"an axis of 2^{max(shape).bit_length() - 1} or more"
            )
            name = next(tensor.name for tensor in checkpoint.tensors.values() if tensor.shape == shape)
            raise FormatError("bad-shape", f"{where} @ {name[:200]}", f"{said}, which no array has")


class Unknown(NamedTuple):
    """What a file is that no format claims.

    Attributes:
        code: of the error that it gives.
        reason: one sentence.
        is_model: whether its content says that it is a model, or was one before it was damaged; None if nothing does.
    """

    code: str
    reason: str
    is_model: bool | None = None


def explain_unknown(source: ByteSource, limits: Limits) -> Unknown:
    """Say what a file that no format claims may be instead."""
    if source.size == 0:
        return Unknown("unknown-format", "the file is empty")
    prefix = bytes(source.read_at(0, min(_PREFIX, source.size)))
    if prefix[:4] == b"PK\x03\x04":
        from . import archives

        names = archives.all_names(source, limits)
        return Unknown("unknown-format" if names else "truncated", archives.explain(names), False if names else None)
    from .refusals import refusal

    try:
        inside = _look_inside(source, limits)
    except FormatError as error:
        return Unknown(error.code, str(error).removeprefix(f"{source.name}: "))
    refused = refusal(source)
    if refused is not None:
        notes = () if inside is None else inside.notes
        return Unknown("unsupported", "; ".join((refused.reason, *notes)), refused.is_model)
    if prefix[:1] == b"\x80" and 2 <= int.from_bytes(prefix[1:2], "big") <= 5:
        return Unknown("unknown-format", "a pickle that is no PyTorch checkpoint; pickles are never loaded")
    if prefix.startswith(b"version https://git-lfs"):
        return Unknown(
            "unknown-format", "a Git LFS pointer, not the model: fetch the file with `git lfs pull`", is_model=True
        )
    if prefix.lstrip()[:1] in (b"{", b"<") or prefix.startswith((b"#", b"---")):
        return Unknown("unknown-format", "a text file, not a model")
    if _is_onnx(prefix, _ANY_SIZE):
        return Unknown("truncated", f"an ONNX model by its head, cut off at {source.size:,} bytes", is_model=True)
    if not any(prefix):
        return Unknown("truncated", "nothing but zeros at its start: a download that was never finished?")
    known = ", ".join(dict.fromkeys(row.name for row in FORMATS))
    return Unknown("unknown-format", f"not a format that normsniff reads ({known})")
