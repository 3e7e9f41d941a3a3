"""Every exception that normsniff raises on purpose, under one root.

A reader meets hostile bytes, so anything may go wrong inside it: `struct.error`, a bad UTF-8 byte, a
recursion limit, an overflow. `parsing` turns all of them into `FormatError`, so that a caller needs
to catch one class and the command line never shows a traceback.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar


class NormsniffError(Exception):
    """Root of all errors of this package; catch this one.

    Messages quote names out of files, so what a terminal would not print is escaped in them, and URLs, so credentials
    are taken out of them.
    """

    hint: ClassVar[str] = ""

    def __init__(self, message: str) -> None:
        super().__init__(_printable(redact(message)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)  # __init__ takes other arguments: pickle would fail


class _PlacedError(NormsniffError):
    """Something about one place.

    Attributes:
        where: the file, directory or URL.
        detail: what is wrong with it, one sentence.
    """

    _outcome = ""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(f"{where}: {self._outcome}{detail}")
        self.where = where
        self.detail = detail


class SourceError(_PlacedError):
    """The bytes cannot be had: no such file, no permission, a read beyond the end, a file that shrank."""


class OutputError(_PlacedError):
    """A file cannot be written: no such directory, no permission, no space."""

    _outcome = "not written: "


class FormatError(NormsniffError):
    """The bytes are not what their format asks for.

    Attributes:
        code: a short stable slug, for example ``"truncated"`` or ``"bad-offset"``.
        where: the file, and the byte offset or the key at fault, for example ``"a.gguf @ 24"``.
        detail: one sentence for a person.
    """

    def __init__(self, code: str, where: str, detail: str) -> None:
        super().__init__(f"{where}: {detail} [{code}]")
        self.code = code
        self.where = where
        self.detail = detail


class Refused(_PlacedError):
    """A model is not rewritten, because it was not proven that its function would stay the same."""

    _outcome = "refused: "


class LimitExceeded(NormsniffError):
    """A file asks for more than `Limits` allows; nothing of that size was allocated."""

    hint = "raise the limit through normsniff.Limits if you trust the file"

    def __init__(self, where: str, resource: str, limit: int, actual: int) -> None:
        super().__init__(f"{where}: {resource} {actual:,} is over the limit of {limit:,}")
        self.where = where
        self.resource = resource
        self.limit = limit
        self.actual = actual


class BudgetSpent(LimitExceeded):
    """The work or the memory of the whole answer is used up, so that nothing else of the file can be looked at."""


class MissingExtra(NormsniffError):
    """An optional dependency is needed and not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs an optional dependency: pip install 'normsniff[{extra}]'")
        self.extra = extra


class DeviceError(NormsniffError):
    """The device that was asked for is not there, or does not work."""


class WorkerError(NormsniffError):
    """The process that read an input was lost, or stopped at a limit.

    Attributes:
        code: ``"timeout"``, ``"memory"`` or ``"crashed"``.
        detail: what happened.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]")
        self.code = code
        self.detail = detail


@contextlib.contextmanager
def parsing(where: str) -> Iterator[None]:
    """Turn whatever a parser of the file `where` trips over into `FormatError`."""
    try:
        yield
    except NormsniffError:
        raise
    except RecursionError as error:
        raise FormatError("too-deep", where, "structure nested too deeply") from error
    except MemoryError as error:
        raise FormatError("too-large", where, "a structure does not fit in memory") from error
    except UnicodeError as error:
        raise FormatError("bad-text", where, f"text is not valid UTF-8 ({error.__class__.__name__})") from error
    except Exception as error:  # struct, zlib, zipfile, json, protobuf, numpy: each has its own tree
        name = type(error).__name__
        raise FormatError("malformed", where, f"malformed file ({name}: {_one_line(error)})") from error


_URL = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s/?#@]*@)?([^\s?'\"<>]*)(\?[^\s'\"<>]*[^\s'\"<>:;,.)])?", re.IGNORECASE)


def redact(text: str) -> str:
    """Take credentials out of all URLs in a text: user names, passwords, and the values of queries.

    >>> redact("https://user:secret@host/a.gguf?X-Amz-Signature=0af3&v=2")
    'https://host/a.gguf?X-Amz-Signature=…&v=…'
    """
    return _URL.sub(_without_credentials, text) if "://" in text else text


def _without_credentials(url: re.Match[str]) -> str:
    scheme, _, place, query = url.groups(default="")
    parts = [f"{part.partition('=')[0]}=…" if "=" in part else "…" for part in query[1:].split("&") if part]
    return scheme + place + (f"?{'&'.join(parts)}" if parts else "")


def _restore(kind: type[NormsniffError], args: tuple[Any, ...], state: dict[str, Any]) -> NormsniffError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
