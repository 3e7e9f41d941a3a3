"""Tar archives: names of the members, and where they lie. Nothing is unpacked, and nothing that is compressed is read.

Names are keys here, never places in a file system. Layout: POSIX.1-2001 pax interchange format, and GNU's long names.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import meter
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource

SIGNATURE, SIGNATURE_AT = b"ustar", 257
_BLOCK = 512
_TEXT_BYTES = 1 << 16  # of a long name or of extended headers; a path has at most 4096
_REGULAR = b"0\x007"
_WITHOUT_DATA = b"123456"  # links, devices, directories: whatever size they claim


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path there, as stored, without a leading ``./``.
        start: offset of its first byte.
        size: its bytes.
    """

    name: str
    start: int
    size: int


def members(source: ByteSource, limits: Limits) -> list[Member]:
    """Return the regular files of an archive, in order; one header is read of each.

    Raises:
        FormatError: a header that is none, a member that does not lie in the file, a sparse one.
        LimitExceeded: there are more members than `limits` allows.
    """
    found: list[Member] = []
    at, seen = 0, 0
    name, size = "", -1  # what extended headers say of the next member
    while at + _BLOCK <= source.size:
        meter.charge(30, "members of an archive")
        header = bytes(source.read_at(at, _BLOCK))
        if not any(header):
            break
        where = f"{source.name} @ {at}"
        _check(header, where)
        kind, length = header[156:157], _number(header[124:136], where)
        if kind in b"xL" and kind:
            text = _text(source, at + _BLOCK, length)
            given, stated = _extended(text, where) if kind == b"x" else (_word(text), -1)
            name, size = given or name, max(size, stated)
            at += _BLOCK + _padded(length)
            continue
        if kind == b"S":
            raise FormatError("unsupported", where, "a sparse file in a tar archive")
        seen += 1
        if seen > limits.files:
            raise LimitExceeded(where, "members of an archive", limits.files, seen)
        length = 0 if kind in _WITHOUT_DATA and kind else size if size >= 0 else length
        start = at + _BLOCK
        if start + length > source.size:
            missing = start + length - source.size
            raise FormatError("truncated", where, f"{missing:,} bytes of {(name or _name(header))[:200]} are missing")
        if kind in _REGULAR or not kind:
            found.append(Member((name or _name(header)).removeprefix("./"), start, length))
        at = start + _padded(length)
        name, size = "", -1
    return found


def _check(header: bytes, where: str) -> None:
    """Compare the checksum: the sum of all bytes, its own field taken for spaces."""
    if _number(header[148:156], where) != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise FormatError("bad-header", where, "no header of a tar archive: its checksum is another")


def _number(field: bytes, where: str) -> int:
    if field[0] == 0x80:  # GNU's form of what does not fit eleven octal digits
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not all(digit in b"01234567" for digit in digits):
        raise FormatError("bad-header", where, "a number in a tar header that is not octal")
    return int(digits or b"0", 8)


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _word(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _name(header: bytes) -> str:
    prefix = _word(header[345:500]) if header[257:263] == b"ustar\0" else ""  # GNU keeps times there
    return f"{prefix}/{_word(header[:100])}" if prefix else _word(header[:100])


def _text(source: ByteSource, at: int, length: int) -> bytes:
    if length > _TEXT_BYTES:
        raise LimitExceeded(f"{source.name} @ {at}", "bytes of an extended header", _TEXT_BYTES, length)
    if at + length > source.size:
        raise FormatError("truncated", f"{source.name} @ {at}", "an extended header is cut off")
    return bytes(source.read_at(at, length))


def _extended(text: bytes, where: str) -> tuple[str, int]:
    """Return path and size that records ``length key=value`` state; "" and -1 where they do not."""
    name, size = "", -1
    at = 0
    while at < len(text) and text[at]:
        digits, space, _ = text[at : at + 8].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        if not len(digits) + 3 <= length <= len(text) - at:
            raise FormatError("bad-header", where, "an extended header whose lengths do not add up")
        key, _, value = text[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "replace")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
        elif key.startswith(b"GNU.sparse"):
            raise FormatError("unsupported", where, "a sparse file in a tar archive")
        at += length
    return name, size
