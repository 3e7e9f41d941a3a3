"""Every exception that normsniff raises on purpose, under one root.

A reader meets hostile bytes, so anything may go wrong inside it: `struct.error`, a bad UTF-8 byte, a
recursion limit, an overflow. `parsing` turns all of them into `FormatError`, so that a caller needs
to catch one class and the command line never shows a traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class NormsniffError(Exception):
    """Root of all errors of this package; catch this one.

    Messages quote names out of files, so what a terminal would not print is escaped in them, and URLs, so credentials
    are taken out of them.
    """

    hint: str = ""
    """What to do about it, or "" where nobody knows."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(printable(redact(shortened(message))))
        if hint:
            self.hint = printable(redact(shortened(hint)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)  # __init__ takes other arguments: pickle would fail


class _PlacedError(NormsniffError):
    """Something about one place.

    Attributes:
        where: the file, directory or URL.
        detail: what is wrong with it, one sentence.
    """

    _outcome = ""

    def __init__(self, where: str, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {self._outcome}{detail}", hint=hint)
        self.where = where
        self.detail = detail


class SourceError(_PlacedError):
    """The bytes cannot be had: no such file, no permission, a read beyond the end, a file that shrank."""


class OutputError(_PlacedError):
    """A file cannot be written: no such directory, no permission, no space."""

    _outcome = "not written: "


_DAMAGED = "compare it with its origin; if other programs load it, please open an issue"
_FORMAT_HINTS = {
    "truncated": "the file ends too early: copy or download it again",
    "unknown-format": "",  # the message says what it is, or what would be read
    "unsupported": "convert it to safetensors, GGUF or ONNX",
    "missing-weights": "put the file with the weights beside it",
    "encrypted": "decrypt it first",
    "unknown-norm": "patterns are those of the shell, such as '*.ln_f'; `normsniff norms FILE` lists all names",
    "bad-plugin": "update or remove the package that offers it",
    "too-large": "raise the limits of memory if you trust the file",
    "no-stream": "give the whole network: the norms, and the matrices around them",
}
"""What helps, by the code of a `FormatError`; any other means a damaged file, or a reader that has a fault."""

_WORKER_HINTS = {
    "timeout": "give it more time: --timeout, or timeout=",
    "memory": "give it more memory: --memory, or memory=",
    "crashed": "please open an issue that names the file: no file should end a process",
}


class FormatError(NormsniffError):
    """The bytes are not what their format asks for.

    Attributes:
        code: a short stable slug, for example ``"truncated"`` or ``"bad-offset"``.
        where: the file, and the byte offset or the key at fault, for example ``"a.gguf @ 24"``.
        detail: one sentence for a person.
    """

    def __init__(self, code: str, where: str, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {detail} [{code}]", hint=hint or _FORMAT_HINTS.get(code, _DAMAGED))
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
        super().__init__(f"{purpose} needs an optional dependency: {install_command(extra)}")
        self.extra = extra


class DeviceError(NormsniffError):
    """The device that was asked for is not there, or does not work."""

    hint = "the arithmetic is small: leave the device out and it runs on the CPU"


class WorkerError(NormsniffError):
    """The process that read an input was lost, or stopped at a limit.

    Attributes:
        code: ``"timeout"``, ``"memory"`` or ``"crashed"``.
        detail: what happened.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} [{code}]", hint=_WORKER_HINTS.get(code, ""))
        self.code = code
        self.detail = detail


def install_command(extra: str) -> str:
    """Return what to type to install an optional dependency, for the way in which this package came here.

    A checkout is named by its directory: an index may have another version of the package, or none.
    """
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return f"pip install -e '{root}[{extra}]'"
    return f"pip install '{_requirement(extra)}'"


def _requirement(extra: str) -> str:
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    named = f"normsniff[{extra}]"
    try:  # PEP 610: where a package came from that no index gave
        origin = json.loads(distribution("normsniff").read_text("direct_url.json") or "{}")
        url, vcs = str(origin.get("url", "")), origin.get("vcs_info", {}).get("vcs")
    except (PackageNotFoundError, ValueError, AttributeError):
        return named
    if vcs:
        return f"{named} @ {vcs}+{url}"
    if "dir_info" in origin and url.startswith("file://"):
        return f"{unquote(urlsplit(url).path)}[{extra}]"
    return named


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


_LONGEST = 4_000  # characters of a message: a page; paths of 4,096 bytes exist, but not in two places of one
_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
_LONGEST_SCHEME = 20
_QUOTES, _CLOSING = "'\"<>`", ")]}.,:;'\"<>`"  # what a sentence puts around a URL


def redact(text: str) -> str:
    """Take credentials out of all URLs in a text: user names, passwords, and the values of parameters.

    A URL ends at a space, or at the quotation mark that it began after. Plain searches, as names out of files come
    through here that would make a pattern with repetitions take for ever.

    >>> redact("https://user:secret@host/a.gguf?X-Amz-Signature=0af3&v=2")
    'https://host/a.gguf?X-Amz-Signature=…&v=…'
    >>> redact("no 'https://host/b;jsessionid=0af3#t=1', said the server")
    "no 'https://host/b;jsessionid=…#…', said the server"
    """
    parts: list[str] = []
    done = 0
    at = -1
    while (at := text.find(":/", max(at + 1, done))) >= 0:
        begin = at
        while begin > max(done, at - _LONGEST_SCHEME) and text[begin - 1] in _SCHEME:
            begin -= 1
        inner = at + 3 if text.startswith("://", at) else at + 2  # `Path` makes one slash of two
        if inner == at + 2 and at - begin < 2:  # a drive, or a path after a colon
            continue
        stop = next((i for i in range(inner, len(text)) if text[i].isspace()), len(text))
        quote = text[begin - 1 : begin]
        if quote and quote in _QUOTES:
            closing = text.rfind(">" if quote == "<" else quote, inner, stop)
            stop = closing if closing >= 0 else stop
        url = text[inner:stop]
        bare = url.rstrip(_CLOSING)
        parts += (text[done:inner], _without_credentials(bare), url[len(bare) :])
        done = stop
    return "".join([*parts, text[done:]])


def redact_url(url: str) -> str:
    """Take credentials out of a text that is one URL, whatever is in it; spaces in it are shown percent-encoded.

    >>> redact_url("https://me:two words@host/a b?sig=more words")
    'https://host/a%20b?sig=…'
    """
    return redact("".join(_encoded(c) if c.isspace() else c for c in url))


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _without_credentials(url: str) -> str:
    """Return what follows the scheme of a URL, without user and password and without values."""
    head = len(url) - len(url.lstrip("/"))  # of http:///user:password@host
    end = min((i for i in (url.find(mark, head) for mark in "/?#") if i >= 0), default=len(url))
    authority = url[head:end]
    _, colon, password = authority.partition(":")
    if "@" in authority:
        url = authority.rpartition("@")[2] + url[end:]
    elif colon and "@" in url and not password.isdecimal():  # a password with a slash of its own; else that is a port
        url = url.rpartition("@")[2]
    place, hash_mark, _ = url.partition("#")
    place, question, query = place.partition("?")
    segments = [_valueless(segment, ";") for segment in place.split("/")]
    return (
        "/".join(segments) + (f"?{_valueless(query, '&')}" if question and query else "") + ("#…" if hash_mark else "")
    )


def _valueless(text: str, parting: str) -> str:
    """Return parameters without their values; of a segment of a path the part before the first mark stays."""
    first, *rest = text.split(parting)
    kept = [first] if parting == ";" else []
    named = rest if parting == ";" else [first, *rest]
    return parting.join([*kept, *(f"{part.partition('=')[0]}=…" if "=" in part else "…" for part in named if part)])


def shortened(text: str) -> str:
    """Return a text that may quote a file, without its middle if it is longer than a message should be."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _restore(kind: type[NormsniffError], args: tuple[Any, ...], state: dict[str, Any]) -> NormsniffError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def printable(text: str) -> str:
    """Escape what a terminal would obey instead of print."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
