"""HDF5 behind guards: what a hostile file could make the library do is refused before the library is asked.

Links are looked at, never followed, unless they are hard links inside the file; a dataset is taken only if its
bytes lie in the file, at full length, in a way that we can find ourselves. So h5py parses structure and nothing
else, no handle outlives `list_members`, and every tensor is read through its `ByteSource`.

The hazards are those of Keras' own loader (keras/src/saving/saving_lib.py, ``safe_get_h5_dataset``) and of the
HDF5 specification: external, soft and virtual data, shape bombs, link cycles, deflate bombs, opaque pickles.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, LimitExceeded, parsing
from ..limits import Limits
from ..source import ByteSource
from .checkpoint import ArraySlab, Extent, TensorInfo

_SMALL_READ = 16_384  # one heap collection of names is 4,096 bytes; a larger one means one huge string
_PATH_CHARACTERS = 4_096  # HDF5 allows 64 kB a component, which multiplies over depth and members
_NAMES = 4_096  # strings in one attribute: more than the 64 kB object header of an attribute can refer to
_MAX_REFUSALS = 20  # named in warnings one by one

_DTYPES = {
    "float16": "F16", "float32": "F32", "float64": "F64", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64",
    "complex128": "C128", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2")
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # H5Z_FILTER_*; every other filter may load a plug-in


class SourceFile(io.RawIOBase):
    """A `ByteSource` as a file object, with a cap on single reads and on their sum.

    Attributes:
        largest: the longest read that is allowed, or None.
    """

    def __init__(self, source: ByteSource, largest: int | None = None) -> None:
        super().__init__()
        self.largest = largest
        self._source = source
        self._at = 0
        # Structure is read about once; a library that loops over a malformed file is stopped here.
        self._budget = 8 * source.size + (1 << 20)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, also beyond the end; nothing can be read there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the source goes, or fail if that is over a cap."""
        view = memoryview(buffer).cast("B")
        n = max(0, min(len(view), self._source.size - self._at))
        self._budget -= n
        if self._budget < 0 or (self.largest is not None and n > self.largest):
            raise OSError(f"a read of {n:,} bytes is over the cap")
        view[:n] = self._source.read_at(self._at, n)
        self._at += n
        return n


