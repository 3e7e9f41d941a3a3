"""Files that this package writes: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its name once the block has ended well; until then nothing is replaced.

    Raises:
        OutputError: the file cannot be made, written or renamed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise OutputError(str(path), getattr(error, "strerror", None) or str(error)) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Make a directory beside `path` that takes its name once the block has ended well.

    Raises:
        OutputError: `path` is there and is no empty directory, or the directory cannot be made or renamed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(str(path), "it is there already; name a new directory")
        partial.mkdir()
        yield partial
        partial.replace(path)
    except (OSError, ValueError) as error:
        raise OutputError(str(path), getattr(error, "strerror", None) or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
