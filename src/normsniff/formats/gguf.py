"""GGUF: one forward walk over the header that steps over arrays instead of building them.

A vocabulary makes up nearly all of a GGUF header (hundreds of thousands of strings), and nothing here needs
it: array bodies are skipped, by arithmetic where their elements have one size, else string by string.

Layout (ggml docs/gguf.md): magic, version, counts, key-value pairs, tensor infos, padding to
`general.alignment`, tensor data. Version 1 has 32-bit counts, lengths and dimensions, versions 2 and 3
have 64-bit ones; big-endian files came with version 3. Dimensions are stored fastest first.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from .. import meter
from ..checkpoint import MOST_AXES, Checkpoint, TensorInfo
from ..dtypes import UNITS
from ..errors import FormatError, LimitExceeded
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import Extent
from ..words import amount
from .window import Window

_MAGIC = b"GGUF"  # these four bytes in this order, whatever the byte order of the rest
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = MOST_AXES  # ggml computes with 4, but files of video models store kernels with 5
_MAX_ELEMENTS = 2**63 - 1  # ggml counts in int64
_NAME_BYTES = 65_535  # the specification's bound for keys; ggml's own for tensor names is 63

TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
    # Not in UNITS. Removed types, and one whose block is 64 elements in ggml and 128 in the fork that wrote most files.
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8", 42: "Q2_0",
}  # fmt: skip


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Parse the header of one GGUF file (of one part, if the model is split; see `merge`).

    A tensor of a type whose block size is not known (removed from ggml, or of a fork) does not stop the
    reading: it gets the bytes up to the next tensor, a dtype outside `UNITS`, and a warning.

    Raises:
        FormatError: the file breaks the rules of GGUF, or ends before its last tensor does.
        LimitExceeded: the header asks for more than `limits` allows.
    """
    header = _HeaderGrammar(source, limits)
    n_tensors = header.count("tensors", limits.tensors, smallest=16)
    n_keys = header.count("metadata keys", limits.metadata_keys, smallest=5)
    metadata = header.metadata(n_keys)
    alignment: int = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if alignment <= 0 or alignment & (alignment - 1):
        header.window.fail("bad-alignment", f"general.alignment is {alignment}, not a power of two")
    if alignment % 8:  # ggml takes it all the same
        header.warnings.append(f"general.alignment is {alignment}; the specification asks for a multiple of 8")
    meter.charge_tensors(2 * n_tensors, "reading tensor infos")
    entries = [header.entry() for _ in range(n_tensors)]
    extents = _extents(source, entries, -(-header.window.position // alignment) * alignment, alignment)
    return Checkpoint(
        format="GGUF",
        version=str(header.version),
        tensors=_tensors(source, entries, extents, header.order),
        sources=(source,),
        header_sha256=header.window.digest(),
        metadata=metadata,
        warnings=(*header.warnings, *_opaque_warnings(entries)),
    )


def merge(parts: Sequence[Checkpoint]) -> Checkpoint:
    """Join the parts of a split model (``name-00001-of-00004.gguf`` ...) into one checkpoint.

    Parts are put in the order of their ``split.no``; the first one's metadata counts, as only it carries more
    than the split keys. The digest of several is the SHA-256 over the parts' digests. Missing parts become a warning.

    Raises:
        FormatError: two parts hold the same tensor or have the same number, or they disagree on their count.
    """
    if not parts:
        raise ValueError("merge needs at least one part")
    ordered = sorted(parts, key=lambda part: _integer(part.metadata, "split.no") or 0)
    warnings = [warning for part in ordered for warning in part.warnings] + _split_warnings(ordered)
    tensors: dict[str, TensorInfo] = {}
    for part in ordered:
        for name, tensor in part.tensors.items():
            if name in tensors:
                raise FormatError("duplicate-tensor", _part_name(part), f"tensor {_show(name)} is in two parts")
            tensors[name] = tensor
    digests = b"".join(bytes.fromhex(part.header_sha256) for part in ordered)
    return Checkpoint(
        format=ordered[0].format,
        version=ordered[0].version,
        tensors=tensors,
        sources=tuple(source for part in ordered for source in part.sources),
        header_sha256=hashlib.sha256(digests).hexdigest() if len(ordered) > 1 else ordered[0].header_sha256,
        metadata=ordered[0].metadata,
        warnings=tuple(warnings),
    )


def _split_warnings(parts: Sequence[Checkpoint]) -> list[str]:
    """Compare the parts at hand with what they say of themselves."""
    numbers = [n for part in parts if (n := _integer(part.metadata, "split.no")) is not None]
    counts = {n for part in parts if (n := _integer(part.metadata, "split.count")) is not None}
    if len(set(numbers)) < len(numbers):
        raise FormatError("bad-split", _part_name(parts[0]), f"two parts have the same split.no: {numbers[:16]}")
    if len(counts) > 1:
        detail = f"the parts disagree on split.count: {sorted(counts)[:16]}"
        raise FormatError("bad-split", _part_name(parts[0]), detail)
    if not counts or len(numbers) < len(parts):
        return ["parts without split.no or split.count: nothing tells whether the model is complete"]
    (count,) = counts
    if len(parts) > count:
        return [f"{len(parts)} parts of a model that says it has {count}"]
    if len(parts) < count:
        first = "" if 0 in numbers else ", the first one, which carries the metadata, among them"
        return [f"{count - len(parts)} of {count} parts are missing{first}"]
    found, expected = sum(len(part.tensors) for part in parts), _integer(parts[0].metadata, "split.tensors.count")
    if expected is not None and expected != found:
        return [f"the parts hold {found:,} tensors, split.tensors.count says {expected:,}"]
    return []


def _part_name(part: Checkpoint) -> str:
    return part.sources[0].name if part.sources else "split model"


def _integer(metadata: Mapping[str, Any], key: str) -> int | None:
    value = metadata.get(key)
    return value if type(value) is int else None


class _TensorEntry(NamedTuple):
    """A tensor info as stored, its dimensions reversed."""

    at: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int


class _HeaderGrammar:
    """The grammar of a header: what its parts look like in this version and byte order."""

    def __init__(self, source: ByteSource, limits: Limits) -> None:
        """Read the magic and the version."""
        self.window = Window(source, limits.header_bytes)
        self.warnings: list[str] = []
        self._limits = limits
        self._nested = limits.metadata_keys  # how many arrays inside arrays may still come
        if self.window.take(4) != _MAGIC:
            self.window.fail("bad-magic", "the file does not start with GGUF", 0)
        stored = self.window.take(4)
        # A small number in the other byte order has an empty lower half; this is how ggml tells, too.
        self.order = "<" if any(stored[:2]) else ">"
        self.version = int.from_bytes(stored, "little" if self.order == "<" else "big")
        if self.version not in (1, 2, 3):
            self.window.fail("bad-version", f"GGUF version {self.version}; known are 1, 2 and 3", 4)
        self._layouts = {kind: struct.Struct(self.order + code) for kind, code in _SCALARS.items()}
        self._length = self._layouts[_UINT32 if self.version == 1 else _UINT64]
        # What follows the number of dimensions in a tensor info: the dimensions, the type, the offset.
        length = "I" if self.version == 1 else "Q"
        self._entries = [struct.Struct(f"{self.order}{n}{length}IQ") for n in range(_MAX_DIMENSIONS + 1)]

    def length(self) -> int:
        """Read a count, a length or a dimension."""
        value: int = self.window.unpack(self._length)[0]
        return value

    def count(self, what: str, most: int, smallest: int) -> int:
        """Read a count of things that take at least one length and `smallest` more bytes each."""
        value = self.length()
        self.window.check_count(what, value, most, self._length.size + smallest)
        return value

    def metadata(self, count: int) -> dict[str, Any]:
        """Read the key-value pairs: scalars and strings as they are, of arrays the length."""
        metadata: dict[str, Any] = {}
        for _ in range(count):
            meter.charge(4, "reading metadata")
            at, key, kind = self.window.position, self._name("key"), self._uint32()
            meter.hold(200 + len(key), "reading metadata")
            if key in metadata:
                self.window.fail("duplicate-key", f"the key {_show(key)} occurs twice", at)
            if key == "general.alignment" and kind != _UINT32:
                self.window.fail("bad-alignment", f"general.alignment has the value type {kind}, not uint32", at)
            if kind == _STRING:
                metadata[key] = self._text(key)
            elif kind == _ARRAY:
                metadata[key] = ("array", self._skip_array(key, depth=1))
            elif kind in _SCALARS:
                (metadata[key],) = self.window.unpack(self._layouts[kind])
            else:
                self.window.fail("bad-value-type", f"{_show(key)} has the unknown value type {kind}", at)
        return metadata

    def entry(self) -> _TensorEntry:
        """Read one tensor info."""
        at, name, n_dims = self.window.position, self._name("tensor name"), self._uint32()
        if n_dims > _MAX_DIMENSIONS:
            self.window.fail("bad-shape", f"tensor {_show(name)} has {n_dims:,} dimensions", at)
        *dims, kind, offset = self.window.unpack(self._entries[n_dims])
        shape = tuple(dims[::-1])
        if math.prod([n or 1 for n in shape]) > _MAX_ELEMENTS:  # an empty axis must not hide another that overflows
            self.window.fail("bad-shape", f"tensor {_show(name)} has the impossible shape {shape}", at)
        return _TensorEntry(at, name, shape, TYPES.get(kind, f"ggml-type-{kind}"), offset)

    def _uint32(self) -> int:
        value: int = self.window.unpack(self._layouts[_UINT32])[0]
        return value

    def _name(self, what: str) -> str:
        at, n = self.window.position, self.length()
        if n > _NAME_BYTES:
            self.window.fail("bad-name", f"a {what} of {n:,} bytes (at most {_NAME_BYTES:,})", at)
        try:
            return self.window.take(n).decode()
        except UnicodeDecodeError:
            self.window.fail("bad-text", f"a {what} is not valid UTF-8", at)

    def _text(self, key: str) -> str:
        n = self.length()
        self.window.check_count(f"bytes of {_show(key)}", n, self._limits.value_bytes, smallest=1)
        meter.hold(n, "reading metadata")
        data = self.window.take(n)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.warnings.append(f"the value of {_show(key)} is not valid UTF-8; bad bytes were replaced")
            return data.decode(errors="replace")

    def _skip_array(self, key: str, depth: int) -> int:
        kind, count = self._uint32(), self.length()
        meter.charge(3 + (count // 10 if kind == _STRING else 0), "reading metadata")
        what, most = f"elements of {_show(key)}", self._limits.metadata_values
        if kind == _STRING:
            self.window.check_count(what, count, most, smallest=self._length.size)
            self.window.skip_prefixed(self._length, count)
        elif kind == _ARRAY:
            # Legal, never seen. Each costs a call, so all of them in the file share a budget.
            self.window.check_count(what, count, self._nested, smallest=self._length.size + 4)
            self._nested -= count
            if depth >= self._limits.nesting:
                raise LimitExceeded(self.window.source.name, "nested arrays", self._limits.nesting, depth + 1)
            for _ in range(count):
                self._skip_array(key, depth + 1)
        elif kind in _SCALARS:
            size = self._layouts[kind].size
            self.window.check_count(what, count, most, smallest=size)
            self.window.skip(count * size)
        else:
            self.window.fail("bad-value-type", f"{_show(key)} is an array of the unknown value type {kind}")
        return count


def _tensors(
    source: ByteSource, entries: Sequence[_TensorEntry], extents: Sequence[Extent], order: str
) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for entry, extent in zip(entries, extents, strict=True):
        if entry.name in tensors:
            _refuse("duplicate-tensor", source, entry, "occurs twice")
        tensors[entry.name] = TensorInfo(entry.name, entry.dtype, entry.shape, extent, order)
    return tensors


def _opaque_warnings(entries: Sequence[_TensorEntry]) -> list[str]:
    counts = Counter(entry.dtype for entry in entries if entry.dtype not in UNITS)
    return [f"{amount(n, 'tensor')} of type {dtype}, whose layout is not known" for dtype, n in counts.most_common(16)]


def _extents(source: ByteSource, entries: Sequence[_TensorEntry], data_start: int, alignment: int) -> list[Extent]:
    """Work out the byte ranges, which must lie inside the file and apart from each other."""
    starts: list[int] = []
    stops: list[int] = []
    for entry in entries:
        if entry.offset % alignment:
            _refuse("bad-offset", source, entry, f"starts at {entry.offset}, not a multiple of {alignment}")
        starts.append(data_start + entry.offset)
        stops.append(data_start + entry.offset + _stored_bytes(source, entry))
    places = sorted(range(len(entries)), key=lambda i: (starts[i], stops[i]))
    for rank, i in enumerate(places):
        if entries[i].dtype not in UNITS and 0 not in entries[i].shape:
            after = places[rank + 1 : rank + 2]
            stops[i] = starts[after[0]] if after else max(source.size, starts[i] + 1)
            if stops[i] == starts[i]:
                _refuse("overlap", source, entries[i], "starts where another tensor starts")
    if stops and max(stops) > source.size:
        short = [entries[i] for i in places if stops[i] > source.size]
        raise FormatError(
            "truncated",
            f"{source.name} @ {source.size}",
            f"the file ends here and {max(stops) - source.size:,} of {max(stops):,} bytes are missing: "
            f"{len(short):,} of {len(entries):,} tensors are incomplete, {_show(short[0].name)} is the first",
        )
    for i, following in itertools.pairwise(places):
        if stops[i] > starts[following]:
            _refuse("overlap", source, entries[following], f"overlaps tensor {_show(entries[i].name)}")
    return [Extent(source, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _stored_bytes(source: ByteSource, entry: _TensorEntry) -> int:
    """Return the size of a tensor; 0 if its type does not tell."""
    elements, unit = UNITS.get(entry.dtype, (1, 0))
    row = entry.shape[-1] if entry.shape else 1
    if row % elements:
        _refuse("bad-shape", source, entry, f"has rows of {row}, not a multiple of the {elements} of {entry.dtype}")
    return math.prod(entry.shape) // elements * unit


def _refuse(code: str, source: ByteSource, entry: _TensorEntry, detail: str) -> NoReturn:
    raise FormatError(code, f"{source.name} @ {entry.at}", f"tensor {_show(entry.name)} {detail}")


def _show(name: str) -> str:
    """Quote a name from the file for a message: one line, not too long."""
    return repr(name if len(name) <= 80 else name[:77] + "...")
