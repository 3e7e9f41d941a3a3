"""What of an HDF5 file concerns Keras: its tensors, its layers, and the attributes that name and configure them.

Links are looked at, never followed, unless they are hard links inside the file; a dataset is taken only if its bytes
lie in the file, at full length. The structure is read by `formats.hdf5`; no library is asked.

The hazards are those of Keras' own loader (keras/src/saving/saving_lib.py, ``safe_get_h5_dataset``) and of the
HDF5 specification: external, soft and virtual data, shape bombs, link cycles, deflate bombs, opaque pickles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ...checkpoint import TensorInfo
from ...dtypes import BY_NAME, ML_DTYPES, UNITS
from ...errors import FormatError, LimitExceeded, parsing
from ...limits import Limits
from ...sorting import natural
from ...source.local import ByteSource
from ..hdf5.attributes import Text, list_texts, read_texts
from ..hdf5.datasets import is_dataset, place, read_dataset
from ..hdf5.datatypes import OPAQUE, Datatype
from ..hdf5.file import Structure
from ..hdf5.groups import GroupLink, is_group, list_links
from ..hdf5.headers import Header, read_header
from ..hdf5.heaps import GlobalHeaps

_NAME_BYTES = 1_000  # of a layer's name or a version
_PATH_CHARACTERS = 4_096  # HDF5 allows 64 kB a component, which multiplies over depth and members
_MAX_REFUSALS = 20  # named in warnings one by one


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
        LimitExceeded: more members or deeper groups than `limits` allows, or structures that overlap.
    """
    with parsing(source.name):
        walk = _Walk(Structure(source), limits, skip)
        walk.read_attributes()
        walk.visit_groups()
    listing = walk.listing
    if listing.refused > _MAX_REFUSALS:
        listing.warnings.append(f"{listing.refused - _MAX_REFUSALS:,} more members were skipped")
    return listing


