"""Where a file is, and what lies beside it: everything that is asked of a path.

A model directory may come from a stranger, so names found inside files never lead out of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from .errors import SourceError
from .source import ByteSource, FileSource

Place: TypeAlias = Path


def open_file(place: Place) -> ByteSource:
    """Open a file for reading.

    Raises:
        SourceError: it is not there, or cannot be read.
    """
    return FileSource(place)


def names_in(directory: Place) -> Iterator[str]:
    """Yield the names of what is in a directory.

    Raises:
        SourceError: it cannot be listed.
    """
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


def is_inside(directory: Place, place: Place) -> bool:
    """Whether `place`, with symbolic links followed, stays in `directory`.

    A snapshot in a Hugging Face cache is made of links to ``blobs`` two levels up; those count as inside.
    """
    try:
        root, target = directory.resolve(), place.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return False
    snapshots = next((parent for parent in (root, *root.parents) if parent.name == "snapshots"), None)
    return target.is_relative_to(root) or (snapshots is not None and target.parent == snapshots.parent / "blobs")


def is_beside(file: Place, place: Place) -> bool:
    """Whether `place` stays in the directory that `file` is in, or in the one that `file` leads to if it is a link."""
    try:
        return is_inside(file.parent, place) or place.resolve().is_relative_to(file.resolve().parent)
    except (OSError, RuntimeError, ValueError):
        return False
