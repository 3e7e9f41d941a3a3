"""Opening whatever a caller names: a file, a directory that is one model, a URL, bytes, arrays."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .. import arguments
from ..checkpoint import Checkpoint
from ..errors import SourceError, parsing
from ..formats import read_checkpoint
from ..limits import Limits
from ..meter import metered
from ..packed import unpacked
from ..record import spelled
from ..source.local import BytesSource, StreamSource
from ..source.piped import Piped
from ..source.place import Place
from ..source.places import place_of
from ..threads import one_thread
from .shards import open_model
from .walk import survey

Source: TypeAlias = "str | Place | bytes | BinaryIO | Mapping[str, Any]"
"""What `sniff` takes."""


def models_of(
    place: Place, limits: Limits, skip: Callable[[Place, str], object], exclude: Sequence[str] = ()
) -> Iterator[Place]:
    """Yield the models that a path or a URL stands for; see `survey`.

    Args:
        place: where to look.
        limits: caps on what looking may cost.
        skip: told of what was passed over and could have been taken for a model, with the reason.
        exclude: shell patterns of what to leave out of a directory; see `is_excluded`.

    Raises:
        SourceError: nothing is there, or no model file below a directory.
        LimitExceeded: there are more files than `limits` allows.
    """
    if not isinstance(place, Path):
        from .remote import models_at

        yield from models_at(place, limits, skip, exclude)
        return
    found = survey(place, limits, exclude)
    for path, reason in found.skipped:
        skip(path, reason)
    yield from (one.path for one in found.inputs)


def open_source(source: Source, limits: Limits | None = None) -> Checkpoint:
    """Open whatever `sniff` takes.

    Args:
        source: a path or URL of a model file or of a directory that holds one model, the bytes of a file, a seekable
            binary file object, a mapping of names to arrays, or a module of torch.
        limits: caps on what the files may cost.

    Raises:
        SourceError: the bytes cannot be had, or a directory holds no model or several.
        FormatError: a file is in no known format, or breaks the rules of its format.
        LimitExceeded: a file asks for more than `limits` allows.
        TypeError: `source` is none of these.
        ValueError: it is an empty path.
    """
    limits = limits or Limits()
    return unpacked(_open(source, limits), limits)


@contextlib.contextmanager
def opened(source: Source, limits: Limits | None = None) -> Iterator[Checkpoint]:
    """Open whatever `sniff` takes, and close it at the end of the block; what goes wrong in it is the file's fault.

    Work and memory of the block are counted (`normsniff.meter`), BLAS works in one thread (`normsniff.threads`), and
    numpy warns of no number: a file may hold any, and whoever uses them asks whether they are finite.

    Raises:
        NormsniffError: as `open_source` does; a FormatError for any other exception of the block.
        BudgetSpent: the file makes more work, or takes more memory, than `limits` allow.
    """
    import numpy as np  # here, as whoever opens nothing needs none of it

    limits = limits or Limits()
    with metered(name_of(source), limits), one_thread(), np.errstate(all="ignore"):
        checkpoint = open_source(source, limits)
        try:
            with parsing(name_of(source)):
                yield checkpoint
        finally:
            checkpoint.close()


def name_of(source: Source) -> str:
    """Return what records and messages call a source: its path or URL without credentials, or what kind it is."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, Mapping) or hasattr(source, "state_dict"):
        return "<arrays>"
    return str(getattr(source, "name", "<stream>")) if hasattr(source, "read") else spelled(source)


def _open(source: Source, limits: Limits) -> Checkpoint:
    if isinstance(source, Mapping):
        from .arrays import from_arrays

        return from_arrays(source, limits)
    if isinstance(source, (str, os.PathLike)):
        arguments.path("source", source)
        return open_model(_single(place_of(source, limits), limits), limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_checkpoint(BytesSource(source), limits)
    from ..source.remote.paths import RemotePath

    if isinstance(source, RemotePath):
        return open_model(_single(source, limits), limits)
    if isinstance(source, io.TextIOBase):
        raise TypeError("a binary file is needed, not one of text: open it with mode 'rb'")
    if hasattr(source, "read") and hasattr(source, "seek"):
        return read_checkpoint(StreamSource(source), limits)
    from .arrays import from_arrays, state_of

    return from_arrays(state_of(source), limits)


def _single(path: Place, limits: Limits) -> Place:
    found = list(models_of(path, limits, lambda *_: None))
    if len(found) > 1:
        names = ", ".join(str(one).removeprefix(str(path)).lstrip("/\\") for one in found[:10]) + (
            " ..." if len(found) > 10 else ""
        )
        raise SourceError(str(path), f"holds {len(found):,} models, name one of them: {names}")
    return found[0]


def portable(source: Source) -> str | Path | bytes | Piped:
    """Return what another process opens as this one would.

    Raises:
        TypeError: it is an open file, or arrays in memory.
    """
    if isinstance(source, str | Path | bytes | Piped):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    url = getattr(source, "url", None)  # with its credentials, which the spelling leaves out
    if isinstance(url, str):
        return url
    raise TypeError(f"a path, a URL or bytes is needed to work in a process of its own, not {type(source).__name__}")
