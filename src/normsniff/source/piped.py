"""What comes through a pipe, as a file that can be read at any place: kept on disk, and only so much of it."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from typing import IO, Any, BinaryIO

from ..errors import LimitExceeded, SourceError
from ..limits import Limits

NAME = "<stdin>"
_COPY = 1 << 20  # bytes at once


class Piped(io.BufferedReader):
    """Standard input as a file that can be sought. Another process opens it again, by its path.

    Attributes:
        name: what records and messages call it.
    """

    name = NAME

    def __init__(self, path: str, *, owned: bool = False) -> None:
        """Open a file.

        Args:
            path: of the file.
            owned: delete it once this one is closed.
        """
        super().__init__(io.FileIO(path))
        self._path, self._owned = path, owned

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return Piped, (self._path,)

    def close(self) -> None:
        """Close the file."""
        super().close()
        if self._owned:
            self._owned = False
            os.unlink(self._path)  # noqa: PTH108 - at the end of the interpreter there may be no pathlib


def spool(stream: BinaryIO, limits: Limits) -> Piped:
    """Copy a stream to a temporary file, unless it is a file already (``< model.gguf``).

    Args:
        stream: read up to its end.
        limits: `Limits.piped_bytes` ends the copy.

    Raises:
        LimitExceeded: more comes than the limits allow.
        SourceError: it cannot be read, or the temporary file cannot be written.
    """
    path = _path_of(stream)
    try:
        if path is not None:
            return Piped(path)
        with tempfile.NamedTemporaryFile(prefix="normsniff-", delete=False) as file:
            kept = Piped(file.name, owned=True)  # from here on the file goes when this does
            try:
                _copy(stream, file, limits.piped_bytes)
            except BaseException:
                kept.close()
                raise
    except (OSError, ValueError) as error:
        raise SourceError(NAME, getattr(error, "strerror", None) or str(error)) from error
    return kept


def _copy(stream: BinaryIO, file: IO[bytes], most: int) -> None:
    size = 0
    while piece := stream.read(_COPY):
        size += len(piece)
        if size > most:
            raise LimitExceeded(NAME, "bytes", most, size)
        file.write(piece)


def _path_of(stream: BinaryIO) -> str | None:
    """Return the path of the regular file that a stream reads, where the system tells it."""
    try:
        file = stream.fileno()
        status = os.fstat(file)
        path = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115 - a link that need not lead anywhere
        same = stat.S_ISREG(status.st_mode) and os.path.samestat(status, os.stat(path))  # noqa: PTH116 - likewise
    except (OSError, ValueError):
        return None
    return path if same else None