@dataclass(slots=True)
class Listing:
    """What an HDF5 file holds.

    Attributes:
        tensors: datasets by path, groups and members in natural order (2 before 10).
        layers: path of every group that has a ``vars`` member (Keras 3), and its ``name`` attribute or None.
        attributes: of the root, and of ``model_weights`` where the root has none.
        order: ``layer_names``, joined from its pieces; empty if there are none.
        refused: how many members were refused.
        warnings: the refusals in words.
    """

    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    layers: dict[str, str | None] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    refused: int = 0
    warnings: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Note a member that is left out; only the first few in words."""
        self.refused += 1
        if self.refused <= _MAX_REFUSALS:
            self.warnings.append(reason)


def list_members(source: ByteSource, limits: Limits, skip: tuple[str, ...] = ()) -> Listing:
    """List the tensors and the Keras attributes of an HDF5 file; no tensor is read.

    Args:
        source: the file.
        limits: caps on members, depth and attribute sizes.
        skip: top-level groups to leave out.

    Raises:
        FormatError: not a readable HDF5 file.
        LimitExceeded: more members or deeper groups than `limits` allows.
    """
    listing = Listing()
    with _open(source) as (file, stream):
        # Names come first, and under a small read cap, so that no large string is in the library's cache yet.
        homes = [file.id]
        if "model_weights" in (names := dict(_links(file.id, source.name, limits))) and names["model_weights"] == 0:
            homes.append(_child(file.id, "model_weights"))
        for home in homes:
            listing.order = listing.order or tuple(_layer_names(home, stream, source.name, limits))
        _walk(file.id, source, stream, listing, limits, skip)
        for home in homes:
            for key in ("keras_version", "backend", "model_config", "transformers_version"):
                largest = limits.value_bytes if key == "model_config" else _SMALL_READ
                value = _string(home, key, stream, source.name, largest) if key not in listing.attributes else None
                if value is not None:
                    listing.attributes[key] = value
    if listing.refused > _MAX_REFUSALS:
        listing.warnings.append(f"{listing.refused - _MAX_REFUSALS:,} more members were skipped")
    return listing


@contextmanager
def _open(source: ByteSource) -> Iterator[tuple[Any, SourceFile]]:
    import h5py

    stream = SourceFile(source)
    try:
        file = h5py.File(stream, "r")
    except OSError as error:
        code = "truncated" if "truncated" in str(error) else "malformed"
        raise FormatError(
            code, source.name, f"not a readable HDF5 file ({' '.join(str(error).split())[:160]})"
        ) from error
    with file:
        yield file, stream


def _walk(
    root: Any, source: ByteSource, stream: SourceFile, listing: Listing, limits: Limits, skip: tuple[str, ...]
) -> None:
    """Visit every group once (hard links may form cycles) and every dataset, without recursion."""
    import h5py

    seen = {h5py.h5o.get_info(root).addr}
    pending = [(root, "", depth := 0)]
    members = chunks = 0
    while pending:
        group, path, depth = pending.pop()
        found: list[tuple[Any, str, int]] = []
        for name, kind in sorted(_links(group, source.name, limits), key=lambda link: _natural(link[0])):
            child_path = f"{path}/{name}" if path else name
            members += 1
            if members > limits.tensors:
                raise LimitExceeded(source.name, "members of an HDF5 file", limits.tensors, members)
            if not path and name in skip:
                continue
            where = f"{source.name} # {child_path}"
            try:
                with parsing(where):
                    if len(child_path) > _PATH_CHARACTERS:
                        raise FormatError("bad-name", f"{source.name} # {child_path[:80]}…", "the path is too long")
                    if kind != h5py.h5l.TYPE_HARD:
                        raise FormatError("link", where, "a soft or external link, not followed")
                    child = _child(group, name)
                    if isinstance(child, h5py.h5g.GroupID):
                        address = h5py.h5o.get_info(child).addr
                        if address in seen:
                            raise FormatError("cycle", where, "a second link to a group that was visited before")
                        if depth >= limits.nesting:
                            raise LimitExceeded(where, "depth of HDF5 groups", limits.nesting, depth + 1)
                        seen.add(address)
                        found.append((child, child_path, depth + 1))
                        if name == "vars":
                            listing.layers[path] = _string(child, "name", stream, where, _SMALL_READ)
                    elif isinstance(child, h5py.h5d.DatasetID):
                        chunks += _add_dataset(
                            child, child_path, source, stream, listing, limits, limits.tensors - chunks
                        )
            except FormatError as error:
                listing.refuse(str(error))
        pending.extend(reversed(found))


def _links(group: Any, where: str, limits: Limits) -> list[tuple[str, int]]:
    """Return name and link type of the members of a group; no link is resolved."""
    found: list[tuple[str, int]] = []

    def visit(name: bytes, info: Any) -> bool | None:
        found.append((name.decode("utf-8", "backslashreplace"), info.type))
        return True if len(found) > limits.tensors else None

    group.links.iterate(visit, info=True)
    if len(found) > limits.tensors:
        raise LimitExceeded(where, "members of an HDF5 group", limits.tensors, len(found))
    return found


def _child(group: Any, name: str) -> Any:
    import h5py

    return h5py.h5o.open(group, name.encode("utf-8"))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts ``dense_2`` before ``dense_10``; digits are never converted, however many there are."""
    return [(len(part.lstrip("0")) + 1 if part[:1].isdigit() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _string(owner: Any, key: str, stream: SourceFile, where: str, largest: int) -> str | None:
    """Read a scalar text attribute of at most `largest` bytes, or None if there is none such."""
    texts = _strings(owner, key, stream, where, 1, largest)
    return texts[0] if texts else None


def _strings(owner: Any, key: str, stream: SourceFile, where: str, count: int, largest: int) -> list[str]:
    """Read a text attribute of at most `count` strings; other attributes, and those over the caps, give nothing."""
    import h5py

    if not h5py.h5a.exists(owner, key.encode()):
        return []
    attribute = h5py.h5a.open(owner, key.encode())
    kind, n = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
    if kind.get_class() != h5py.h5t.STRING or not 0 < n <= count or attribute.get_storage_size() > max(largest, n * 16):
        return []
    stream.largest = largest + 4096  # a variable-length string is fetched with the heap collection it lies in
    try:
        values = np.empty(attribute.shape, attribute.dtype)
        attribute.read(values)
    except OSError as error:
        raise FormatError("bad-attribute", f"{where} @ {key}", " ".join(str(error).split())[:160]) from error
    finally:
        stream.largest = None
    texts = [value if isinstance(value, str) else bytes(value).decode("utf-8") for value in values.reshape(-1).tolist()]
    return texts if sum(map(len, texts)) <= max(largest, n * 256) else []


def _layer_names(home: Any, stream: SourceFile, where: str, limits: Limits) -> Iterator[str]:
    """Yield ``layer_names``, which Keras splits into ``layer_names0``, ``layer_names1`` ... when it is long."""
    total = 0
    for piece in itertools.chain([""], itertools.count()):
        names = _strings(home, f"layer_names{piece}", stream, where, _NAMES, _SMALL_READ)
        total += sum(map(len, names))
        if (not names and piece != "") or total > limits.value_bytes:
            return
        yield from names


class _Chunked:
    """A chunked dataset: we know where its chunks lie and undo the standard filters ourselves, within bounds."""

    def __init__(
        self, name: str, source: ByteSource, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: Any
    ) -> None:
        self._name, self._source, self._shape, self._chunk = name, source, shape, chunk
        self._dtype: np.dtype[Any] = dtype
        self._nbytes = math.prod(chunk) * self._dtype.itemsize
        self.filters: tuple[int, ...] = ()
        self.table: dict[tuple[int, ...], tuple[int, int, int]] = {}

    def add(self, info: Any) -> bool | None:
        """Note one chunk; True (which ends the enumeration) if the chunk cannot be one."""
        stored = self._nbytes + self._nbytes // 8 + 4096  # deflate grows incompressible data by far less
        corner = tuple(info.chunk_offset)
        on_grid = all(at % c == 0 and at < n for at, c, n in zip(corner, self._chunk, self._shape, strict=True))
        end = (info.byte_offset or self._source.size) + info.size
        if not on_grid or info.size > stored or end > self._source.size:
            return True
        self.table[corner] = (info.byte_offset, info.size, info.filter_mask)
        return None

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        spans = [range(*span.indices(n)) for span, n in zip(index, self._shape, strict=True)]
        values = np.empty([len(span) for span in spans], self._dtype)
        grid = (range(span.start // c * c, span.stop, c) for span, c in zip(spans, self._chunk, strict=True))
        for corner in itertools.product(*grid):
            take, put = [], []
            for at, span, c in zip(corner, spans, self._chunk, strict=True):
                first, last = max(at, span.start), min(at + c, span.stop)
                take.append(slice(first - at, last - at))
                put.append(slice(first - span.start, last - span.start))
            values[tuple(put)] = self._decode(corner)[tuple(take)]
        return values

    def _decode(self, corner: tuple[int, ...]) -> NDArray[Any]:
        offset, size, mask = self.table[corner]
        data: bytes | memoryview = self._source.read_at(offset, size)
        for position in reversed(range(len(self.filters))):
            if mask >> position & 1:  # this filter was left out for this chunk
                continue
            if self.filters[position] == _FLETCHER32:
                data = data[:-4]
            elif self.filters[position] == _DEFLATE:
                with parsing(f"{self._source.name} # {self._name} @ {offset}"):
                    data = zlib.decompressobj().decompress(data, self._nbytes + 8)
            elif len(data) == self._nbytes:  # shuffle: byte 0 of every element, then byte 1 ...
                data = np.frombuffer(data, np.uint8).reshape(self._dtype.itemsize, -1).T.tobytes()
        if len(data) != self._nbytes:
            where = f"{self._source.name} # {self._name} @ {offset}"
            raise FormatError("bad-chunk", where, f"a chunk of {self._nbytes:,} bytes holds {len(data):,}")
        return np.frombuffer(data, self._dtype).reshape(self._chunk)


def _add_dataset(
    dataset: Any, path: str, source: ByteSource, stream: SourceFile, listing: Listing, limits: Limits, chunks_left: int
) -> int:
    """Check one dataset and note it as a tensor; returns how many chunks it has."""
    import h5py

    where = f"{source.name} # {path}"
    plan = dataset.get_create_plist()
    layout = plan.get_layout()  # before anything else: asking a virtual dataset for its shape may open other files
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED, h5py.h5d.COMPACT):
        raise FormatError("virtual", where, "a virtual dataset, whose data is in other files")
    if plan.get_external_count():
        raise FormatError("external", where, "its data is in another file")
    kind, space = dataset.get_type(), dataset.get_space()
    if kind.get_class() in (h5py.h5t.STRING, h5py.h5t.VLEN, h5py.h5t.REFERENCE, h5py.h5t.TIME):
        raise FormatError("not-numbers", where, "holds no numbers")
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        raise FormatError("empty", where, "has no data")
    stored = kind.dtype
    label = _string(dataset, "dtype", stream, where, _SMALL_READ) if kind.get_class() == h5py.h5t.OPAQUE else None
    known = label if label in _ML_DTYPES else stored.name  # Keras writes bfloat16 as opaque bytes plus this label
    if known not in _DTYPES or (label is None and kind != h5py.h5t.py_create(stored)):
        raise FormatError("opaque-dtype", where, f"holds {stored}, no plain numbers")
    dtype = _DTYPES[known]
    if known in _ML_DTYPES:
        import ml_dtypes

        if stored.itemsize != np.dtype(getattr(ml_dtypes, known)).itemsize:
            raise FormatError("opaque-dtype", where, f"{stored} cannot be {known}")
        stored = np.dtype(getattr(ml_dtypes, known))
    shape = tuple(int(n) for n in space.get_simple_extent_dims())
    nbytes, held, byteorder = (
        math.prod(shape) * stored.itemsize,
        dataset.get_storage_size(),
        ">" if stored.byteorder == ">" else "<",
    )

    if not nbytes:
        storage: Any = Extent(source, 0, 0)
        chunks = 0
    elif layout == h5py.h5d.CHUNKED:
        storage, chunks = _chunked(dataset, plan, path, shape, stored, source, limits, chunks_left)
    elif held != nbytes:
        raise FormatError("no-data", where, f"{held:,} bytes are stored for a shape that needs {nbytes:,}")
    elif layout == h5py.h5d.COMPACT:  # inside the object header, so below 64 kB
        values = np.empty(shape, np.dtype((np.void, stored.itemsize)) if known in _ML_DTYPES else stored)
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)
        storage, chunks = ArraySlab(values.view(stored)), 0
    else:
        start, chunks = dataset.get_offset(), 0
        if start is None or start + nbytes > source.size:
            raise FormatError("bad-offset", where, f"its {nbytes:,} bytes do not lie in the file")
        storage = Extent(source, start, start + nbytes)
    listing.tensors[path] = TensorInfo(path, dtype, shape, storage, byteorder)
    return chunks


def _chunked(
    dataset: Any,
    plan: Any,
    path: str,
    shape: tuple[int, ...],
    dtype: Any,
    source: ByteSource,
    limits: Limits,
    left: int,
) -> tuple[_Chunked, int]:
    where = f"{source.name} # {path}"
    slab = _Chunked(path, source, shape, tuple(int(n) for n in plan.get_chunk()), dtype)
    slab.filters = tuple(plan.get_filter(i)[0] for i in range(plan.get_nfilters()))
    if unknown := set(slab.filters) - {_DEFLATE, _SHUFFLE, _FLETCHER32}:
        raise FormatError("filter", where, f"compressed with HDF5 filter {min(unknown)}, which is not read here")
    chunk = plan.get_chunk()
    chunk_bytes = math.prod(chunk) * dtype.itemsize
    if chunk_bytes > limits.tensor_bytes:
        raise FormatError(
            "large-chunk", where, f"a chunk of {chunk_bytes:,} bytes is over the limit on tensors read whole"
        )
    wanted = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if wanted > left:
        raise FormatError("many-chunks", where, f"{wanted:,} chunks, and {left:,} more are allowed in this file")
    dataset.chunk_iter(slab.add)
    if len(slab.table) != wanted:
        raise FormatError(
            "no-data", where, f"{len(slab.table):,} sound chunks are stored for a shape that needs {wanted:,}"
        )
    return slab, wanted
