"""Checkpoints of ``torch.distributed.checkpoint``: ``.metadata`` beside pieces in ``__0_0.distcp`` and its like.

The first is a pickle, read as data like all others; it says which tensors there are, into which pieces they are cut,
and where in which file each piece lies. A piece is a whole file of ``torch.save`` (or of safetensors) with one tensor;
its own header is read when its values are.

Layouts: torch/distributed/checkpoint/metadata.py, filesystem.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import meter
from ...checkpoint import Checkpoint, TensorInfo
from ...dtypes import UNITS, numpy_type
from ...errors import FormatError, LimitExceeded, SourceError, parsing
from ...limits import Limits
from ...source.local import ByteSource
from ...source.place import Place
from ...source.places import announce, is_file, is_inside, open_file
from ...source.views import Extent, WindowSource
from ...words import amount, first
from .. import archives, safetensors
from ..strided import Strided
from . import reader
from .pickle_notes import Call, GlobalName, Truncated
from .pickles import load
from .tensors import DTYPES, counts, place_in_run

_ZIP = archives.SIGNATURE
_SHOWN = 5


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Read what a checkpoint holds; of its pieces not a byte.

    Args:
        source: the file ``.metadata``.
        limits: caps on the pickle, on tensors and pieces, and on files.

    Returns:
        A checkpoint of format ``"PyTorch DCP"``; tensors of which pieces are missing are left out, with a warning, as
        are optimiser states and averaged copies of the weights.

    Raises:
        FormatError: not such a file, or one that contradicts itself, or no tensor at all.
        SourceError: none of the files with pieces is there.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    with parsing(source.name):
        if source.size > limits.header_bytes:
            raise LimitExceeded(source.name, "bytes of a pickle", limits.header_bytes, source.size)
        data = bytes(source.read_at(0, source.size))
        try:
            pickle = load(data, limits, lambda at: f"{source.name} @ {at}", objects_as_keys=True)
        except Truncated:
            raise FormatError("truncated", f"{source.name} @ {source.size}", "ends inside a pickle") from None
        listed = _Listed(source, limits)
        listed.understand(pickle.value)
        files = _open_files(source, listed.files, limits)
        try:
            return listed.checkpoint(files, hashlib.sha256(data).hexdigest())
        except Exception:
            for file in files.values():
                file.close()
            raise


@dataclass(frozen=True, slots=True)
class _Piece:
    """A box of a tensor, and the bytes of a file that hold it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(slots=True)
class _Listed:
    """What ``.metadata`` lists: tensors with their pieces, by name."""

    source: ByteSource
    limits: Limits
    tensors: dict[str, tuple[str, tuple[int, ...], list[_Piece]]] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0

    def fail(self, name: str, detail: str) -> FormatError:
        return FormatError("bad-header", f"{self.source.name} @ {name[:200]}", detail)

    def understand(self, root: object) -> None:
        """Note all tensors of the pickled ``Metadata``."""
        state = _state(root)
        described, stored = state.get("state_dict_metadata"), state.get("storage_data")
        if not isinstance(described, dict) or not isinstance(stored, dict):
            raise self.fail("0", "a list of tensors and one of their places were expected")
        places: dict[tuple[str, tuple[int, ...]], Mapping[str, Any]] = {}
        for key, place in stored.items():
            meter.charge(10, "pieces of tensors")
            index = _state(key)
            name, offset = index.get("fqn"), counts(index.get("offset"))
            if isinstance(name, str):
                places[name, offset or ()] = _state(place)
        for name, note in described.items():
            entry = _state(note)
            if isinstance(name, str) and "chunks" in entry:
                self._tensor(name, entry, places)

    def _tensor(
        self, name: str, entry: Mapping[str, Any], places: Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]]
    ) -> None:
        beside = place_in_run(name)
        if beside:
            self.left_out.setdefault(beside, []).append(name)
            return
        dtype, shape, chunks = _dtype(entry.get("properties")), counts(entry.get("size")), entry["chunks"]
        if dtype is None or shape is None or not isinstance(chunks, list):
            self.left_out.setdefault("of an unknown type", []).append(name)
            return
        self.count += len(chunks)
        if self.count > self.limits.tensors:
            raise LimitExceeded(self.source.name, "pieces of tensors", self.limits.tensors, self.count)
        meter.charge(20 * len(chunks), "pieces of tensors")
        pieces = [self._piece(name, dtype, shape, _state(chunk), places) for chunk in chunks]
        # by where they lie: one that is listed twice would hide one that is missing
        stored = {one.offsets: n for one in pieces if (n := math.prod(one.sizes))}
        if sum(stored.values()) != math.prod(shape):
            raise self.fail(name, f"its pieces do not make up an array of shape {list(shape)}")
        self.tensors[name] = dtype, shape, pieces
        self.files |= dict.fromkeys(one.file for one in pieces)

    def _piece(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        chunk: Mapping[str, Any],
        places: Mapping[tuple[str, tuple[int, ...]], Mapping[str, Any]],
    ) -> _Piece:
        offsets, sizes = counts(chunk.get("offsets")), counts(chunk.get("sizes"))
        if offsets is None or sizes is None or not len(offsets) == len(sizes) == len(shape):
            raise self.fail(name, "a piece without its place in the tensor")
        if any(at + n > most for at, n, most in zip(offsets, sizes, shape, strict=True)):
            raise self.fail(name, f"a piece that reaches beyond the shape {list(shape)}")
        place = places.get((name, offsets), {})
        file, start, length = place.get("relative_path"), place.get("offset"), place.get("length")
        if not isinstance(file, str) or type(start) is not int or type(length) is not int or start < 0:
            raise self.fail(name, "nothing says where a piece lies")
        if place.get("transform_descriptors"):
            raise FormatError("unsupported", f"{self.source.name} @ {name[:200]}", "its pieces are compressed")
        if math.prod(sizes) * UNITS[dtype][1] > length:
            raise self.fail(name, f"{length:,} bytes are given to a piece of shape {list(sizes)}")
        return _Piece(offsets, sizes, file, start, length)

    def checkpoint(self, files: Mapping[str, ByteSource], digest: str) -> Checkpoint:
        """Return what can be read of it with the files that are there."""
        tensors: dict[str, TensorInfo] = {}
        for name, (dtype, shape, pieces) in self.tensors.items():
            if any(one.file not in files for one in pieces):
                self.left_out.setdefault("files with pieces of them are missing", []).append(name)
                continue
            for one in pieces:
                if one.start + one.length > files[one.file].size:
                    where = f"{files[one.file].name} @ {files[one.file].size}"
                    raise FormatError("truncated", where, f"the file ends before a piece of {name[:200]} does")
            tensors[name] = TensorInfo(name, dtype, shape, _Pieces(name, dtype, pieces, files, self.limits))
        notes = tuple(
            f"{amount(len(names), 'tensor')} left out, {why}: {first(names)}" for why, names in self.left_out.items()
        )
        if not tensors:
            raise FormatError("no-tensors", self.source.name, "; ".join(["holds no tensor that can be read", *notes]))
        return Checkpoint("PyTorch DCP", None, tensors, (self.source, *files.values()), digest, warnings=notes)


