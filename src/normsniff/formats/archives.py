"""Zip archives: their directory, and one member as a source of its own. Nothing is unpacked to a path.

Names of members are keys here, never places in a file system.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

from .. import meter
from ..errors import FormatError, LimitExceeded, parsing
from ..limits import Limits
from ..source.local import ByteSource, BytesSource
from ..source.views import SourceFile, WindowSource

SIGNATURE = b"PK\x03\x04"
_DIRECTORY_BYTES = 1 << 24  # about 150,000 members; a .keras file has ten, a PyTorch file one a tensor
_LEAST_ENTRY = 60  # bytes of an entry of the directory, with a name of 14
_ENTRY_STEPS, _ENTRY_BYTES = 8, 700  # that zipfile takes for one
_SPOOL_BYTES = 1 << 26  # inflated members above this go to a temporary file
_STEP = 1 << 20
_SMALL = 1 << 14  # a small member may exceed the ratio without cost: JSON of repeated layers compresses well
_LOCAL_HEADER = struct.Struct("<4s22xHH")

# what a zip that no format claims may be: (end of a member's name, words); first match wins
_OTHERS = (
    ("data.pkl", "a PyTorch zip archive without its tensors"),
    ("saved_model.pb", "an archive of a TensorFlow SavedModel: not supported"),
    (".mlmodel", "a Core ML package: not supported"),
    ("META-INF/MANIFEST.MF", "a Java archive, not a model"),
    ("[Content_Types].xml", "an Office document, not a model"),
    ("/archive_format", "a program of torch.export (.pt2): save the state_dict() of the module instead"),
    (".safetensors", "an archive of safetensors files: unpack it first"),
    (".gguf", "an archive of GGUF files: unpack it first"),
    (".onnx", "an archive of ONNX files: unpack it first"),
)


def directory(source: ByteSource, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """Return the members of a zip archive by name, in the order of its directory.

    Raises:
        FormatError: no directory at the end of the file, or two members have one name.
        LimitExceeded: the directory is larger than `limits` allows.
    """
    with parsing(source.name):
        try:
            with zipfile.ZipFile(_DirectoryFile(source, largest=_DIRECTORY_BYTES)) as archive:
                listed = archive.infolist()
        except zipfile.BadZipFile as error:
            raise FormatError(
                "bad-archive", source.name, f"the zip directory at its end is missing or broken (cut off?): {error}"
            ) from error
    if len(listed) > limits.tensors:
        raise LimitExceeded(source.name, "members of an archive", limits.tensors, len(listed))
    members = {info.filename: info for info in listed}
    if len(members) != len(listed):
        raise FormatError("duplicate-key", source.name, "two members of the archive have the same name")
    return members


class _DirectoryFile(SourceFile):
    """What zipfile reads the directory through: what it will make of the bytes is charged before it has them."""

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; see `SourceFile`."""
        entries = min(len(memoryview(buffer)), self.size) // _LEAST_ENTRY
        meter.charge(_ENTRY_STEPS * entries, "reading the directory of an archive")
        meter.hold(_ENTRY_BYTES * entries, "reading the directory of an archive")
        return super().readinto(buffer)


def first_names(source: ByteSource) -> Collection[str]:
    """Return the name of the first member, as its local header has it: one page instead of the directory."""
    start = bytes(source.read_at(0, min(1 << 12, source.size)))
    length = int.from_bytes(start[26:28], "little")
    return [start[30 : 30 + length].decode("utf-8", "replace")]


def all_names(source: ByteSource, limits: Limits) -> Collection[str]:
    """Return the names of all members; none where the directory is broken, which is the reader's to report.

    Raises:
        LimitExceeded: the directory is larger than `limits` allows.
    """
    try:
        return directory(source, limits)
    except FormatError:
        return []


def explain(names: Collection[str]) -> str:
    """Say what an archive with these members may be."""
    if not names:
        return "a zip archive without its directory: the file is cut off or damaged"
    if any(name.endswith("weights.npz") for name in names):
        return "its weights are in an .npz of pickled objects, which are never loaded; save it again with HDF5 weights"
    for end, words in _OTHERS:
        if any(name.endswith(end) for name in names):
            return words
    return "a zip archive that holds no model of Keras (model.weights.h5), PyTorch (data.pkl) or NumPy (.npy)"


