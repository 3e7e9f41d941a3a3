"""safetensors: an 8-byte length, a JSON header, then the data. Only the header is read.

The rules are those of the format's README and of `Metadata::validate` in its reference implementation,
plus one of the README that no implementation enforces: no key may occur twice. (JSON libraries keep the
last of two, so two readers could see two different models in one file.)
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import msgspec

from .. import meter
from ..checkpoint import MOST_AXES, Checkpoint, TensorInfo
from ..dtypes import UNITS
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import Extent

# README "Format" and `Dtype` in safetensors/src/tensor.rs (0.8.0).
DTYPES = frozenset(
    {
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
        "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    }
)  # fmt: skip


class _HeaderValue(msgspec.Struct, gc=False):
    """One value of the header. The strings let `__metadata__` pass, whose values are strings under any key."""

    dtype: str | None = None
    shape: tuple[int, ...] | str | None = None
    data_offsets: tuple[int, int] | str | None = None


_ENTRIES = msgspec.json.Decoder(dict[str, _HeaderValue])
_RAW_VALUES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRINGS = msgspec.json.Decoder(dict[str, str])


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse the header and check that it accounts for every byte of the file.

    Raises:
        FormatError: the file breaks a rule of the format, or bytes are missing at its end.
        LimitExceeded: the header is larger than `limits` allows.
    """
    prefix, header = _header(source, limits)
    entries, metadata = _parse(source.name, header, limits)
    data = len(prefix) + len(header)
    tensors: dict[str, TensorInfo] = {}
    sizes: dict[tuple[str, tuple[int, ...]], int] = {}  # layers repeat their shapes
    cursor = 0
    for start, stop, name, dtype, shape in _in_order(source.name, entries):
        expected = sizes.get((dtype, shape))
        if expected is None:
            expected = sizes[dtype, shape] = _bytes_of(source.name, name, dtype, shape)
        if start != cursor or stop != start + expected:
            raise _misplaced(_where(source.name, name), cursor, start, stop, expected)
        tensors[name] = TensorInfo(name, dtype, shape, Extent(source, data + start, data + stop))
        cursor = stop
    _check_end(source, data + cursor)
    return Checkpoint(
        format="safetensors",
        version=None,
        tensors=tensors,
        sources=(source,),
        header_sha256=hashlib.sha256(prefix + header).hexdigest(),
        metadata=metadata,
    )


def _where(file: str, tensor: str) -> str:
    return f"{file} @ {tensor[:200]}"


def _header(source: ByteSource, limits: Limits) -> tuple[bytes, bytes]:
    if source.size < 10:  # a length and "{}"
        raise FormatError("truncated", f"{source.name} @ 0", f"{source.size} bytes cannot hold a safetensors header")
    prefix = bytes(source.read_at(0, 8))
    length = int.from_bytes(prefix, "little")
    if length > limits.header_bytes:
        raise LimitExceeded(f"{source.name} @ 0", "bytes of the header", limits.header_bytes, length)
    if length > source.size - 8:
        missing = length - (source.size - 8)
        raise FormatError(
            "truncated", f"{source.name} @ 8", f"the header is cut off: {missing:,} of its {length:,} bytes are missing"
        )
    return prefix, bytes(source.read_at(8, length))


def _parse(file: str, header: bytes, limits: Limits) -> tuple[dict[str, _HeaderValue], dict[str, str]]:
    _check_cost(file, header, limits)
    metadata: dict[str, str] = {}
    raw = b""
    try:
        header.decode()  # values that are skipped are not checked by the decoder
        entries = _ENTRIES.decode(header)
        if "__metadata__" in entries:
            del entries["__metadata__"]
            raw = bytes(_RAW_VALUES.decode(header)["__metadata__"])
            if len(raw) > limits.value_bytes:
                raise LimitExceeded(f"{file} @ __metadata__", "bytes of metadata", limits.value_bytes, len(raw))
            metadata = _STRINGS.decode(raw)
    except UnicodeDecodeError as error:
        raise FormatError("bad-text", f"{file} @ {8 + error.start}", "the header is not valid UTF-8") from error
    except msgspec.ValidationError as error:
        raise FormatError("bad-header", f"{file} @ 8", f"a header entry has a wrong type: {error}") from error
    except msgspec.DecodeError as error:
        raise FormatError("bad-header", f"{file} @ 8", f"the header is not a JSON object: {error}") from error
    if not _is_free_of_duplicates(header, raw, len(entries)):
        json.loads(header, object_pairs_hook=lambda pairs: _unique(file, pairs))
    elif raw:
        json.loads(raw, object_pairs_hook=lambda pairs: _unique(file, pairs))
    return entries, metadata