def _state(note: object) -> Mapping[str, Any]:
    return note.state if isinstance(note, Call) and isinstance(note.state, dict) else {}


def _dtype(properties: object) -> str | None:
    """Return the type of a tensor's elements; ``TensorProperties`` pickles as a tuple that starts with it."""
    state = properties.state if isinstance(properties, Call) else None
    given = state.get("dtype") if isinstance(state, dict) else state[0] if isinstance(state, tuple) and state else None
    return DTYPES.get(given.name) if isinstance(given, GlobalName) and given.module == "torch" else None


def _open_files(source: ByteSource, names: Mapping[str, None], limits: Limits) -> dict[str, ByteSource]:
    """Open the files with pieces that are there, all beside ``.metadata``."""
    main = source.path
    if main is None:
        raise FormatError("unsupported", source.name, "the tensors lie in files beside this one: name it by its path")
    if len(names) > limits.files:
        raise LimitExceeded(source.name, "files of a model", limits.files, len(names))
    places = {name: _place(source, main, name) for name in names}
    announce(places.values())
    there = {name: place for name, place in places.items() if is_file(place)}
    if names and not there:
        raise SourceError(source.name, f"none of its {len(names):,} files is there: {', '.join([*names][:_SHOWN])}")
    with contextlib.ExitStack() as opened:
        files = {name: opened.enter_context(contextlib.closing(open_file(place))) for name, place in there.items()}
        opened.pop_all()
    return files


def _place(source: ByteSource, main: Place, name: str) -> Place:
    plain = name and PurePosixPath(name).name == name and not any(mark in name for mark in "\\:\0")
    place = main.with_name(name) if plain and name not in (".", "..") else main
    if place == main or not is_inside(main.parent, place):
        raise FormatError("unsafe-path", source.name, f"lists {name[:200]!r}, which is not a file in its directory")
    return place


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """A tensor in pieces; the headers of those that are touched are read, each once."""

    name: str
    dtype: str
    pieces: Sequence[_Piece]
    files: Mapping[str, ByteSource]
    limits: Limits
    found: dict[int, Strided] = field(default_factory=dict)

    def read(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Return the elements at `index`."""
        asked = [range(one.start, one.stop, one.step or 1) for one in index]
        values = np.zeros([len(one) for one in asked], numpy_type(self.dtype))  # pieces may overlap and leave holes
        meter.charge(len(self.pieces), "pieces of tensors")
        for i, piece in enumerate(self.pieces):
            inside = [_overlap(*one) for one in zip(asked, piece.offsets, piece.sizes, strict=True)]
            if all(len(there) for there, _ in inside):
                here = tuple(slice(one.start, one.stop, one.step) for one, _ in inside)
                values[tuple(into for _, into in inside)] = self._piece(i).read(here)
        return values

    def _piece(self, i: int) -> Strided:
        if i not in self.found:
            piece = self.pieces[i]
            file = self.files[piece.file]
            window = WindowSource(file, piece.start, piece.length, f"{self.name[:200]}[{i}]")
            is_zip = bytes(window.read_at(0, min(4, window.size))) == _ZIP
            tensors = [*(reader if is_zip else safetensors).read(window, self.limits).tensors.values()]
            if len(tensors) != 1 or tensors[0].dtype != self.dtype or tensors[0].shape != piece.sizes:
                raise FormatError("bad-size", f"{file.name} @ {piece.start}", f"not the piece of {self.name[:200]}")
            self.found[i] = _as_strided(tensors[0])
        return self.found[i]


def _overlap(asked: range, offset: int, size: int) -> tuple[range, slice]:
    """Return which positions of a piece are asked for along one axis, and where they go."""
    first = max(0, -(-(offset - asked.start) // asked.step))
    last = min(len(asked), max(first, -(-(offset + size - asked.start) // asked.step)))
    there = asked[first:last] if first < last else range(0)
    return range(there.start - offset, there.stop - offset, there.step) if there else there, slice(first, last)


def _as_strided(tensor: TensorInfo) -> Strided:
    if isinstance(tensor.storage, Strided):
        return tensor.storage
    assert isinstance(tensor.storage, Extent)
    strides = tuple(math.prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape)))
    return Strided(tensor.storage, tensor.dtype, strides, tensor.byteorder)
