"""What a request is about, as it is handed to a worker, which opens it there."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ..errors import SourceError
from ..inputs.opening import Source, models_of
from ..limits import Limits
from .dropped import place_of_drop
from .line import Calling
from .ssrf import Guard, place_behind


class Wanted(Protocol):
    """Something that a worker can open."""

    def opened(self, limits: Limits, line: Calling | None = None) -> contextlib.AbstractContextManager[Source]:
        """Return what `sniff` takes, for the length of a block.

        Args:
            limits: caps on what it may cost.
            line: to the page, for what only the page can read.

        Raises:
            NormsniffError: it cannot be had.
        """
        ...


@dataclass(frozen=True)
class Upload:
    """A body that was written to a file.

    Attributes:
        file: where it is.
        name: what its sender calls it; nothing is opened by that name.
    """

    file: Path
    name: str

    @contextlib.contextmanager
    def opened(self, limits: Limits, line: Calling | None = None) -> Iterator[Source]:  # noqa: ARG002 - the protocol's
        """Open the file under the sender's name for it."""
        raw = io.FileIO(self.file)
        raw.name = self.name
        with raw:
            yield cast(BinaryIO, raw)


@dataclass(frozen=True)
class Below:
    """A file or directory below the root.

    Attributes:
        root: without symbolic links.
        path: relative to it, as it was asked for.
    """

    root: Path
    path: str

    @contextlib.contextmanager
    def opened(self, limits: Limits, line: Calling | None = None) -> Iterator[Source]:  # noqa: ARG002 - the protocol's
        """Go to the root, so that records and messages name what lies below it and nothing else."""
        try:
            os.chdir(self.root)
        except OSError as error:
            raise SourceError("the root", error.strerror or str(error)) from error
        place = Path(self.path)
        self._check(place)
        for one in models_of(place, limits, lambda *_: None):
            self._check(Path(str(one)))
        yield place

    def _check(self, path: Path) -> None:
        """Raise unless a path, with all links followed, leads below the root; the same words for all that do not."""
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # a loop of links, a NUL
            if not path.is_absolute() and path.resolve(strict=True).is_relative_to(self.root):
                return
        raise SourceError(self.path, "no such file or directory below the root")


@dataclass(frozen=True)
class Behind:
    """A file or directory behind a URL.

    Attributes:
        url: as it was asked for.
        guard: what may be fetched.
    """

    url: str
    guard: Guard

    @contextlib.contextmanager
    def opened(self, limits: Limits, line: Calling | None = None) -> Iterator[Source]:  # noqa: ARG002 - the protocol's
        """Name the place; what is read of it is fetched behind the guard."""
        yield place_behind(self.url, self.guard, limits)


@dataclass(frozen=True)
class Dropped:
    """A file or directory of a drop, which the page holds.

    Attributes:
        files: path and size of everything that was dropped.
        path: of the one that is meant.
    """

    files: tuple[tuple[str, int], ...]
    path: str

    @contextlib.contextmanager
    def opened(self, limits: Limits, line: Calling | None = None) -> Iterator[Source]:
        """Name the place; what is read of it is asked of the page."""
        yield place_of_drop(line, self.files, self.path, limits)
