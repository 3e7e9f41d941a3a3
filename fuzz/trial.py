"""One execution: a mutated model is read or answered, and what is wrong with that is said."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path

import msgspec

import normsniff
from normsniff.decode import values
from normsniff.inputs.opening import opened
from normsniff.limits import Limits
from normsniff.record import Classification

from .seeds import Tree

_TENSORS, _BYTES = 16, 65_536
"""Tensors of a model that are decoded, the first ones, and how large one may be: more of them show the same."""

_SECONDS = 3.0
"""CPU time of a mutated file; twice what the meter allows for its size, as it counts steps and not seconds."""

_KILOBYTES = 200_000
"""By which one answer may raise what this process has ever held; 150 MB are promised, and pools grow in steps."""


class Trial:
    """A directory in which trees lie, so that only what was mutated is written."""

    def __init__(self) -> None:
        shared = Path("/dev/shm")  # noqa: S108 - memory, where there is such a directory
        self._folder = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self._places: dict[int, Path] = {}
        self.ends: Counter[str] = Counter()

    def __call__(self, tree: Tree, changed: dict[str, bytes], *, whole: bool = True) -> str | None:
        """Answer a tree with these changes, and return what was wrong about how that went; count how it ended.

        Args:
            tree: a model.
            changed: what takes the place of files in it.
            whole: whether to label it; else it is read, and values of its tensors are decoded.
        """
        if len(tree) == 1:
            (only,) = tree
            return self.answer(changed.get(only, tree[only]), whole=whole)
        place = self._placed(tree)
        for name, data in changed.items():
            (place / name).write_bytes(data)
        try:
            return self.answer(place / next(iter(tree)), whole=whole)
        finally:
            for name in changed:
                (place / name).write_bytes(tree[name])

    def answer(self, source: bytes | Path, *, whole: bool = True) -> str | None:
        """Answer one source, or read it, and return what was wrong."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            if not whole:
                _read(source)
                self.ends["read"] += 1
                return self._cost(before)
            record = normsniff.sniff(source)
            self.ends["answered"] += 1
            if msgspec.json.decode(record.to_json(), type=Classification) != record:
                return "the record is another one when it is read back"
        except normsniff.NormsniffError:
            self.ends["refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"[:300]
        return self._cost(before)

    def _cost(self, before: resource.struct_rusage) -> str | None:
        after = resource.getrusage(resource.RUSAGE_SELF)
        if after.ru_utime - before.ru_utime > _SECONDS:
            return f"{after.ru_utime - before.ru_utime:.1f} s of CPU time"
        if self.ends.total() > 1 and after.ru_maxrss - before.ru_maxrss > _KILOBYTES:  # the first loads libraries
            return f"{(after.ru_maxrss - before.ru_maxrss) / 1000:.0f} MB"
        return None

    def _placed(self, tree: Tree) -> Path:
        if id(tree) not in self._places:
            self._places[id(tree)] = place = Path(self._folder.name) / str(len(self._places))
            place.mkdir()
            for name, data in tree.items():
                (place / name).write_bytes(data)
        return self._places[id(tree)]

    def close(self) -> None:
        """Remove the directory."""
        self._folder.cleanup()


def _read(source: bytes | Path) -> None:
    """Read a model, and some values of it."""
    limits = Limits()
    with opened(source, limits) as checkpoint:
        for tensor in islice(checkpoint.tensors.values(), _TENSORS):
            if not values.is_decodable(tensor.dtype):
                continue
            if len(tensor.shape) == 2 and min(tensor.shape) > 0:
                for axis in (0, 1):
                    next(values.vectors(tensor, axis, limits, 4), None)
            elif max(tensor.nbytes, tensor.size) <= _BYTES:
                values.read(tensor, limits)