def window(source: ByteSource, info: zipfile.ZipInfo) -> WindowSource:
    """Return the stored bytes of a member, compressed or not.

    Raises:
        FormatError: the member is encrypted, or does not lie in the file.
    """
    where = f"{source.name}!{info.filename}"
    if info.flag_bits & 0x1:
        raise FormatError("encrypted", where, "the member is encrypted")
    at = info.header_offset
    header = bytes(source.read_at(at, 30)) if 0 <= at <= source.size - 30 else b""
    if header[:4] != SIGNATURE:
        raise FormatError("bad-offset", f"{where} @ {at}", "no local file header there")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = at + 30 + name_length + extra_length
    if start + info.compress_size > source.size:
        raise FormatError("truncated", f"{where} @ {start}", f"{info.compress_size:,} bytes do not fit in the file")
    return WindowSource(source, start, info.compress_size, info.filename)


def extent(source: ByteSource, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return the byte range of a member that is stored as it is.

    Raises:
        FormatError: it is compressed, encrypted, or does not lie in the file.
    """
    stored = window(source, info)
    where = f"{source.name}!{info.filename}"
    if info.compress_type != zipfile.ZIP_STORED:
        raise FormatError("unsupported", where, "the member is compressed, which this format does not do")
    if info.compress_size != info.file_size:
        raise FormatError("bad-size", where, "stored uncompressed, but with two different sizes")
    return stored.start, stored.start + stored.size


def member(source: ByteSource, info: zipfile.ZipInfo, limits: Limits, largest: int) -> ByteSource:
    """Return a member as a source: a window if it is stored as it is, inflated within bounds otherwise.

    Raises:
        FormatError: the member is encrypted, packed in an unknown way, or not what the directory says.
        LimitExceeded: it is larger than `largest`, or inflates more than `limits` allows.
    """
    where = f"{source.name}!{info.filename}"
    check_size(where, info, limits, largest)
    if info.compress_type == zipfile.ZIP_STORED:
        extent(source, info)
        return window(source, info)
    return BytesSource(inflate(source, info, info.file_size), where)


def check_size(where: str, info: zipfile.ZipInfo, limits: Limits, largest: int) -> None:
    """Refuse a member by what the directory says of it.

    Raises:
        FormatError: it is packed in an unknown way.
        LimitExceeded: it is larger than `largest`, or inflates more than `limits` allows.
    """
    if info.file_size > largest:
        raise LimitExceeded(where, "bytes of an archive member", largest, info.file_size)
    if info.compress_type == zipfile.ZIP_STORED:
        return
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise FormatError("unsupported", where, f"zip compression method {info.compress_type}")
    if info.file_size > limits.inflation_ratio * max(info.compress_size, _SMALL):
        ratio = info.file_size // max(info.compress_size, 1)
        raise LimitExceeded(where, "inflation ratio of an archive member", limits.inflation_ratio, ratio)


def inflate(source: ByteSource, info: zipfile.ZipInfo, n: int) -> memoryview:
    """Inflate the first `n` bytes of a deflated member; a large result goes to an unnamed temporary file.

    Raises:
        FormatError: the data are damaged, or of another size than the directory says.
    """
    packed, where = window(source, info), f"{source.name}!{info.filename}"
    inflater, size, checksum = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    whole = n == info.file_size
    with parsing(where), tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        for at in range(0, packed.size, _STEP):
            pending: bytes | memoryview = packed.read_at(at, min(_STEP, packed.size - at))
            full = False  # then more may come out of what went in: the end of a repetition, which takes no further byte
            while (pending or full) and not inflater.eof and (whole or size < n):
                piece = inflater.decompress(pending, _STEP)
                pending, full = inflater.unconsumed_tail, len(piece) == _STEP
                size += len(piece)
                meter.charge(len(piece) >> 8, "inflating")  # 250 MB a second
                if size > info.file_size:
                    raise FormatError("bad-size", where, f"inflates to more than the declared {info.file_size:,} bytes")
                checksum = zlib.crc32(piece, checksum)
                spool.write(piece)
            if not whole and size >= n:
                break
        if size < n or (whole and checksum != info.CRC):
            raise FormatError("bad-size", where, f"inflates to {size:,} bytes or to other bytes than declared")
        if size > _SPOOL_BYTES:
            spool.flush()
            return memoryview(mmap.mmap(spool.fileno(), size, access=mmap.ACCESS_READ))[:n]
        spool.seek(0)
        return memoryview(spool.read())[:n]
