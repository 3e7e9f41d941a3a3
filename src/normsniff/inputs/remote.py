"""The models in a directory behind a URL, by the names of its files alone: to open each would take a request each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..errors import LimitExceeded, SourceError
from ..formats import rows
from ..limits import Limits
from ..source.remote.answers import Entry
from ..source.remote.link import if_not_found
from ..source.remote.paths import RemotePath
from .filenames import (
    CONFIGS,
    EXCLUDED,
    choose,
    indexed_format,
    is_excluded,
    is_training_state,
    listing_format,
    parallel_part,
    why_beside,
)
from .shards import index_of, shard_group


def models_at(
    path: RemotePath, limits: Limits, skip: Callable[[RemotePath, str], object], exclude: Sequence[str] = ()
) -> Iterator[RemotePath]:
    """Yield the models that a URL stands for: a file is one, a directory with an index or a configuration is one.

    Args:
        path: a file or a directory. HTTP has no directories; a URL that ends in a slash is a page that lists one.
        limits: `Limits.files` ends the walk.
        skip: told of what was passed over and could have been taken for a model, with the reason.
        exclude: shell patterns of what to leave out; see `is_excluded`.

    Raises:
        SourceError: nothing is there, or no model file below a directory.
        LimitExceeded: there are more files than `limits` allows.
    """
    if _is_file(path):
        yield path
        return
    waiting, visited, found = [path], 0, 0
    while waiting:
        directory = waiting.pop()
        depth = directory.where.count("/") - path.where.count("/")
        if depth > limits.nesting:  # the links of a page may lead to it again, by ever longer ways
            raise LimitExceeded(str(path), "directories inside each other", limits.nesting, depth)
        entries = _entries(path, directory, skip)
        visited += 1 + len(entries)
        if visited > limits.files:
            raise LimitExceeded(str(path), "files and directories", limits.files, visited)
        entries = list(_kept(path, directory, entries, skip, exclude))
        models = _models(directory, entries)
        one = choose(models, configured=any(entry.name in CONFIGS for entry in entries))
        if one is None:
            waiting += [directory.joinpath(entry.name) for entry in reversed(entries) if entry.is_directory]
        for name in models:
            if one in (None, name):
                found += 1
                model = directory.joinpath(name)
                yield model if found == 1 else replace(model, link=path.link.fork())  # each model has limits of its own
            elif one is not None:
                skip(directory.joinpath(name), why_beside(name, one))
    if not found:
        if visited > 1:
            raise SourceError(str(path), "no model file there")
        path.link.check_access(path.url)
        raise SourceError(str(path), "no such file or directory", hint=if_not_found(path.url))


def _entries(root: RemotePath, directory: RemotePath, skip: Callable[[RemotePath, str], object]) -> list[Entry]:
    """Return what is in a directory; one below the first that cannot be listed is passed over, as on a disk."""
    try:
        return sorted(directory.entries())
    except SourceError as error:
        if directory is root:
            raise
        skip(directory, error.detail)
        return []


def _kept(
    root: RemotePath,
    directory: RemotePath,
    entries: Sequence[Entry],
    skip: Callable[[RemotePath, str], object],
    exclude: Sequence[str],
) -> Iterator[Entry]:
    for entry in entries:
        place = directory.joinpath(entry.name)
        if exclude and is_excluded(place.where.removeprefix(root.where).lstrip("/"), exclude):
            skip(place, EXCLUDED)
        else:
            yield entry


def _is_file(path: RemotePath) -> bool:
    """Whether a URL names a file; where a suffix suggests one that is asked first, else whether it is a directory."""
    if path.is_repository:
        return False
    if path.is_http:
        return not path.folder
    if path.folder:
        return False
    return path.is_file() if path.suffix else not path.entries()


def _models(directory: RemotePath, entries: Sequence[Entry]) -> dict[str, str]:
    """Return name and format of the models in a directory, shards taken together."""
    names = [entry.name for entry in entries if not entry.is_directory]
    listed = set(names)
    models: dict[str, str] = {}
    parts: set[str] = set()
    beside: set[str] = set()
    by_suffix = {suffix: row for row in reversed([*rows()]) for suffix in row.suffixes}
    for name in names:
        place = directory.joinpath(name)
        row = indexed_format(name) or listing_format(name) or by_suffix.get(place.suffix.lower())
        if row is None or is_training_state(name):
            continue
        if row.beside is not None and place.suffix.lower() in row.suffixes:
            second = place.with_suffix(row.beside).name
            if second not in listed:
                continue
            beside.add(second)
        index, group = index_of(place), shard_group(place) or parallel_part(name)
        if (index is not None and index.name in listed) or (group is not None and group[0] in parts):
            continue
        if group is not None:
            parts.add(group[0])
        models[name] = row.name
    return {name: kind for name, kind in models.items() if name not in beside}
