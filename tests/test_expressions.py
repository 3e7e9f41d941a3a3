"""No regular expression takes exponential time: in none does a repetition read one text in two ways."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.helpers.ambiguity import ambiguous_repetitions
from tools.rooms import House

_USES = {f"re.{function}" for function in ("compile", "match", "fullmatch", "search", "sub", "split", "findall")}
# Modules that import what not everybody has: of these, only what stands where it is used.
_OF_OTHERS = (
    "callbacks", "batch.ray", "render.parquet", "source.remote.s3", "source.remote.hub", "source.remote.hooks",
    "source.remote.http", "__main__",
)  # fmt: skip


def expressions(value: Any, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    """Expressions in a value of a module: by themselves, or in tables."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4 and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from expressions(key, depth + 1)
            yield from expressions(inner, depth + 1)
    elif depth < 4 and isinstance(value, tuple | list | set | frozenset):
        for inner in value:
            yield from expressions(inner, depth + 1)


def all_expressions() -> dict[str, re.Pattern[Any]]:
    """Those that modules hold, and those that stand where they are used."""
    found: dict[str, re.Pattern[Any]] = {}
    for name, path in House().modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given: Any = node.args[0] if isinstance(node, ast.Call) and ast.unparse(node.func) in _USES else None
            if isinstance(given, ast.Constant):
                text: Any = given.value
                expression: re.Pattern[Any] = re.compile(text)
                found.setdefault(f"{name}: {expression.pattern!r}"[:150], expression)
        if name.startswith(_OF_OTHERS):
            continue
        module = importlib.import_module(f"normsniff.{name}" if name != "__init__" else "normsniff")
        for key, value in vars(module).items():
            if not key.startswith("__"):
                for one in expressions(value):
                    found.setdefault(f"{name}.{key}: {one.pattern!r}"[:150], one)
    return found


ALL = all_expressions()


def test_all_of_them_are_found() -> None:
    assert len({expression.pattern for expression in ALL.values()}) > 90


@pytest.mark.parametrize("name", ALL)
def test_no_repetition_is_ambiguous(name: str) -> None:
    assert ambiguous_repetitions(ALL[name]) == []


@pytest.mark.parametrize(
    "expression",
    [r"(a*)*", r"(a|a)*", r"(a|aa)+b", r"(\w+\s?)*$", r"optim(_?(states?|dict|state_dict))*", r"(a?b?)*c", r"x(.*,)*y"],
)
def test_ambiguous_ones_are_told(expression: str) -> None:
    assert ambiguous_repetitions(re.compile(expression))


@pytest.mark.parametrize(
    "expression",
    [r"(a*)b", r"(ab|cd)*", r"(\.\w+)+", r"a*a*", r"(\w+-)*\w+", r"(?:(?:ab?)*+c)*", r"(?i:(A|b)*)", r"[^a]*a.*"],
)
def test_others_are_not(expression: str) -> None:
    assert ambiguous_repetitions(re.compile(expression)) == []
