"""The files of ggml before GGUF: whisper.cpp's, and what llama.cpp and its many relatives wrote until summer 2023.

A magic number, then a header that every program has made up for itself (sizes, mel filters, a vocabulary) and that says
neither its own length nor whose it is; then tensors to the end of the file, and those all programs write alike: number
of axes, length of the name, type; sizes, fastest first; name; in ``ggjt`` files padding to 32 bytes; data. So no header
is read: the first tensor is where a chain of tensors begins that ends exactly where the file does.

Sources: whisper.cpp models/convert-pt-to-ggml.py; ggml examples (gpt-2, gpt-j, mpt, starcoder); llama.cpp before
August 2023; rwkv.cpp.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from .. import meter
from ..checkpoint import Checkpoint, TensorInfo
from ..dtypes import UNITS
from ..errors import FormatError, LimitExceeded, parsing
from ..limits import Limits
from ..source.local import ByteSource
from ..source.views import Extent
from ..words import amount
from .gguf import TYPES

MAGICS: Mapping[bytes, str] = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt"}
"""Written as little-endian numbers, so that their letters stand in reverse; the last two have a version after it."""

_RECORD = struct.Struct("<3i")
_ALIGNMENT = 32  # of data in ggjt files, so that they can be mapped
_MAX_DIMENSIONS = 4
_NAME_BYTES = 255  # the longest seen have 80; only the last byte of the length is compared in a search
_NAME = re.compile(rb"[\x21-\x7e]+")
_HEADER_BYTES = 1 << 25  # a vocabulary of 256,000 words takes 4 MB
_FIRST, _LARGEST = 1 << 14, 1 << 20  # windows of the search double from the one to the other
# Blocks until May 2023 (llama.cpp #1508): their scales were float32 still. Quantised files say with their type which
# they are, but in a header; the sizes of all tensors together say it as well.
_BLOCKS_OF_2023: Mapping[str, tuple[int, int]] = {
    "Q4_0": (32, 20), "Q4_1": (32, 24), "Q4_2": (16, 10), "Q4_3": (16, 12), "Q8_0": (32, 36),
}  # fmt: skip


class _Record(NamedTuple):
    """A tensor as stored, its sizes reversed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Find the tensors of a file.

    Args:
        source: the file.
        limits: caps on its tensors.

    Returns:
        A checkpoint of format ``"ggml"``. Tensors in the block layouts of before May 2023 get a dtype outside of
        `UNITS`, and a warning.

    Raises:
        FormatError: no chain of tensors leads to the end of the file, or two have one name.
        LimitExceeded: there are more tensors than `limits` allows.
    """
    with parsing(source.name):
        magic = MAGICS[bytes(source.read_at(0, 4))]
        alignment = _ALIGNMENT if magic == "ggjt" else 1
        chains = [_Chain(source, limits, alignment, dated) for dated in (False, True)]
        for at in _starts(source):
            for chain in chains:
                if chain.leads_to_the_end(at):
                    return _checkpoint(source, magic, at, chain)
    raise FormatError(
        "unsupported",
        f"{source.name} @ {min(source.size, _HEADER_BYTES)}",
        f"a {magic} file in which no tensor was found from which others lead to its end: it is cut off, or the program "
        "that wrote it lays out tensors in its own way; convert it to GGUF, or use the checkpoint it was made from",
    )


class _Chain:
    """Tensors one after the other, under one reading of what blocks take and where data begins."""

    def __init__(self, source: ByteSource, limits: Limits, alignment: int, dated: bool) -> None:
        self.ends: dict[int, _Record] = {}  # by where it starts
        self.dated = dated
        self._source = source
        self._limits = limits
        self._alignment = alignment
        self._dead: set[int] = set()  # offsets from which the end is not reached: a search never walks twice
        self._units = {**UNITS, **_BLOCKS_OF_2023} if dated else UNITS

    def leads_to_the_end(self, at: int) -> bool:
        """Whether tensors that start at `at` fill the file; `ends` has them then."""
        walked: dict[int, _Record] = {}
        while at < self._source.size:
            meter.charge(10, "looking for tensors")
            record = None if at in self._dead else self._record(at)
            if record is None:
                self._dead.update(walked)
                self._dead.add(at)
                return False
            walked[at] = record
            if len(walked) > self._limits.tensors:
                raise LimitExceeded(self._source.name, "tensors", self._limits.tensors, len(walked))
            at = record.stop
        self.ends = walked
        return bool(walked)

    def _record(self, at: int) -> _Record | None:
        """Return the tensor at `at`; None if there is none, or it does not lie in the file."""
        left = self._source.size - at
        head = bytes(self._source.read_at(at, min(left, _RECORD.size + 4 * _MAX_DIMENSIONS + _NAME_BYTES)))
        if len(head) < _RECORD.size:
            return None
        n_dims, length, kind = _RECORD.unpack_from(head)
        if not 0 <= n_dims <= _MAX_DIMENSIONS or not 0 < length <= _NAME_BYTES or kind not in TYPES:
            return None
        begin = _RECORD.size + 4 * n_dims
        name = head[begin : begin + length]
        if len(name) != length or not _NAME.fullmatch(name):
            return None
        shape = struct.unpack_from(f"<{n_dims}i", head, _RECORD.size)[::-1]
        elements, unit = self._units.get(TYPES[kind], (0, 0))
        if not elements or any(n <= 0 for n in shape) or (shape[-1] if shape else 1) % elements:
            return None
        start = -(-(at + begin + length) // self._alignment) * self._alignment
        stop = start + math.prod(shape) // elements * unit
        if stop > self._source.size:
            return None
        dtype = f"{TYPES[kind]} of early 2023" if self.dated and TYPES[kind] in _BLOCKS_OF_2023 else TYPES[kind]
        return _Record(name.decode("ascii"), dtype, shape, start, stop)


def _starts(source: ByteSource) -> Iterator[int]:
    """Yield every offset where three small numbers stand that a tensor may begin with."""
    base, step = 4, _FIRST
    while base < min(source.size, _HEADER_BYTES):
        window = source.read_at(base, min(step + _RECORD.size - 1, source.size - base))
        meter.charge(len(window) >> 6, "looking for tensors")
        if len(window) < _RECORD.size:
            return
        data = np.frombuffer(window, np.uint8)
        n = len(data) - _RECORD.size + 1
        column = [data[i : i + n] for i in range(_RECORD.size)]
        fits = (column[0] - 1 < _MAX_DIMENSIONS) & (column[4] > 0) & (column[8] <= max(TYPES))
        for i in (1, 2, 3, 5, 6, 7, 9, 10, 11):
            fits &= column[i] == 0
        yield from (base + int(i) for i in np.flatnonzero(fits))
        base, step = base + step, min(2 * step, _LARGEST)


def _checkpoint(source: ByteSource, magic: str, first: int, chain: _Chain) -> Checkpoint:
    tensors: dict[str, TensorInfo] = {}
    digest = hashlib.sha256(source.read_at(0, first))
    for at, record in chain.ends.items():
        if record.name in tensors:
            raise FormatError("duplicate-tensor", f"{source.name} @ {at}", f"tensor {record.name!r:.80} occurs twice")
        digest.update(source.read_at(at, record.start - at))
        extent = Extent(source, record.start, record.stop)
        tensors[record.name] = TensorInfo(record.name, record.dtype, record.shape, extent)
    version = "" if magic == "ggml" else f" {int.from_bytes(source.read_at(4, 4), 'little')}"
    opaque = Counter(record.dtype for record in chain.ends.values() if record.dtype not in UNITS)
    return Checkpoint(
        format="ggml",
        version=magic + version,
        tensors=tensors,
        sources=(source,),
        header_sha256=digest.hexdigest(),
        warnings=tuple(
            f"{amount(n, 'tensor')} of type {dtype}, which is not decoded" for dtype, n in opaque.most_common()
        ),
    )
