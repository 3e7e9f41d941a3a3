"""What a pickle says, as notes: names, calls that were never made, things that lie outside of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function that the pickle asks for, by name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Call:
    """What a call would have returned, or an object that would have been made; never executed.

    Attributes:
        function: what would have been called.
        arguments: what it would have got.
        state: what would have been set on the result (``__setstate__``, attributes, items), or None.
    """

    function: object
    arguments: object = ()
    state: Any = None


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is of no use here: bytes, a long string, a huge integer."""

    what: str
    size: int


@dataclass(frozen=True, slots=True)
class Persistent:
    """An object that lies outside of the pickle, by what the pickle says of it."""

    key: object


@dataclass(slots=True)
class Pickle:
    """What a pickle holds.

    Attributes:
        value: what it stands for: None, bool, int, float, str, tuple, list, dict (keys are strings), or one of the
            notes above. Things may be shared, and lists and dicts may contain themselves.
        end: offset of the byte after it.
        names: every class and function that it asks for, in order, each once.
        outside: every object that it says lies outside of it, in order.
    """

    value: object
    end: int
    names: dict[GlobalName, None] = field(default_factory=dict)
    outside: list[Persistent] = field(default_factory=list)


class Truncated(Exception):  # noqa: N818  (a question for more bytes, not a failure)
    """The bytes at hand end inside the pickle."""


# Classes of the standard library that are containers, and what stands for them here.
CONTAINERS: dict[tuple[str, str], type[dict[Any, Any]] | type[list[Any]]] = {
    ("collections", "OrderedDict"): dict, ("collections", "defaultdict"): dict, ("collections", "Counter"): dict,
    ("builtins", "dict"): dict, ("builtins", "list"): list, ("builtins", "set"): list, ("builtins", "frozenset"): list,
    ("builtins", "tuple"): list, ("collections", "deque"): list,
    ("__builtin__", "dict"): dict, ("__builtin__", "list"): list, ("__builtin__", "set"): list,
    ("__builtin__", "frozenset"): list,
}  # fmt: skip


def is_container(name: GlobalName) -> bool:
    """Whether `name` is a container of the standard library."""
    return (name.module, name.name) in CONTAINERS
