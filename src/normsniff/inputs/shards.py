"""From the path of one file to a whole model: its other shards, and the configuration beside it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from .. import meter
from ..checkpoint import Checkpoint, TensorInfo
from ..errors import BudgetSpent, FormatError, LimitExceeded, SourceError, parsing
from ..formats import Format, by_name, read_checkpoint, rows
from ..limits import Limits
from ..source.local import ByteSource
from ..source.place import Place
from ..source.places import announce, is_file, is_inside, names_in, open_file
from ..words import amount, are, first
from .configs import with_config
from .filenames import listing_of, parallel_part

# model-00001-of-00002.safetensors, model-00001-of-000163.safetensors, name-00001-of-00004.gguf
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,6})-of-(?P<count>\d{1,6})(?P<end>(\.\w+)+)")
_LOOK = 150  # steps to find whether a file is there, and inside: three questions to the file system and more
_SHOWN = 5  # names listed in one message


class _Index(msgspec.Struct):
    """``*.safetensors.index.json`` and its like (tensor to file), or Keras' ``*.weights.json`` (group to files)."""

    weight_map: dict[str, str | list[str]]


def open_model(path: Place, limits: Limits | None = None) -> Checkpoint:
    """Open a model file, the other files of the same model, and the configuration beside it.

    Args:
        path: a model file, any one of its shards, or the index of its shards. Shards that are missing
            become a warning as long as one is there.
        limits: caps on what the files may cost.

    Raises:
        SourceError: a file cannot be read, or none of the shards is there.
        FormatError: a file breaks the rules of its format, or an index names a file outside its directory.
        LimitExceeded: a file asks for more than `limits` allows.
    """
    limits = limits or Limits()
    with contextlib.ExitStack() as opened:
        if path.name.endswith(".json"):
            checkpoint = _open_index(path, limits, opened)
        else:
            checkpoint = _open_parts(path, limits, opened)
        if checkpoint.config is None:
            checkpoint = with_config(checkpoint, path, limits, opened)
        opened.pop_all()
    return checkpoint


def shard_group(path: Place) -> tuple[str, int] | None:
    """Return what the shards of one model have in common in their names, and this one's number; None for other files.

    >>> shard_group(Path("m-00002-of-00004.gguf"))
    ('m-*-of-4.gguf', 2)
    """
    match, row = _part(path)
    if match is None or row is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        return None
    return f"{match['stem']}-*-of-{count}{match['end']}", number


def index_of(path: Place) -> Place | None:
    """Return where the index of a shard is expected, or None if `path` is not named like a shard."""
    match, row = _part(path)
    if match is None or row is None or row.shards is None or row.shards.index is None:
        return None
    return path.with_name(f"{match['stem']}{row.shards.index}")


