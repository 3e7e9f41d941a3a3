"""The models below a directory: one that is one model, or a lake of them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import meter
from ..errors import LimitExceeded, NormsniffError, SourceError
from ..formats import FORMATS, SHARED_SUFFIXES, Unknown, explain_unknown, recognise, rows
from ..limits import Limits
from ..meter import metered
from ..source.local import FileSource
from ..source.places import is_directory, is_file, is_inside
from .filenames import (
    CONFIGS,
    EXCLUDED,
    choose,
    indexed_format,
    is_excluded,
    is_training_state,
    listing_format,
    listing_of,
    parallel_part,
    why_beside,
)
from .shards import index_of, indexed_files, shard_group

# Files that are never opened in a walk: certainly no model, and there are many of them.
_NOT_MODELS = frozenset(
    {
        ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".csv", ".tsv", ".xml",
        ".html", ".css", ".js", ".ts", ".py", ".pyc", ".pyi", ".ipynb", ".sh", ".c", ".h", ".cc", ".cpp", ".cu",
        ".rs", ".go", ".java", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".bmp", ".ico", ".pdf", ".mp3",
        ".wav", ".flac", ".mp4", ".log", ".lock", ".whl", ".so", ".dll",
        ".exe", ".parquet", ".arrow", ".sqlite", ".db", ".model", ".tiktoken", ".jinja",
        ".onnx_data",
    }
)  # fmt: skip
_STEPS, _HELD = 300_000, 100_000_000
"""What looking at one file or index may cost a walk: about a third of a second. Reading it is somebody else's work, who
may be in another process."""

_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")  # owner and name
_LOOK = 15  # steps to ask whether a file is there
_ARCHIVES = (".gz", ".xz", ".bz2", ".zst", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Input:
    """One model that was found.

    Attributes:
        path: what to give to `sniff`: a file, the first of its shards, or their index.
        format: the format that its content has; None for a file that the caller named, which was not opened, and for
            one that is named like a model, or begins like one, and cannot be read.
    """

    path: Path
    format: str | None


@dataclass(slots=True)
class Survey:
    """What lies below a path.

    Attributes:
        inputs: the models, in a stable order.
        skipped: what was passed over and could have been taken for a model, with the reason.
    """

    inputs: list[Input] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def survey(path: Path, limits: Limits | None = None, exclude: Sequence[str] = ()) -> Survey:
    """Find the models that `path` stands for.

    A file is one model, whatever it holds. A directory with an index, or with a configuration and the weights that
    belong to it, is one model; below any other directory every model file is one, shards counting as one together.

    Raises:
        SourceError: nothing is there, or no model file below a directory.
        LimitExceeded: there are more files than `limits` allows.
    """
    limits = limits or Limits()
    try:
        if not path.is_dir():
            path.stat()  # says what is wrong with a path that leads nowhere
            return Survey([Input(path, None)])
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SourceError(str(path), why, hint=_hub_hint(path)) from error
    found = Survey()
    found.inputs.extend(walk(path, limits, lambda passed, reason: found.skipped.append((passed, reason)), exclude))
    if not found.inputs:
        passed = f" ({found.skipped[0][0].name}: {found.skipped[0][1]})" if found.skipped else ""
        raise SourceError(str(path), f"no model file below this directory{passed}")
    return found


def _hub_hint(path: Path) -> str:
    """Return what to write if a path that leads nowhere was meant as a repository of the Hugging Face Hub, else ""."""
    named_like_a_file = path.suffix.lower() in {suffix for row in FORMATS for suffix in row.suffixes}
    if named_like_a_file or _REPOSITORY.fullmatch(str(path)) is None:
        return ""
    return f"a repository of the Hugging Face Hub is written hf://{path}"


def walk(
    directory: Path, limits: Limits, skip: Callable[[Path, str], object], exclude: Sequence[str] = ()
) -> Iterator[Input]:
    """Yield the models below a directory one by one, so that a lake of any size is walked in little memory.

    Args:
        directory: where to start.
        limits: `Limits.files` ends the walk.
        skip: told of what was passed over and could have been taken for a model, with the reason.
        exclude: shell patterns (`is_excluded`) of files and directories to leave out, by name or by path below
            `directory`.

    Raises:
        LimitExceeded: there are more files than `limits` allows.
    """
    return iter(_DirectoryWalk(directory, limits, skip, exclude))


def _pairs(files: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files that are a model only together with a second one of the same name, and that one."""
    suffixes = {suffix: row.beside for row in rows() if row.beside is not None for suffix in row.suffixes}
    listed = set(files)
    for path in files:
        beside = suffixes.get(path.suffix)
        if beside is not None and path.with_suffix(beside) in listed:
            yield path, path.with_suffix(beside)


def _no_model_by_name(path: Path) -> str:
    """Say why a file is passed over before it is opened; "" if its name says nothing against it."""
    if is_training_state(path.parent.name if listing_format(path.name) else path.name):
        return "state of a training run"
    if path.suffix.lower() == ".npy":
        return "a single array: name it to have it looked at"
    return "an archive: unpack it first" if path.suffix.lower() in _ARCHIVES else ""


