"""A row of the table of formats: all that differs between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shards:
    """How a model in several files is named and put together again.

    Attributes:
        index: how the name of an index ends that lists the files, or None.
        numbered: suffix of files named ``-00001-of-00003``, or None.
        own: whether the reader's module has ``merge(list of checkpoints)``; else shards are just more tensors.
    """

    index: str | None = None
    numbered: str | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A row of the table.

    Attributes:
        name: as `Checkpoint.format` has it.
        matches: test on (first bytes, file size); not asked for zip archives.
        module: dotted name of the module that has ``read(source, limits)``.
        holds: test on the names of the members, for formats that are zip archives.
        suffixes: what its files are called. Content decides; only a listing behind a URL goes by these.
        shards: how a model in several files is put together, or None if it cannot be.
        beside: suffix of a second file of the same name, without which the first one is no model; or None.
        pieces: suffix of the files in the same directory that hold its tensors, all listed in the one file that
            `canonical` names; or None.
        configs: names of configurations beside a file, the first that is there counts. ``"onnx/../config.json"`` is
            the one in the parent directory of a directory called ``onnx``.
        own_config: whether the reader's module has ``configured(checkpoint)``, which takes from a configuration found
            beside the file what it alone understands.
        canonical: what repositories call the weights that a configuration describes, best first; empty for formats
            of which a directory with a configuration may hold many.
        anatomy: one of our own (a key of `normsniff.anatomy.OWN`), or the dotted name of a module with
            ``describe(checkpoint)``, which returns an `Anatomy` or None; what it does not recognise is described by
            names and shapes like everything else.
        packed: whether weights may be packed by the schemes of `normsniff.packed`.
    """

    name: str
    matches: Callable[[bytes, int], bool]
    module: str
    holds: Callable[[Collection[str]], bool] | None = None
    suffixes: tuple[str, ...] = field(default=(), kw_only=True)
    shards: Shards | None = field(default=None, kw_only=True)
    beside: str | None = field(default=None, kw_only=True)
    pieces: str | None = field(default=None, kw_only=True)
    configs: tuple[str, ...] = field(default=(), kw_only=True)
    own_config: bool = field(default=False, kw_only=True)
    canonical: tuple[str, ...] = field(default=(), kw_only=True)
    anatomy: str | None = field(default=None, kw_only=True)
    packed: bool = field(default=False, kw_only=True)
