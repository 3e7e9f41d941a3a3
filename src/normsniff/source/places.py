"""Where a file is, on this machine or behind a URL, and what lies beside it: everything that is asked of a path.

A model directory may come from a stranger, so names found inside files never lead out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SourceError
from ..limits import Limits
from .local import ByteSource, FileSource
from .place import Place

if TYPE_CHECKING:
    from .remote.link import Link

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def place_of(text: str | os.PathLike[str], limits: Limits) -> Place:
    """Return the place that a path or a URL names.

    Raises:
        SourceError: a URL with a scheme that is not supported.
    """
    if not isinstance(text, str) or not _URL.match(text):
        return Path(text)
    from .remote.paths import RemotePath

    return RemotePath.parse(text, limits)


def open_file(place: Place) -> ByteSource:
    """Open a file for reading.

    Raises:
        SourceError: it is not there, or cannot be read.
    """
    if isinstance(place, Path):
        return FileSource(place)
    from .remote.source import RemoteSource

    return RemoteSource(place)


def announce(places: Iterable[Place]) -> None:
    """Say that these files will be opened soon, so that the heads of remote ones can be fetched at the same time."""
    by_link: dict[Link, list[str]] = {}
    for place in places:
        if not isinstance(place, Path):
            by_link.setdefault(place.link, []).append(place.url)
    for link, urls in by_link.items():
        link.prefetch_heads(urls)


def names_in(directory: Place) -> Iterator[str]:
    """Yield the names of what is in a directory; none of a remote one that cannot be listed.

    Raises:
        SourceError: a local directory cannot be listed.
    """
    if not isinstance(directory, Path):
        with contextlib.suppress(SourceError):  # HTTP servers and buckets need not tell
            yield from (entry.name for entry in directory.entries())
        return
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except OSError as error:
        raise SourceError(str(directory), error.strerror or str(error)) from error


def is_file(place: Place) -> bool:
    """`Path.is_file` that also says no to names that the system cannot hold."""
    try:
        return place.is_file()
    except (OSError, ValueError):
        return False


def is_directory(path: Path) -> bool:
    """`Path.is_dir` that also says no to names that the system cannot hold, and to what it does not let us see."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_inside(directory: Place, place: Place) -> bool:
    """Whether `place`, with symbolic links followed, stays in `directory`.

    A snapshot in a Hugging Face cache is made of links to ``blobs`` two levels up; those count as inside.
    """
    if not (isinstance(directory, Path) and isinstance(place, Path)):
        return not isinstance(directory, Path) and not isinstance(place, Path) and place.is_inside(directory)
    if _is_plain_entry(directory, place):
        return True
    if _is_endless(place):
        return False
    try:
        root, target = directory.resolve(), place.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return False
    snapshots = next((parent for parent in (root, *root.parents) if parent.name == "snapshots"), None)
    return target.is_relative_to(root) or (snapshots is not None and target.parent == snapshots.parent / "blobs")


def _is_plain_entry(directory: Path, place: Path) -> bool:
    """Whether a place lies in a directory by its name and is no link; so would one that is not there."""
    if place.parent != directory or place.name == "..":
        return False
    try:
        return not stat.S_ISLNK(place.lstat().st_mode)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # a name that no system has
        return False


def _is_endless(place: Path) -> bool:
    """Whether there are more links one after the other than the system follows: resolving them takes all of them."""
    try:
        place.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:
        pass
    return False


def is_beside(file: Place, place: Place) -> bool:
    """Whether `place` stays in the directory that `file` is in, or in the one that `file` leads to if it is a link."""
    if is_inside(file.parent, place) or not (isinstance(file, Path) and isinstance(place, Path)):
        return is_inside(file.parent, place)
    try:
        return place.resolve().is_relative_to(file.resolve().parent)
    except (OSError, RuntimeError, ValueError):
        return False
