"""Asks a file system for bytes: counted, within limits, tried again where that may help, failures as `SourceError`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any, TypeVar

from ...errors import LimitExceeded, MissingExtra, NormsniffError, SourceError, redact
from ...limits import Limits
from .answers import TOGETHER, AloneError, ChangedError, Entry, Head, RefusedError, TransientError
from .fetched import Recent
from .files import Files

HEAD = 1 << 17
"""Bytes of the first read of a file, 10 ms at 100 Mbit/s: 97 % of the headers of safetensors on the Hub are below
100 kB (huggingface.js, pull request 600)."""

_EXTRAS = {"https": "remote", "http": "remote", "s3": "s3", "gs": "gs", "hf": "hf"}
_TRIES = 4
_KEPT = 1 << 26
"""Bytes of beginnings, and about as many of listings, that are kept for whoever asks again: 500 shards of one model."""

_ENTRY = 120  # bytes of an entry of a listing beside its name
_LEAST = 0.01  # seconds of a request: none means for ever to libraries
_FIRST_WAIT = 0.25  # seconds; doubled from try to try, or what a server asks for
_DENIED = "access denied"
_CREDENTIALS = {
    "hf": "set HF_TOKEN to a token that may read it, and accept the conditions on the model's page, if it has any",
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
}
_ON_THE_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/resolve/")

_T = TypeVar("_T")


class Link:
    """A connection to one file system, for one model.

    Attributes:
        requests: how many were sent, those that were sent again included.
        fetched: how many bytes came, those that nobody asked for included.
    """

    def __init__(self, scheme: str, limits: Limits, name: str, files: Files | None = None) -> None:
        """Check the scheme; nothing is connected or imported yet.

        Args:
            scheme: of the URL.
            limits: what one model may cost.
            name: what to call the model in messages.
            files: a file system of the caller's own, whatever the scheme; else the one that the scheme names.

        Raises:
            SourceError: the scheme is not supported.
        """
        if files is None and scheme not in _EXTRAS:
            raise SourceError(name, f"{scheme}:// is not supported, {', '.join(f'{one}://' for one in _EXTRAS)} are")
        self.requests = 0
        self.fetched = 0
        self._begun = 0.0
        self._scheme, self._limits, self._name = scheme, limits, name
        self._files: Any = files
        self._heads: Recent[Head | str] = Recent(_KEPT)
        self._listings: Recent[list[Entry]] = Recent(_KEPT)
        self._lock = Lock()  # heads are fetched in threads

    def __reduce__(self) -> tuple[type[Link], tuple[str, Limits, str]]:
        return Link, (self._scheme, self._limits, self._name)  # connections stay in their process

    def fork(self) -> Link:
        """Return a link that counts anew, for another model in the same file system."""
        other = Link(self._scheme, self._limits, self._name, self._files)
        other._heads, other._listings = self._heads, self._listings
        return other

    def head(self, url: str) -> Head:
        """Return the beginning of a file, the same one if asked again.

        Raises:
            SourceError: there is no such file, or it cannot be had.
        """
        found = self._heads.get(url)
        if found is None:
            found = self._asked_for(url)
            self._heads.put(url, found, len(url) + (len(found.data) if isinstance(found, Head) else 0))
        if isinstance(found, str):
            raise SourceError(redact(url), found, hint=_credentials(url) if found == _DENIED else if_not_found(url))
        return found

    def _asked_for(self, url: str) -> Head | str:
        try:
            head: Head = self._ask(url, lambda files, left: files.head_file(url, HEAD, self._count_bytes, left))
        except (FileNotFoundError, IsADirectoryError):
            return "no such file"
        except PermissionError:
            return _DENIED
        return head

    def prefetch_heads(self, urls: Sequence[str]) -> None:
        """Fetch the beginnings of several files at the same time; what fails is told when the file is asked for.

        Once one fails otherwise than by not being there, those that wait are left: whoever asks for all of them fails.
        """
        failed = Event()

        def look(url: str) -> None:
            if not failed.is_set():
                try:
                    self.has(url)
                except NormsniffError:
                    failed.set()

        with ThreadPoolExecutor(TOGETHER) as pool:
            for done in [pool.submit(look, url) for url in urls]:
                done.exception()

    def has(self, url: str) -> bool:
        """Whether a file is there that may be read."""
        try:
            self.head(url)
        except SourceError:
            if isinstance(self._heads.get(url), str):
                return False
            raise
        return True

    def check_access(self, url: str) -> None:
        """Raise if the server has let nobody in when this file was asked for.

        Raises:
            SourceError: it has.
        """
        if self._heads.get(url) == _DENIED:
            self.head(url)

    def listing(self, url: str) -> list[Entry]:
        """Return what is in a directory.

        Raises:
            SourceError: there is no such directory, or it cannot be listed.
        """
        found = self._listings.get(url)
        if found is None:
            try:
                found = self._ask(url, lambda files, left: files.entries(url, self._count_bytes, left))
            except (FileNotFoundError, NotADirectoryError):
                found = []
            except PermissionError:
                raise SourceError(redact(url), _DENIED, hint=_credentials(url)) from None
            self._listings.put(url, found, len(url) + sum(len(one.name) + _ENTRY for one in found))
        return found

    def read(self, head: Head, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of (start, stop) ranges, fetched at the same time.

        Raises:
            SourceError: some could not be had, or the file is not the one that `head` is of.
            LimitExceeded: that would be more than the limits allow.
        """
        found: dict[tuple[int, int], bytes] = {}
        self._check_bytes(sum(stop - start for start, stop in ranges))
        begun = time.monotonic()
        for attempt in range(_TRIES):
            missing = [one for one in ranges if one not in found]
            files, failures = self._open(), []
            self._count_requests(files.requests_for(head, missing))
            answers = files.read_ranges(head, missing, self._count_bytes, self._left(math.inf))
            for one, answer in zip(missing, answers, strict=True):
                if isinstance(answer, LimitExceeded):
                    raise answer
                if isinstance(answer, bytes) and len(answer) == one[1] - one[0]:
                    found[one] = answer
                elif isinstance(answer, bytes):
                    failures.append(TransientError(f"{one[1] - one[0]:,} bytes asked for, {len(answer):,} came"))
                else:
                    failures.append(answer)
            if not failures:
                break
            if attempt < _TRIES - 1 and all(isinstance(one, AloneError) for one in failures):
                continue
            self._wait(head.url, failures, attempt, begun)
        return [found[one] for one in ranges]

    def _ask(self, url: str, call: Callable[[Any, float], _T]) -> _T:
        """Return what `call` gives for the file system, and the seconds that are left.

        Files and directories that are not there are its own errors.
        """
        begun = time.monotonic()
        for attempt in range(_TRIES):
            self._count_requests(1)
            try:
                return call(self._open(), self._left(begun + self._limits.request_seconds))
            except (
                LimitExceeded,
                FileNotFoundError,
                PermissionError,
                IsADirectoryError,
                NotADirectoryError,
                SourceError,
                MissingExtra,
            ):
                raise
            except Exception as error:  # noqa: BLE001 - every library behind fsspec has its own tree
                self._wait(url, [error], attempt, begun)
        raise AssertionError("the last attempt raises")

    def _open(self) -> Any:
        with self._lock:
            if self._files is None:
                from .filesystems import open_files

                try:
                    self._files = open_files(self._scheme, self._limits)
                except ImportError as error:
                    raise MissingExtra(_EXTRAS[self._scheme], f"reading from {self._scheme}://") from error
            return self._files

    def _wait(self, url: str, failures: Sequence[BaseException], attempt: int, begun: float) -> None:
        """Wait before the next attempt, or raise the first failure that does not pass.

        All attempts together have the time of one request: a server that does not answer is asked once, and one that
        wants more time than is left (``Retry-After``) not again.
        """
        self._check_seconds()
        left = self._left(begun + self._limits.request_seconds, 0.0)
        for error in failures:
            if not _passes(error) or attempt == _TRIES - 1 or left <= 0:
                hint = _credentials(url) if isinstance(error, PermissionError) else ""
                raise SourceError(redact(url), _words(error), hint=hint) from None  # the cause may quote credentials
        asked = [error.wait for error in failures if isinstance(error, TransientError) and error.wait is not None]
        wait = max(asked, default=_FIRST_WAIT * 2**attempt)
        if wait >= left:
            said = f"{_words(failures[0])}, and asks to come back in {wait:,.0f} s; there are {left:,.0f} s left for it"
            raise SourceError(redact(url), said, hint="ask again later")
        time.sleep(max(wait, _FIRST_WAIT))

    def _left(self, stop: float, least: float = _LEAST) -> float:
        """Return the seconds until `stop`, or until the time of the whole model is over if that is earlier."""
        whole = max(self._limits.remote_seconds, 1.0)  # it is counted in seconds
        return max(min(stop, self._begun + whole) - time.monotonic(), least)

    def _count_requests(self, n: int) -> None:
        with self._lock:
            self.requests += n
            self._begun = self._begun or time.monotonic()
        self._check_seconds()
        if self.requests > self._limits.requests:
            raise LimitExceeded(self._name, "requests", self._limits.requests, self.requests)

    def _check_seconds(self) -> None:
        seconds = int(time.monotonic() - self._begun)
        if seconds > self._limits.remote_seconds:
            raise LimitExceeded(self._name, "seconds of asking", int(self._limits.remote_seconds), seconds)

    def _count_bytes(self, n: int) -> None:
        with self._lock:
            self.fetched += n
        self._check_bytes(0)

    def _check_bytes(self, more: int) -> None:
        if self.fetched + more > self._limits.fetched_bytes:
            raise LimitExceeded(self._name, "bytes fetched", self._limits.fetched_bytes, self.fetched + more)


def _credentials(url: str) -> str:
    """Return how to be let in."""
    scheme = url.partition("://")[0]
    hosted = _ON_THE_HUB.match(url)
    if hosted is not None:
        return f"name it hf://{hosted[1]}, and {_CREDENTIALS['hf']}"
    return _CREDENTIALS.get(scheme, "the server wants a signed URL, or credentials in it")


def if_not_found(url: str) -> str:
    """Return what may help where nothing is found: the Hub says so of what it does not show."""
    return "if it is private, set HF_TOKEN to a token that may read it" if url.startswith("hf://") else ""


def _passes(error: BaseException) -> bool:
    return isinstance(error, (TransientError, TimeoutError, ConnectionError))


def _words(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file any more"
    if isinstance(error, PermissionError):
        return _DENIED
    if isinstance(error, ChangedError):
        return "the file changed while it was read"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = redact(" ".join(str(error).split()))[:300]
    return text if isinstance(error, (RefusedError, TransientError)) else f"{type(error).__name__}: {text}"