class _Walk:
    """One walk over the groups of a file."""

    def __init__(self, file: Structure, limits: Limits, skip: tuple[str, ...]) -> None:
        self.listing = Listing()
        self._file, self._limits, self._skip = file, limits, skip
        self._name = file.source.name
        self._heaps = GlobalHeaps(file)
        self._root = read_header(file, file.root)
        if not is_group(self._root):
            file.fail("bad-group", file.root, "the root of the file is no group")
        self._top = self._members(self._root, "")
        self._seen = {file.root}
        self._placed: dict[int, TensorInfo] = {}
        self._count = 0
        self._chunks = 0

    def read_attributes(self) -> None:
        """Read what Keras writes at the root, or into ``model_weights``."""
        listing, limits = self.listing, self._limits
        homes = [self._root]
        homes += [
            read_header(self._file, link.address)
            for link in self._top
            if link.name == "model_weights" and link.address is not None
        ]
        for home in homes:
            found = list_texts(home)
            listing.order = listing.order or self._layer_names(found)
            for key in ("keras_version", "backend", "transformers_version", "model_config"):
                largest = limits.value_bytes if key == "model_config" else _NAME_BYTES
                values = read_texts(self._heaps, found.get(key), largest)
                if values:
                    listing.attributes.setdefault(key, values[0])
                elif key in found:
                    listing.warnings.append(f"{self._name} @ {key}: over {largest:,} bytes, not read")

    def visit_groups(self) -> None:
        """Visit every group once (hard links may form cycles) and every dataset, without recursion."""
        pending = [(self._root, "", 0)]
        while pending:
            group, path, depth = pending.pop()
            links = self._members(group, path) if path else self._top
            inside: list[tuple[Header, str, int]] = []
            for link in sorted(links, key=lambda link: natural(link.name)):
                self._count += 1
                if self._count > self._limits.tensors:
                    raise LimitExceeded(self._name, "members of an HDF5 file", self._limits.tensors, self._count)
                if path or link.name not in self._skip:
                    inside += self._visit(link, path, depth)
            pending.extend(reversed(inside))

    def _visit(self, link: GroupLink, above: str, depth: int) -> list[tuple[Header, str, int]]:
        """Note a member, or why it is left out; a group is returned, to be visited."""
        path = f"{above}/{link.name}" if above else link.name
        where = f"{self._name} # {path}"
        try:
            with parsing(where):
                if len(path) > _PATH_CHARACTERS:
                    raise FormatError("bad-name", f"{self._name} # {path[:80]}…", "the path is too long")
                self._file.charge(1, len(path))
                if not link.name or "/" in link.name or path in self.listing.tensors:
                    raise FormatError("bad-name", where, "no name, a name with a slash, or one that is there twice")
                if link.address is None:
                    raise FormatError("link", where, "a soft or external link, not followed")
                if link.address in self._placed:  # another hard link
                    again = msgspec.structs.replace(self._placed[link.address], name=path)
                    self.listing.tensors[path] = again
                    return []
                if link.address in self._seen:
                    raise FormatError("cycle", where, "a second link to what was visited before")
                self._seen.add(link.address)  # before it is read: what cannot be is not read again
                header = read_header(self._file, link.address)
                if is_group(header):
                    self._enter(header, where, path, depth)
                    return [(header, path, depth + 1)]
                if is_dataset(header):
                    self._add(header, where, path)
        except FormatError as error:
            self.listing.refuse(str(self._named(error, where)))
        return []

    def _named(self, error: FormatError, where: str) -> FormatError:
        """Say in an error about a place of the file whose structure that is."""
        if "#" in error.where.removeprefix(self._name):
            return error
        return FormatError(error.code, where + error.where.removeprefix(self._name), error.detail)

    def _enter(self, group: Header, where: str, path: str, depth: int) -> None:
        """Note a group, and the name of the layer that it holds."""
        if depth >= self._limits.nesting:
            raise LimitExceeded(where, "depth of HDF5 groups", self._limits.nesting, depth + 1)
        above, _, name = path.rpartition("/")
        if name == "vars":
            names = read_texts(self._heaps, list_texts(group).get("name"), _NAME_BYTES)
            self.listing.layers[above] = names[0] if names else None

    def _members(self, group: Header, path: str) -> list[GroupLink]:
        """Return the members of a group; without them nobody knows what is missing, so a damaged group is an error."""
        try:
            links = list_links(group)
        except FormatError as error:
            raise self._named(error, f"{self._name} # {path or '/'}") from error
        if len(links) > self._limits.tensors:
            raise LimitExceeded(self._name, "members of an HDF5 group", self._limits.tensors, len(links))
        return links

    def _add(self, header: Header, where: str, path: str) -> None:
        """Check one dataset and note it as a tensor."""
        dataset = read_dataset(header)
        dtype = dataset.datatype.dtype
        if dataset.datatype.kind == OPAQUE:  # Keras 3 writes bfloat16 as opaque bytes with this label, legacy without
            label = next(iter(read_texts(self._heaps, list_texts(header).get("dtype"), _NAME_BYTES)), "")
            dtype = _opaque(dataset.datatype, label)
        if dtype is None:
            raise FormatError("opaque-dtype", where, f"holds {dataset.datatype.words}, no plain numbers")
        storage, chunks = place(dataset, dtype, path, self._limits, self._limits.tensors - self._chunks)
        self._chunks += chunks
        order = dataset.datatype.order if UNITS[dtype][1] > 1 else "<"
        tensor = TensorInfo(path, dtype, dataset.shape, storage, order)
        self.listing.tensors[path] = self._placed[header.address] = tensor

    def _layer_names(self, found: Mapping[str, Text]) -> tuple[str, ...]:
        """Return ``layer_names``, which Keras splits into ``layer_names0``, ``layer_names1`` ... when it is long."""
        most = self._limits.tensors
        names = read_texts(self._heaps, found.get("layer_names"), _NAME_BYTES, most)
        characters = sum(map(len, names))
        for piece in itertools.count():
            more = read_texts(self._heaps, found.get(f"layer_names{piece}"), _NAME_BYTES, most)
            names += more
            characters += sum(map(len, more))
            if not more or characters > self._limits.value_bytes:
                return tuple(names)
        raise AssertionError("count() does not end")


def _opaque(datatype: Datatype, label: str) -> str | None:
    """Return the dtype of opaque bytes by their label; two bytes without one are bfloat16."""
    dtype = BY_NAME.get(label or ("bfloat16" if datatype.size == 2 else ""), "")
    return dtype if dtype in ML_DTYPES and UNITS[dtype][1] == datatype.size else None
