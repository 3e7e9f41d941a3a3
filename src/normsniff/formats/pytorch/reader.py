"""PyTorch: zip archives of ``torch.save`` and TorchScript, and the older stream of pickles. Nothing is unpickled.

The pickle is read as data (see `pickles`); tensors are byte ranges of the file. What else it asks for is named in
a warning and neither imported nor called.

Layouts: torch/serialization.py (``_save``, ``_legacy_save``) and torch/csrc/jit/serialization.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...checkpoint import Affine, Alarm, ArraySlab, Checkpoint, Slab, TensorInfo
from ...dtypes import UNITS
from ...errors import FormatError, LimitExceeded, parsing
from ...limits import Limits
from ...source.local import ByteSource
from ...source.views import Extent
from ...words import amount, first
from .. import archives
from ..strided import Strided, is_row_major, reach
from .pickle_notes import Pickle, Truncated
from .pickles import load
from .settings import settings_of
from .tensors import Storage, Tensors, View, collect, storage_of, strange_names

MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # LONG1, 10 bytes, 0x1950a86a20f9469cfc6c
_PROTOCOL = 1001
_FIRST_WINDOW = 1 << 16  # of a pickle whose length is not known
_COUNT = struct.Struct("<q")
_SHOWN = 20  # names in one warning
# Modules that only an attack has a use for: named before all others.
_DANGEROUS = (
    "os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "runpy", "socket", "shutil", "importlib",
    "ctypes", "pty", "webbrowser", "operator", "functools", "pickle", "commands", "urllib", "http", "code", "codeop",
)  # fmt: skip

# Of these, what runs commands or code, opens files or connections.
_EXECUTING = re.compile(
    r"(os|posix|nt|subprocess|runpy|socket|shutil|pty|webbrowser|commands|ctypes|importlib|code|codeop|sys|urllib|http)"
    r"(\.\w+)+|(builtins|__builtin__)\.(eval|exec|execfile|compile|__import__|open|breakpoint|input)"
)
_ALARMING = 5  # names in one alarm


@dataclass(frozen=True, slots=True)
class _Storages:
    """The storages of a file: where each lies, by key."""

    source: ByteSource
    ranges: Callable[[Storage, str], tuple[int, int]]
    byteorder: str = "<"


def read(source: ByteSource, limits: Limits) -> Checkpoint:
    """Read the pickle of a checkpoint as data, and locate its tensors.

    Args:
        source: the file.
        limits: caps on the pickle and on the number of tensors.

    Returns:
        A checkpoint of format ``"PyTorch"``. Nested state dicts are named with dots; optimiser states and averaged
        copies of the weights are left out, with a warning.

    Raises:
        FormatError: not such a file, a tensor that does not lie in its storage, or no tensor at all.
        LimitExceeded: the file asks for more than `limits` allows.
    """
    with parsing(source.name):
        if bytes(source.read_at(0, min(4, source.size))) == archives.SIGNATURE:
            return _read_archive(source, limits)
        return _read_stream(source, limits)


# --- zip archives -----------------------------------------------------------------------------------------------


def _read_archive(source: ByteSource, limits: Limits) -> Checkpoint:
    members = archives.directory(source, limits)
    if all(info.header_offset for info in members.values()):  # the first bytes are those of another archive
        raise FormatError(
            "unsupported",
            source.name,
            "several archives one after the other, as in a .distcp file, which is read with the .metadata beside it",
        )
    found = [name for name in members if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    if len(found) != 1:
        raise FormatError("unsupported", source.name, f"a zip archive with {len(found)} data.pkl, not a checkpoint")
    root = found[0].removesuffix("data.pkl")
    where = f"{source.name}!{found[0]}"
    text = archives.member(source, members[found[0]], limits, limits.header_bytes)
    data = bytes(text.read_at(0, text.size))
    try:
        pickle = load(data, limits, lambda at: f"{where} @ {at}")
    except Truncated:
        raise FormatError("truncated", where, "the pickle ends in the middle of an instruction") from None

    def small(name: str) -> str:
        if root + name not in members:
            return ""
        record = archives.member(source, members[root + name], limits, 1 << 10)
        return bytes(record.read_at(0, record.size)).decode("utf-8", "replace").strip()

    ranges: dict[str, tuple[int, int]] = {}

    def find(storage: Storage, name: str) -> tuple[int, int]:
        if storage.key not in ranges:
            info = members.get(f"{root}data/{storage.key}")
            if info is None:
                raise FormatError("truncated", f"{source.name} @ {name}", f"its data/{storage.key[:40]} is missing")
            ranges[storage.key] = archives.extent(source, info)
        return ranges[storage.key]

    order = small("byteorder")
    if order not in ("", "little", "big"):
        raise FormatError("bad-byteorder", f"{source.name}!{root}byteorder", f"{order[:20]!r} is no byte order")
    script = root + "constants.pkl" in members
    stored = _Storages(source, find, ">" if order == "big" else "<")
    kind = "TorchScript" if script else "zip"
    return _checkpoint(stored, pickle, limits, small("version") or None, kind, hashlib.sha256(data).hexdigest())


# --- the older stream of pickles --------------------------------------------------------------------------------


def _read_stream(source: ByteSource, limits: Limits) -> Checkpoint:
    """Read magic number, protocol, system, objects and keys, five pickles, after which the storages follow."""
    pickles: list[Pickle] = []
    at = 0
    for _ in range(5):
        pickle = _pickle_at(source, at, limits)
        pickles.append(pickle)
        at += pickle.end
        if len(pickles) == 2 and (type(pickle.value) is not int or pickle.value != _PROTOCOL):
            said = (
                pickle.value if type(pickle.value) is int else "that is no number"
            )  # never spelled out: it may be huge
            raise FormatError("unsupported", f"{source.name} @ 15", f"PyTorch's stream protocol {said}")
    _, _, _, objects, keys = pickles
    if not isinstance(keys.value, list) or not all(isinstance(key, str) for key in keys.value):
        raise FormatError("bad-header", f"{source.name} @ {at - keys.end}", "a list of storages was expected")
    digest = hashlib.sha256()
    for begin in range(0, at, _FIRST_WINDOW):
        digest.update(source.read_at(begin, min(_FIRST_WINDOW, at - begin)))
    ranges = _stream_ranges(source, at, keys.value, objects)

    def find(storage: Storage, name: str) -> tuple[int, int]:
        if storage.key not in ranges:
            raise FormatError("truncated", f"{source.name} @ {name}", f"its storage {storage.key[:40]} is missing")
        return ranges[storage.key]

    return _checkpoint(_Storages(source, find), objects, limits, str(_PROTOCOL), "stream", digest.hexdigest())


def _pickle_at(source: ByteSource, at: int, limits: Limits) -> Pickle:
    """Read the pickle at `at` through a window that grows until it ends inside."""
    window, left = _FIRST_WINDOW, source.size - at
    while True:
        n = min(window, left, limits.header_bytes)
        try:
            pickle = load(source.read_at(at, n), limits, lambda offset: f"{source.name} @ {at + offset}")
        except Truncated:
            if n == left:
                raise FormatError("truncated", f"{source.name} @ {source.size}", "ends inside a pickle") from None
            if n == limits.header_bytes:
                raise LimitExceeded(f"{source.name} @ {at}", "bytes of a pickle", n, left) from None
            window *= 4
            continue
        return pickle


def _stream_ranges(source: ByteSource, at: int, keys: Sequence[str], objects: Pickle) -> dict[str, tuple[int, int]]:
    """Walk over the storages: a count of elements, then the elements, in the order of `keys`."""
    widths: dict[str, int] = {}
    for note in objects.outside:
        storage = storage_of(note)
        if storage is not None:
            widths.setdefault(storage.key, UNITS[storage.dtype][1])
    ranges: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in widths:
            raise FormatError("bad-header", f"{source.name} @ {at}", f"storage {key[:40]} belongs to no tensor")
        if at + 8 > source.size:
            raise FormatError("truncated", f"{source.name} @ {at}", "the file ends before its last storage")
        (count,) = _COUNT.unpack(source.read_at(at, 8))
        stop = at + 8 + count * widths[key]
        if count < 0 or stop > source.size:
            missing = stop - source.size
            raise FormatError(
                "truncated", f"{source.name} @ {at}", f"{missing:,} bytes of storage {key[:40]} are missing"
            )
        ranges[key] = at + 8, stop
        at = stop
    return ranges


# --- tensors ----------------------------------------------------------------------------------------------------


def _checkpoint(
    stored: _Storages, pickle: Pickle, limits: Limits, version: str | None, container: str, digest: str
) -> Checkpoint:
    found = collect(pickle.value, limits, stored.source.name)
    strange = strange_names(pickle.names)
    asked = _asked_for(strange)
    tensors: dict[str, TensorInfo] = {}
    views: list[str] = []
    for name, view in found.views.items():
        tensor = _tensor(stored, name, view)
        if tensor is None:
            found.unread.setdefault("a view that repeats elements", []).append(name)
            continue
        tensors[name] = tensor
        if isinstance(tensor.storage, Strided):
            views.append(name)
    notes = _notes(found, views)
    if not tensors:
        raise FormatError(
            "no-tensors", stored.source.name, "; ".join(["holds no tensor that can be read", *asked, *notes])
        )
    return Checkpoint(
        format="PyTorch",
        version=version,
        tensors=tensors,
        sources=(stored.source,),
        header_sha256=digest,
        metadata={"container": container} | ({"settings": settings} if (settings := settings_of(pickle.value)) else {}),
        warnings=(*asked, *notes),
        alarms=tuple(_alarms(strange)),
    )


def _tensor(stored: _Storages, name: str, view: View) -> TensorInfo | None:
    """Locate a tensor; None if it has more elements than its storage."""
    begin, end = stored.ranges(view.storage, name)
    width = UNITS[view.dtype][1]
    # an offset of a storage within another counts its own elements, a tensor's offset the tensor's
    start = begin + view.storage.offset * UNITS[view.storage.dtype][1] + view.offset * width
    size = math.prod(view.shape)
    if size and start + reach(view.shape, view.strides) * width > end:
        raise FormatError(
            "bad-offset", f"{stored.source.name} @ {name}", f"reaches beyond the {end - begin:,} bytes of its storage"
        )
    storage: Extent | Slab
    if not size:
        storage = Extent(stored.source, begin, begin)
    elif is_row_major(view.shape, view.strides):
        storage = Extent(stored.source, start, start + size * width)
    elif size * width > end - begin:
        return None
    else:
        storage = Strided(Extent(stored.source, start, end), view.dtype, view.strides, stored.byteorder)
    affine = _affine(stored, name, view) if view.quantiser is not None else None
    return TensorInfo(name, view.dtype, view.shape, storage, stored.byteorder, affine)


def _affine(stored: _Storages, name: str, view: View) -> Affine | None:
    assert view.quantiser is not None
    scale, zero, axis = view.quantiser
    if axis is None:
        with np.errstate(over="ignore"):  # 1e300 becomes inf, which later steps leave out
            scalar = [np.asarray(float(scale), np.float32), np.asarray(float(zero), np.float32)]
        infos = [TensorInfo(f"{name}.{i}", "F32", (), ArraySlab(one)) for i, one in enumerate(scalar)]
        return Affine(infos[0], infos[1], None)
    given = [_tensor(stored, f"{name}.{part}", one) for part, one in (("scale", scale), ("zero_point", zero))]
    length = view.shape[axis] if axis < len(view.shape) else -1
    if any(one is None or one.shape != (length,) for one in given):
        raise FormatError("bad-shape", f"{stored.source.name} @ {name}", "its scales do not fit its axis")
    assert given[0] is not None
    return Affine(given[0], given[1], axis)


def _alarms(names: Sequence[str]) -> Iterator[Alarm]:
    """Yield an alarm for code that runs where somebody unpickles the file; here nothing of it is imported."""
    executing = [name for name in names if _EXECUTING.fullmatch(name)]
    found = executing or [name for name in names if name.partition(".")[0] in _DANGEROUS]
    if found:
        more = f" and {len(found) - _ALARMING:,} more" if len(found) > _ALARMING else ""
        listed = ", ".join(name[:100] for name in found[:_ALARMING]) + more
        yield Alarm("dangerous-pickle", bool(executing), f"the pickle calls {listed} where it is loaded")


def _asked_for(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    first = sorted(names, key=lambda name: name.partition(".")[0] not in _DANGEROUS)  # stable
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"the pickle asks for {', '.join(first[:_SHOWN])}{more}: not imported, not executed"]


def _notes(found: Tensors, views: Sequence[str]) -> list[str]:
    tensors, entries = ("tensor", "tensors"), ("entry", "entries")
    listed: Mapping[tuple[tuple[str, str], str], Sequence[str]] = {
        **{(tensors, f"cannot be read, {reason}"): names for reason, names in found.unread.items()},
        (entries, "left out, state of a training run"): found.training,
        (entries, "left out, averaged copies of the weights"): found.averaged,
        (tensors, "left out under the name of another"): found.twice,
        (tensors, "read in strips, as views that are not row-major"): views,
    }
    notes = [f"{amount(len(names), *noun)} {what}: {first(names)}" for (noun, what), names in listed.items() if names]
    if found.unnamed:
        notes.append(f"{amount(found.unnamed, 'tensor')} left out, under names that are too long")
    return notes
