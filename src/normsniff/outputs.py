"""Files that this package writes: whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METADATA = "__metadata__"
"""Where a safetensors file keeps text about its arrays, and a ``.npz`` of `write_arrays` too, as an array of JSON."""

ARRAY_SUFFIXES = (".safetensors", ".npz")
"""What `write_arrays` writes, by the extension of the path."""


_LONGEST_NAME = 200
"""Bytes of a name that are kept in another one; file systems take 255, of which some 20 are needed beside it."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its name once the block has ended well; until then nothing is replaced.

    Raises:
        OutputError: the file cannot be made, written or renamed.
    """
    partial = _partial(path)
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
    partial = _partial(path)
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


def _partial(path: Path) -> Path:
    """Return the name beside `path` that an output has until it is whole; of a long name only a digest fits into it."""
    name = os.fsencode(path.name)
    kept = path.name if len(name) <= _LONGEST_NAME else hashlib.blake2b(name, digest_size=16).hexdigest()
    return path.with_name(f".{kept}.{os.getpid()}.partial")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]) -> None:
    """Write arrays under their names, with text about them, as ``.safetensors`` or ``.npz``.

    A second copy of the arrays is made in memory on the way. A safetensors file holds them in the order of its library.

    Args:
        path: replaced as a whole if it is there.
        arrays: any shapes; for safetensors, types that it knows.
        metadata: key to text: the ``__metadata__`` of a safetensors file; a ``.npz`` has an array of this name, one
            string of JSON.

    Raises:
        OutputError: the file cannot be written, or an array's name is taken by the format.
        ValueError: another extension.
    """
    if path.suffix not in ARRAY_SUFFIXES:
        raise ValueError(f"{path.name}: arrays are written as {' or '.join(ARRAY_SUFFIXES)}")
    if METADATA in arrays:  # the library would write a header that no reader takes
        raise OutputError(str(path), "an array is named __metadata__, as a part of the format is")
    with replacing(path) as file:
        if path.suffix == ".safetensors":
            from safetensors.numpy import save

            file.write(save(dict(arrays), dict(metadata)))
        else:
            _write_npz(file, arrays, metadata)


def _write_npz(file: BinaryIO, arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str]) -> None:
    import json
    import zipfile

    import numpy as np

    about = {METADATA: np.array(json.dumps(dict(metadata)))} if metadata else {}
    with zipfile.ZipFile(file, "w") as archive:  # np.savez takes names for its own arguments
        for name, array in {**arrays, **about}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