def _part(path: Place) -> tuple[re.Match[str] | None, Format | None]:
    """Take apart the name of a numbered shard, and say of which format its suffix is."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return None, None
    return match, next((row for row in rows() if row.shards and row.shards.numbered == path.suffix), None)


def indexed_files(path: Place, limits: Limits) -> list[str]:
    """Return the names of the files that an index lists, unchecked.

    Raises:
        FormatError: not an index.
        LimitExceeded: it is larger than `limits` allows.
        SourceError: it cannot be read.
    """
    with contextlib.ExitStack() as opened:
        return _files(_read_index(path, limits, opened)[0])


def _read(path: Place, limits: Limits, opened: contextlib.ExitStack) -> Checkpoint:
    source = open_file(path)
    opened.callback(source.close)
    return read_checkpoint(source, limits)


def _open_parts(path: Place, limits: Limits, opened: contextlib.ExitStack) -> Checkpoint:
    """Open a file, and with it all files that are named like further shards of the same model."""
    listing = listing_of(path.suffix)
    if listing is not None:
        if not is_file(path.with_name(listing)):
            raise SourceError(str(path), f"pieces of tensors, whose names are in {listing}, which is not beside it")
        path = path.with_name(listing)
    group = shard_group(path)
    if group is None:
        return _with_note(_read(path, limits, opened), _parallel_note(path))
    notes = []
    index = index_of(path)
    if index is not None and is_file(index):
        try:
            weight_map, source = _read_index(index, limits, opened)
            if path.name in _files(weight_map):
                return _join_index(index, weight_map, source, limits, opened)
            notes.append(f"{index.name} does not list {path.name}; shards are joined by name")
        except BudgetSpent:
            raise
        except (FormatError, LimitExceeded) as error:
            notes.append(f"the index is not used, shards are joined by name: {error}")
    found = _siblings(path, *group, limits)
    count = int(group[0].rpartition("-of-")[2].partition(".")[0])
    missing = [number for number in range(1, count + 1) if number not in found]
    parts = [(found[number].name, _read(found[number], limits, opened)) for number in sorted(found)]
    joined = _merge(path, parts, None, limits)
    if missing and joined.format != "GGUF":  # GGUF parts know their number; their merge says what is missing
        numbers = ", ".join(map(str, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
        notes.append(f"{len(missing)} of {count} shards are missing: number {numbers}")
    return replace(joined, warnings=(*notes, *joined.warnings))


def _parallel_note(path: Place) -> str:
    """Say what is not read of a tensor-parallel model: every part has the norms whole, and slices of the matrices."""
    part = parallel_part(path.name)
    if part is None:
        return ""
    parts = sum((parallel_part(name) or ("",))[0] == part[0] for name in names_in(path.parent))
    return f"one of {parts} tensor-parallel parts: the other slices of its matrices are not read" if parts > 1 else ""


def _with_note(checkpoint: Checkpoint, note: str) -> Checkpoint:
    return replace(checkpoint, warnings=(*checkpoint.warnings, note)) if note else checkpoint


def _siblings(path: Place, group: str, number: int, limits: Limits) -> dict[int, Place]:
    found = {number: path}
    for name in names_in(path.parent) if isinstance(path, Path) else _numbered(path, limits):
        sibling = path.with_name(name)
        key = shard_group(sibling)
        if key is not None and key[0] == group and key[1] not in found and is_inside(path.parent, sibling):
            found[key[1]] = sibling
            if len(found) > limits.files:
                raise LimitExceeded(str(path), "files of a model", limits.files, len(found))
    return found


def _numbered(path: Place, limits: Limits) -> list[str]:
    """Return the names of the shards that are there, without a listing, which HTTP does not have."""
    match = _PART.fullmatch(path.name)
    assert match is not None
    count, width = int(match["count"]), len(match["number"])
    if count > limits.files:
        raise LimitExceeded(str(path), "files of a model", limits.files, count)
    names = [f"{match['stem']}-{i:0{width}}-of-{match['count']}{match['end']}" for i in range(1, count + 1)]
    announce(path.with_name(name) for name in names)
    return [name for name in names if is_file(path.with_name(name))]


_OTHER_JSON = {
    b'"added_tokens"': "a tokenizer, without weights",
    b'"vocab"': "a vocabulary, without weights",
    b'"model_type"': "a configuration, without weights",
    b'"architectures"': "a configuration, without weights",
}
"""What lies beside a model in JSON, by a key of its own."""


def _read_index(path: Place, limits: Limits, opened: contextlib.ExitStack) -> tuple[dict[str, list[str]], ByteSource]:
    source = open_file(path)
    opened.callback(source.close)
    where = str(path)
    if source.size > limits.header_bytes:
        raise LimitExceeded(where, "bytes of the index", limits.header_bytes, source.size)
    text = bytes(source.read_at(0, source.size))
    values = max(text.count(b":"), text.count(b","))  # bounds what the decoder may build
    meter.grow(source.size)
    meter.charge_json(text, "the index of shards")
    allowed = 2 * limits.tensors + 1000
    if values > allowed:
        raise LimitExceeded(where, "entries of the index", allowed, values)
    try:
        with parsing(where):
            index = msgspec.json.decode(text, type=_Index)
    except FormatError as error:
        what = next((f"it is {what}; " for mark, what in _OTHER_JSON.items() if mark in text), "")
        raise FormatError("bad-index", where, f"not an index of shards: {what}{error.detail}") from error
    return {name: [file] if isinstance(file, str) else file for name, file in index.weight_map.items()}, source


def _files(weight_map: Mapping[str, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(file for files in weight_map.values() for file in files))


def _open_index(path: Place, limits: Limits, opened: contextlib.ExitStack) -> Checkpoint:
    weight_map, source = _read_index(path, limits, opened)
    return _join_index(path, weight_map, source, limits, opened)


def _join_index(
    path: Place,
    weight_map: Mapping[str, Sequence[str]],
    index: ByteSource,
    limits: Limits,
    opened: contextlib.ExitStack,
) -> Checkpoint:
    files = _files(weight_map)
    if not files:
        raise FormatError("bad-index", str(path), "the index lists no file")
    if len(files) > limits.files:
        raise LimitExceeded(str(path), "files of a model", limits.files, len(files))
    meter.charge(_LOOK * len(files), "looking for shards")
    paths = {file: _shard_path(path, file) for file in files}
    announce(paths.values())
    missing = [file for file, at in paths.items() if not is_file(at)]
    if len(missing) == len(files):
        raise SourceError(str(path), f"none of its {len(files):,} shards is there: {_listed(missing)}")
    absent = set(missing)
    parts = [(file, _read(at, limits, opened)) for file, at in paths.items() if file not in absent]
    joined = _merge(path, parts, weight_map, limits)
    notes = (f"{len(missing)} of {len(files)} shards are missing: {_listed(missing)}",) if missing else ()
    return replace(joined, sources=(*joined.sources, index), warnings=(*notes, *joined.warnings))


def _listed(names: Sequence[str]) -> str:
    return first(names, _SHOWN, longest=200)


def _shard_path(index: Place, file: str) -> Place:
    parts = PurePosixPath(file).parts
    unsafe = not parts or parts[0] == "/" or ".." in parts or any(mark in file for mark in "\\:\0")
    path = index.parent.joinpath(*parts) if not unsafe else index
    if unsafe or not is_inside(index.parent, path):
        raise FormatError("unsafe-path", str(index), f"lists {file[:200]!r}, which is not a file below its directory")
    return path


def _merge(
    path: Place, parts: Sequence[tuple[str, Checkpoint]], weight_map: Mapping[str, Sequence[str]] | None, limits: Limits
) -> Checkpoint:
    if sum(len(part.tensors) for _, part in parts) > limits.tensors:
        raise LimitExceeded(str(path), "tensors", limits.tensors, sum(len(part.tensors) for _, part in parts))
    formats = {part.format for _, part in parts}
    row = by_name(parts[0][1].format) if len(formats) == 1 else None
    if row is not None and row.shards is not None and not row.shards.own:
        return _merge_flat(parts, weight_map)
    if len(parts) == 1:
        return parts[0][1]
    if row is None or row.shards is None:
        raise FormatError("bad-index", str(path), f"its shards cannot be joined: {', '.join(sorted(formats))}")
    merged: Checkpoint = importlib.import_module(row.module).merge([part for _, part in parts])
    return merged


def _merge_flat(parts: Sequence[tuple[str, Checkpoint]], weight_map: Mapping[str, Sequence[str]] | None) -> Checkpoint:
    """Put the tensors of all shards into one checkpoint; where two hold a tensor, the index says which counts."""
    tensors: dict[str, TensorInfo] = {}
    twice: list[str] = []
    for file, part in parts:
        for name, tensor in meter.counted(part.tensors.items(), "joining shards"):
            if name in tensors:
                twice.append(name)
                if weight_map is None or file not in weight_map.get(name, ()):
                    continue
            tensors[name] = tensor
    notes = [f"{amount(len(twice), 'tensor')} {are(len(twice))} in two shards: {_listed(twice)}"] if twice else []
    if weight_map is not None:
        absent = [name for name in weight_map if name not in tensors]
        if absent:
            of_index = f"{amount(len(absent), 'tensor')} of the index {are(len(absent))}"
            notes.append(f"{of_index} in no shard at hand: {_listed(absent)}")
        strange = [name for name in tensors if name not in weight_map]
        if strange:
            notes.append(f"{amount(len(strange), 'tensor')} {are(len(strange))} not in the index: {_listed(strange)}")
    model = parts[0][1]
    digests = b"".join(bytes.fromhex(part.header_sha256) for _, part in parts)
    return replace(
        model,
        tensors=tensors,
        sources=tuple(source for _, part in parts for source in part.sources),
        header_sha256=hashlib.sha256(digests).hexdigest() if len(parts) > 1 else model.header_sha256,
        warnings=(*notes, *(warning for _, part in parts for warning in part.warnings)),
        alarms=tuple(dict.fromkeys(alarm for _, part in parts for alarm in part.alarms)),
    )
