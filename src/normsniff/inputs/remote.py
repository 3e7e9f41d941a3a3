"""The models in a directory behind a URL, by the names of its files alone: to open each would take a request each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ..errors import LimitExceeded, SourceError
from ..limits import Limits
from ..source.remote.answers import Entry
from ..source.remote.paths import RemotePath
from .filenames import CONFIGS, choose, indexed_format, is_training_state, parallel_part, why_beside
from .shards import index_of, shard_group

_FORMATS = {
    ".safetensors": "safetensors", ".gguf": "GGUF", ".onnx": "ONNX", ".keras": "Keras", ".h5": "Keras",
    ".hdf5": "Keras", ".bin": "PyTorch", ".pt": "PyTorch", ".pth": "PyTorch", ".ckpt": "PyTorch", ".msgpack": "Flax",
    ".npz": "NumPy", ".tflite": "TFLite", ".xml": "OpenVINO",
}  # fmt: skip


def models_at(path: RemotePath, limits: Limits, skip: Callable[[RemotePath, str], object]) -> Iterator[RemotePath]:
    """Yield the models that a URL stands for: a file is one, a directory with an index or a configuration is one.

    Args:
        path: a file or a directory. HTTP has no directories; a URL that ends in a slash is a page that lists one.
        limits: `Limits.files` ends the walk.
        skip: told of what was passed over and could have been taken for a model, with the reason.

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
        entries = sorted(directory.entries())
        visited += 1 + len(entries)
        if visited > limits.files:
            raise LimitExceeded(str(path), "files and directories", limits.files, visited)
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
        raise SourceError(str(path), "no model file there" if visited > 1 else "no such file or directory")


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
    models: dict[str, str] = {}
    parts: set[str] = set()
    for name in names:
        place = directory.joinpath(name)
        kind = indexed_format(name) or _FORMATS.get(place.suffix.lower())
        if kind is None or is_training_state(name):
            continue
        if kind == "OpenVINO" and place.with_suffix(".bin").name not in names:
            continue
        index, group = index_of(place), shard_group(place) or parallel_part(name)
        if (index is not None and index.name in names) or (group is not None and group[0] in parts):
            continue
        if group is not None:
            parts.add(group[0])
        models[name] = kind
    for name in [name for name, kind in models.items() if kind == "OpenVINO"]:
        models.pop(str(PurePosixPath(name).with_suffix(".bin")), None)
    return models
