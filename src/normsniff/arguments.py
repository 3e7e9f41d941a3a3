"""What callers may hand to public functions: taken for what it means, or a TypeError or ValueError before any work."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .limits import Limits

if TYPE_CHECKING:
    from .record import EvidenceKind

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
LONGEST_WAIT = 1e9
"""Seconds, 31 years: alarms of the system take some 10^11, threads 9 · 10^9."""

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)")


def parse_size(text: str) -> int:
    """Return the number of bytes that a text such as ``256MB``, ``64MiB`` or ``1000000`` names.

    Raises:
        ValueError: it names none.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text[:80]!r} is not a size such as 256MB, 64MiB or 1000000")
    return int(float(match[1]) * _UNITS[match[2]])


def size(name: str, value: object, least: int = 0) -> int | None:
    """Return a number of bytes of at least `least` that is an int, a text, or None for no limit.

    Raises:
        TypeError: it is something else.
        ValueError: it is smaller, or a text that names no size.
    """
    if value is None:
        return None
    return count(name, parse_size(value) if isinstance(value, str) else value, least)


def count(name: str, value: object, least: int = 0) -> int:
    """Return an integer of at least `least`.

    Raises:
        TypeError: it is no integer.
        ValueError: it is smaller.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {_shown(value)}")
    found = operator.index(value)
    if found < least:
        raise ValueError(f"{name} must be at least {least}, not {found}")
    return found


def number(name: str, value: object, least: float = 0.0, most: float = math.inf, *, above: bool = False) -> float:
    """Return a real number between `least` and `most`.

    Raises:
        TypeError: it is no number.
        ValueError: it lies outside, is no finite number, or is `least` where it must be `above`.
    """
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {_shown(value)}")
    found = float(value)
    if not math.isfinite(found) or not least <= found <= most or (above and found == least):
        bounds = f"above {least:g}" if above else f"at least {least:g}"
        raise ValueError(f"{name} must be {bounds}{f' and at most {most:g}' if most < math.inf else ''}, not {found:g}")
    return found


def seconds(name: str, value: object) -> float:
    """Return a time that something may take.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive, not finite, or longer than the system can wait.
    """
    return number(name, value, 0.0, LONGEST_WAIT, above=True)


def flag(name: str, value: object) -> bool:
    """Return a bool.

    Raises:
        TypeError: it is none.
    """
    return bool(instance(name, value, (bool,), "a bool"))


def instance(name: str, value: Any, kinds: tuple[type, ...], called: str) -> Any:
    """Return what is of one of these types.

    Args:
        name: of the argument.
        value: the argument.
        kinds: the types.
        called: how to call them in the message, such as "a bool".

    Raises:
        TypeError: it is of none.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {called}, not {_shown(value)}")
    return value


def limits(value: object) -> Limits:
    """Return the limits; the usual ones for None.

    Raises:
        TypeError: they are no `Limits`.
    """
    found: Limits = Limits() if value is None else instance("limits", value, (Limits,), "a normsniff.Limits")
    return found


def kinds(value: object) -> tuple[EvidenceKind, ...]:
    """Return kinds of evidence, without doubles: of a collection, or of a text such as ``kernel`` or ``layout,kernel``.

    Raises:
        TypeError: it is no collection of texts.
        ValueError: there is none, or an unknown one.
    """
    from .record import EVIDENCE_KINDS

    given = [part.strip() for part in value.split(",")] if isinstance(value, str) else texts("evidence", value)
    found = tuple(kind for kind in EVIDENCE_KINDS if kind in given)
    if not found or len(found) != len(set(given)):
        raise ValueError(f"evidence must name some of {', '.join(EVIDENCE_KINDS)}, not {', '.join(given) or 'none'}")
    return found


def texts(name: str, value: object) -> list[str]:
    """Return one text, or several, as a list.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Collection) or isinstance(value, (bytes, bytearray, Mapping)):
        raise TypeError(f"{name} must be a text or several, not {_shown(value)}")
    return [instance(f"each of {name}", one, (str,), "a text") for one in value]


def path(name: str, value: object) -> str:
    """Return a path as text.

    Raises:
        TypeError: it is none.
        ValueError: it is empty, which would stand for the working directory.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(text := os.fspath(value), str):
        raise TypeError(f"{name} must be a path, not {_shown(value)}")
    if not text:
        raise ValueError(f"{name} is an empty path")
    return text


def several(name: str, value: Any, one: str) -> Iterable[Any]:
    """Return an iterable that is no text, whose letters nobody means.

    Args:
        name: of the argument.
        value: the argument.
        one: what it holds, such as "paths".

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, (str, bytes, bytearray, os.PathLike, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be several {one}, such as a list, not {_shown(value)}")
    return value


def choice(name: str, value: object, among: Collection[str]) -> str:
    """Return one of several words.

    Raises:
        TypeError: it is no text.
        ValueError: it is another one.
    """
    found: str = instance(name, value, (str,), "a text")
    if found not in among:
        raise ValueError(f"{name} must be one of {', '.join(among)}, not {found[:80]!r}")
    return found


def _shown(value: object) -> str:
    """Return what an argument is, in few words."""
    simple = value is None or isinstance(value, (bool, int, float, str))
    return f"{value!r:.80}" if simple else type(value).__name__
