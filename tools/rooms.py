"""Who knows whom in the package, read from its sources: modules, the rooms they are in, and the imports between them.

A room is a directory of modules, or a module that lies beside the rooms. Where a directory has rooms inside, its
``__init__`` stands above them as a room of its own, the door: what comes in there is led on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "normsniff"


@dataclass(frozen=True)
class House:
    """A package by its sources.

    Attributes:
        root: its directory.
    """

    root: Path = PACKAGE

    @cached_property
    def modules(self) -> dict[str, Path]:
        """The file of each module, by its dotted name without that of the package, which itself is "__init__"."""
        found = {}
        for path in sorted(self.root.rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            found[".".join(parts if parts == ("__init__",) or parts[-1] != "__init__" else parts[:-1])] = path
        return found

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules that each module imports: at its top, inside functions, for types alone, or by a dotted name."""
        return {name: set(self._imports(name)) - {name} for name in self.modules}

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """The rooms that each room knows."""
        rooms: dict[str, set[str]] = {self.room(name): set() for name in self.modules if not self._is_bare_door(name)}
        for name, known in self.imports.items():
            for other in known:
                if self.room(name) != self.room(other) and not self._is_bare_door(other):
                    rooms[self.room(name)].add(self.room(other))
        return rooms

    def room(self, name: str) -> str:
        """Return the room that a module is in."""
        if self._is_package(name):
            return f"{name}.__init__" if self._has_rooms(name) else name
        return name.rpartition(".")[0] or name

    def _is_package(self, name: str) -> bool:
        return name != "__init__" and self.modules[name].name == "__init__.py"

    def _has_rooms(self, name: str) -> bool:
        return any(other.startswith(f"{name}.") and self._is_package(other) for other in self.modules)

    def _is_bare_door(self, name: str) -> bool:
        return self._is_package(name) and self._has_rooms(name) and not self.imports[name]

    def _imports(self, name: str) -> Iterator[str]:
        base = [self.root.name, *name.split(".")] if name != "__init__" else [self.root.name]
        if name != "__init__" and not self._is_package(name):
            base.pop()
        for node in ast.walk(ast.parse(self.modules[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                start = base[: len(base) - node.level + 1] if node.level else []
                whole = ".".join([*start, *([node.module] if node.module else [])])
                yield from filter(None, (self._module(f"{whole}.{alias.name}", whole) for alias in node.names))
            elif isinstance(node, ast.Import):
                yield from filter(None, (self._module(alias.name) for alias in node.names))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # importlib, by a name in a table
                name_of_module = node.value.partition(":")[0]
                yield from filter(None, (self._module(name_of_module) if "." in name_of_module else None,))

    def _module(self, *names: str) -> str | None:
        """Return the first of some absolute dotted names that is a module of the package."""
        for name in names:
            if name == self.root.name:
                return "__init__"
            if name.startswith(f"{self.root.name}.") and name.removeprefix(f"{self.root.name}.") in self.modules:
                return name.removeprefix(f"{self.root.name}.")
        return None


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Return nodes that lead back to the first, or nothing if arrows lead in one direction only."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the nodes by height: those that know nobody, those that know only these, and so on."""
    sorter = TopologicalSorter(arrows)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found.append(ready)
        sorter.done(*ready)
    return found