def _check_cost(file: str, header: bytes, limits: Limits) -> None:
    """Bound what the decoders may build. Marks inside strings count too, which real metadata can afford."""
    objects = header.count(b"{")  # one a tensor, the header and its metadata
    if objects - 2 > limits.tensors:
        raise LimitExceeded(f"{file} @ 8", "tensors", limits.tensors, objects - 2)
    meter.charge_tensors(max(objects - 1, 0), "reading the header")
    values = header.count(b",") + header.count(b"[")  # ten for a tensor of five axes
    meter.charge(values // 5, "reading the header")
    meter.hold(len(header) + 40 * values, "reading the header")
    allowed = 12 * limits.tensors + 100_000
    if values > allowed:
        raise LimitExceeded(f"{file} @ 8", "values of the header", allowed, values)


def _is_free_of_duplicates(header: bytes, metadata: bytes, n: int) -> bool:
    """Prove by counting that no key outside `__metadata__` occurs twice; False means "look closely".

    Decoding keeps one of two equal keys, but the text shows both. Where no string is escaped, each of the
    `n` tensors shows one brace and each of its three keys once, and a lost entry or key shows as a surplus.
    This is ten times faster than looking at every pair.
    """

    def count(mark: bytes) -> int:
        return header.count(mark) - metadata.count(mark)

    return (
        not count(b"\\")
        and count(b"{") == n + 1
        and all(count(mark) == n for mark in (b'"dtype"', b'"shape"', b'"data_offsets"'))
    )


def _unique(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None on purpose
        raise FormatError("duplicate-key", _where(file, twice), "the key occurs twice in the header")
    return unique


def _in_order(file: str, entries: dict[str, _HeaderValue]) -> list[tuple[int, int, str, str, tuple[int, ...]]]:
    """Return (start, stop, name, dtype, shape) in the order of the data."""
    rows = []
    for name, entry in entries.items():
        dtype, shape, offsets = entry.dtype, entry.shape, entry.data_offsets
        if type(dtype) is not str or type(shape) is not tuple or type(offsets) is not tuple:
            raise FormatError("bad-header", _where(file, name), "dtype, shape and data_offsets are needed")
        rows.append((*offsets, name, dtype, shape))
    rows.sort()
    return rows


def _misplaced(where: str, cursor: int, start: int, stop: int, expected: int) -> FormatError:
    if start != cursor:
        what = "a hole is before it" if start > cursor else "it overlaps the tensor before it"
        return FormatError("bad-offset", where, f"starts at {start:,}, not at {cursor:,}: {what}")
    return FormatError("bad-size", where, f"{stop - start:,} bytes are given to it, its shape needs {expected:,}")


def _bytes_of(file: str, name: str, dtype: str, shape: tuple[int, ...]) -> int:
    if dtype not in DTYPES:
        raise FormatError("bad-dtype", _where(file, name), f"{dtype[:40]!r} is not a safetensors dtype")
    if len(shape) > MOST_AXES or (shape and min(shape) < 0):
        raise FormatError("bad-shape", _where(file, name), f"{len(shape)} axes, or a negative one")
    elements, unit = UNITS[dtype]
    stored, rest = divmod(math.prod(shape) * unit, elements)
    if rest:
        raise FormatError("bad-shape", _where(file, name), f"{dtype} {list(shape)} does not fill whole bytes")
    return stored


def _check_end(source: ByteSource, end: int) -> None:
    if end > source.size:
        raise FormatError(
            "truncated",
            f"{source.name} @ {source.size}",
            f"the file is cut off: {end - source.size:,} of {end:,} bytes are missing at its end",
        )
    if end < source.size:
        raise FormatError(
            "trailing-bytes", f"{source.name} @ {end}", f"{source.size - end:,} bytes follow the last tensor"
        )