class _DirectoryWalk:
    """A walk down a directory: names first, then the first bytes of what may be a model."""

    def __init__(self, root: Path, limits: Limits, skip: Callable[[Path, str], object], exclude: Sequence[str]) -> None:
        self._root = root
        self._limits = limits
        self._looking = replace(limits, steps=_STEPS, held_bytes=_HELD)
        self._skip = skip
        self._exclude = exclude
        self._visited = 0
        self._suffixes = {suffix for row in rows() for suffix in row.suffixes}
        self._own_suffixes = self._suffixes - SHARED_SUFFIXES
        self._indexes = tuple(row.shards.index for row in rows() if row.shards and row.shards.index)

    def __iter__(self) -> Iterator[Input]:
        waiting = [self._root]
        while waiting:
            directory = waiting.pop()
            files, below = self._list(directory)
            models = self._models(files)
            named = {model.path.name: model for model in models}
            whole = {name: model.format for name, model in named.items() if model.format or not indexed_format(name)}
            one = choose(
                whole or dict.fromkeys(named),  # an index without its shards stands for nothing else that is there
                configured=any(file.name in CONFIGS for file in files),
            )
            if one is None:
                yield from models
                waiting.extend(reversed(below))
            else:
                yield named.pop(one)
                for name, other in named.items():
                    self._skip(other.path, why_beside(name, one))
                for inner in below:
                    self._skip(inner, f"not searched: the directory above it is one model, {one}")

    def _visit(self) -> None:
        self._visited += 1
        if self._visited > self._limits.files:
            raise LimitExceeded(str(self._root), "files and directories", self._limits.files, self._visited)

    def _list(self, directory: Path) -> tuple[list[Path], list[Path]]:
        """Return the files and the directories to go into, both sorted by name."""
        self._visit()
        files, below = [], []
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._skip(directory, error.strerror or str(error))
            return [], []
        names = {entry.name for entry in listed}
        for entry in listed:
            path = directory / entry.name
            if self._exclude and is_excluded(str(path.relative_to(self._root)), self._exclude):
                self._skip(path, EXCLUDED)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name in (".git", "__pycache__", "node_modules"):
                    continue
                if entry.name.startswith("."):
                    self._skip(path, "not searched: hidden")
                elif entry.name == "blobs" and "snapshots" in names:  # a Hugging Face cache: snapshots link to these
                    self._skip(path, "not searched: snapshots name the same files")
                else:
                    below.append(path)
            elif not entry.is_symlink():
                files.append(path)
            elif not is_inside(self._root, path):
                self._skip(path, "a symbolic link that leaves the directory")
            elif is_directory(path):
                self._skip(path, "a symbolic link to a directory")
            else:
                files.append(path)
        return files, below

    def _models(self, files: list[Path]) -> list[Input]:
        """Return the models among the files of one directory, shards taken together."""
        models: dict[str, Input] = {}
        taken: set[Path] = set()
        useless: dict[Path, str] = {}
        for path in files:
            row = indexed_format(path.name) if path.name.endswith(self._indexes) else None
            if row is not None:
                shards = self._shards(path)
                if isinstance(shards, str):
                    useless[path] = shards
                else:
                    models[path.name] = Input(path, row.name)
                    taken.update(shard for shard in shards if shard.suffix in row.suffixes)
        pairs = dict(_pairs(files))
        taken.update(pairs.values())
        names = {path.name for path in files}
        for path in files:
            if path.suffix.lower() in _NOT_MODELS and path not in pairs:  # most files of most directories
                continue
            parallel = parallel_part(path.name)
            group = shard_group(path) or parallel
            key = group[0] if group else path.name
            listing = listing_of(path.suffix)
            if listing is not None:
                if listing not in names:
                    self._skip(path, f"pieces of tensors, whose names are in {listing}, which is not beside it")
                continue
            if path in taken or key in models:
                if parallel and key in models:
                    self._skip(path, why_beside(path.name, models[key].path.name))
                continue
            if reason := _no_model_by_name(path):
                self._skip(path, reason)
                continue
            found = self._recognise(path)
            if found is not None:
                models[key] = found
        numbered = (index_of(one.path) for key, one in models.items() if key != one.path.name)
        needless = {index.name for index in numbered if index is not None}
        for path, reason in useless.items():
            if path.name in needless:  # the names of shards are enough
                self._skip(path, reason)
            else:
                models[path.name] = Input(path, None)  # whoever opens it says what is wrong with it
        return [models[key] for key in sorted(models, key=lambda key: models[key].path.name)]

    def _shards(self, index: Path) -> list[Path] | str:
        """Return the shards of an index that are there, or why it leads to none."""
        self._visit()
        try:
            with metered(str(index), self._looking):
                files = indexed_files(index, self._limits)
                looked_for = meter.counted(files, "looking for shards", _LOOK)
                shards = [index.parent / file for file in looked_for if is_file(index.parent / file)]
        except NormsniffError as error:
            return str(error).removeprefix(f"{index}: ")
        return shards or "an index, and none of its shards is there"

    def _recognise(self, path: Path) -> Input | None:
        """Return a file as an input if it is a model, or should be one; None with the reason noted if it is neither.

        The work is counted, a file at a time, as it is when the input is answered.
        """
        self._visit()
        try:
            with metered(str(path), self._looking), contextlib.closing(FileSource(path)) as source:
                row = recognise(source, self._limits)
                if row is not None:
                    return Input(path, row.name)
                unknown = explain_unknown(source, self._limits)
        except NormsniffError as error:  # it cannot be opened, or is too dear to be looked at
            unknown = Unknown("", str(error).removeprefix(f"{path}: "))
        expected = self._suffixes if unknown.is_model is None else self._own_suffixes
        if unknown.is_model or path.suffix.lower() in expected:
            return Input(path, None)  # whoever opens it says what is wrong with it
        self._skip(path, unknown.reason)
        return None
