"""HDF5 behind guards: what a hostile file could make the library do is refused before the library is asked.

Links are looked at, never followed, unless they are hard links inside the file; a dataset is taken only if its
bytes lie in the file, at full length, in a way that we can find ourselves. So h5py parses structure and nothing
else, no handle outlives `list_members`, and every tensor is read through its `ByteSource`.

The hazards are those of Keras' own loader (keras/src/saving/saving_lib.py, ``safe_get_h5_dataset``) and of the
HDF5 specification: external, soft and virtual data, shape bombs, link cycles, deflate bombs, opaque pickles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...checkpoint import ArraySlab, TensorInfo
from ...errors import FormatError, LimitExceeded, parsing
from ...limits import Limits
from ...sorting import natural
from ...source.local import ByteSource
from ...source.views import Extent, SourceFile
from .hdf5_attributes import TextAttributes
from .hdf5_chunks import locate_chunks

_NAME_BYTES = 1_000  # of a layer's name or a version
_PATH_CHARACTERS = 4_096  # HDF5 allows 64 kB a component, which multiplies over depth and members
_MAX_REFUSALS = 20  # named in warnings one by one

_DTYPES = {
    "float16": "F16", "float32": "F32", "float64": "F64", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64",
    "complex128": "C128", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


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
    import h5py

    listing = Listing()
    with _open(source) as file:
        texts = TextAttributes(source, file.id.get_create_plist().get_userblock())
        homes = [file.id]
        links = file.id.links
        if links.exists(b"model_weights") and links.get_info(b"model_weights").type == h5py.h5l.TYPE_HARD:
            homes.append(_child(file.id, "model_weights"))
        for home in homes:
            found = texts.of(h5py.h5o.get_info(home).addr)
            listing.order = listing.order or _layer_names(texts, found, limits)
            for key in ("keras_version", "backend", "transformers_version", "model_config"):
                largest = limits.value_bytes if key == "model_config" else _NAME_BYTES
                values = texts.strings(found.get(key), largest)
                if values:
                    listing.attributes.setdefault(key, values[0])
                elif key in found:
                    listing.warnings.append(f"{source.name} @ {key}: over {largest:,} bytes, not read")
        _walk(file.id, source, texts, listing, limits, skip)
    if listing.refused > _MAX_REFUSALS:
        listing.warnings.append(f"{listing.refused - _MAX_REFUSALS:,} more members were skipped")
    return listing


@contextmanager
def _open(source: ByteSource) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(SourceFile(source), "r")
    except OSError as error:
        code, reason = "truncated" if "truncated" in str(error) else "malformed", " ".join(str(error).split())[:160]
        raise FormatError(code, source.name, f"not a readable HDF5 file ({reason})") from error
    with file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise FormatError("unsupported", source.name, "an HDF5 file whose offsets or lengths are not of 8 bytes")
        yield file


def _walk(
    root: Any, source: ByteSource, texts: TextAttributes, listing: Listing, limits: Limits, skip: tuple[str, ...]
) -> None:
    """Visit every group once (hard links may form cycles) and every dataset, without recursion."""
    import h5py

    seen = {h5py.h5o.get_info(root).addr}
    pending = [(root, "", depth := 0)]
    members = chunks = 0
    while pending:
        group, path, depth = pending.pop()
        found: list[tuple[Any, str, int]] = []
        for name, kind in sorted(_links(group, source.name, limits), key=lambda link: natural(link[0])):
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
                            names = texts.strings(texts.of(address).get("name"), _NAME_BYTES)
                            listing.layers[path] = names[0] if names else None
                    elif isinstance(child, h5py.h5d.DatasetID):
                        chunks += _add_dataset(
                            child, child_path, source, texts, listing, limits, limits.tensors - chunks
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


def _layer_names(texts: TextAttributes, found: Mapping[str, Any], limits: Limits) -> tuple[str, ...]:
    """Return ``layer_names``, which Keras splits into ``layer_names0``, ``layer_names1`` ... when it is long."""
    names = texts.strings(found.get("layer_names"), _NAME_BYTES, limits.tensors)
    for piece in itertools.count():
        more = texts.strings(found.get(f"layer_names{piece}"), _NAME_BYTES, limits.tensors)
        names += more
        if not more or sum(map(len, names)) > limits.value_bytes:
            return tuple(names)
    raise AssertionError("count() does not end")


def _add_dataset(
    dataset: Any,
    path: str,
    source: ByteSource,
    texts: TextAttributes,
    listing: Listing,
    limits: Limits,
    chunks_left: int,
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
    dtype, stored = _number_type(dataset, kind, texts, where)
    shape = tuple(int(n) for n in space.get_simple_extent_dims())
    nbytes, held = math.prod(shape) * stored.itemsize, dataset.get_storage_size()
    if not nbytes:
        storage: Any = Extent(source, 0, 0)
        chunks = 0
    elif layout == h5py.h5d.CHUNKED:
        storage, chunks = locate_chunks(dataset, plan, path, shape, stored, source, limits, chunks_left)
    elif held != nbytes:
        raise FormatError("no-data", where, f"{held:,} bytes are stored for a shape that needs {nbytes:,}")
    elif layout == h5py.h5d.COMPACT:  # inside the object header, so below 64 kB
        values = np.empty(
            shape, np.dtype((np.void, stored.itemsize)) if kind.get_class() == h5py.h5t.OPAQUE else stored
        )
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)
        storage, chunks = ArraySlab(values.view(stored)), 0
    else:
        start, chunks = dataset.get_offset(), 0
        if start is None or start + nbytes > source.size:
            raise FormatError("bad-offset", where, f"its {nbytes:,} bytes do not lie in the file")
        storage = Extent(source, start, start + nbytes)
    listing.tensors[path] = TensorInfo(path, dtype, shape, storage, ">" if stored.byteorder == ">" else "<")
    return chunks


def _number_type(dataset: Any, kind: Any, texts: TextAttributes, where: str) -> tuple[str, np.dtype[Any]]:
    """Return our name of a dataset's type and the numpy type of its bytes."""
    import h5py

    stored: np.dtype[Any] = kind.dtype
    if kind.get_class() == h5py.h5t.OPAQUE:  # Keras 3 writes bfloat16 as opaque bytes with this label, legacy without
        found = texts.of(h5py.h5o.get_info(dataset).addr)
        label = next(iter(texts.strings(found.get("dtype"), _NAME_BYTES)), "bfloat16" if stored.itemsize == 2 else "")
        if label in _ML_DTYPES:
            import ml_dtypes

            labelled = np.dtype(getattr(ml_dtypes, label))
            if labelled.itemsize == stored.itemsize:
                return _DTYPES[label], labelled
    elif stored.name in _DTYPES and kind == h5py.h5t.py_create(stored):  # not a float of some odd layout
        return _DTYPES[stored.name], stored
    raise FormatError("opaque-dtype", where, f"holds {stored}, no plain numbers")
