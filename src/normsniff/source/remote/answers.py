"""What a server may answer: the head of a file, or one of the ways in which it does not give one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_RANGE = frozenset("bytes 0123456789-/*")

TOGETHER = 16
"""Requests under way at once."""

MOST_ENTRIES = 20_000
"""Files of one directory; `Limits.files` allows as many of all that is walked."""

NO_HTTP = "the answer is not HTTP as it should be"
"""Instead of what a library says, which may quote what was sent, and that may quote what was asked with."""

PASSING = frozenset([408, 425, 429, 500, 502, 503, 504])
"""Statuses of HTTP that may be another one soon."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file, and what identifies its content.

    Attributes:
        size: of the whole file, in bytes.
        data: its first bytes.
        version: the ETag, or else the date of the last change; None where the server tells neither.
        url: what was asked for.
        address: where it was found after redirects, if that is known.
    """

    size: int
    data: bytes
    version: str | None
    url: str
    address: str = ""


class Entry(NamedTuple):
    """One line of a listing."""

    name: str
    is_directory: bool


class TransientError(OSError):
    """A failure that may pass; `wait` is the number of seconds that the server asks for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class ChangedError(OSError):
    """The file is not the one whose head was read."""


class AloneError(TransientError):
    """Several ranges were asked for by one request, and came not: they are to be asked for one by one."""


class RefusedError(OSError):
    """An answer that cannot be used, in words for a person."""


def retry_after(value: str) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, as a number or as a date; None where it says nothing."""
    if value.strip().isdecimal():
        return float(value[:20])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def content_range(value: str) -> tuple[int, int]:
    """Return the first byte and the size of the whole file out of a ``Content-Range``.

    Raises:
        RefusedError: it is not ``bytes FIRST-LAST/SIZE``.
    """
    first, _, size = content_span(value)
    return first, size


def content_span(value: str) -> tuple[int, int, int]:
    """Return the first byte, the last and the size of the whole file out of a ``Content-Range``.

    Raises:
        RefusedError: it is not ``bytes FIRST-LAST/SIZE``.
    """
    match = re.fullmatch(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", value.strip())
    if match is None:
        quoted = f" ({value[:60]!r})" if set(value) <= _RANGE else ""  # a server may echo what it was asked with
        raise RefusedError(f"the server does not tell which bytes it sends or how large the file is{quoted}")
    first, last, size = int(match[1]), int(match[2]), int(match[3])
    if not first <= last < size:
        raise RefusedError(f"the server sends bytes {first:,} to {last:,} of a file of {size:,}")
    return first, last, size
