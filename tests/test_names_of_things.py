"""A name means one thing: no two classes share one, and no two files of rooms that know each other."""

from __future__ import annotations

import ast
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from tests.helpers.houses import built
from tools.rooms import House

HOUSE = House()

# Classes of one name that are one thing, with the reason.
ONE_THING = {
    "MonitorCallback": "one for each trainer; a user imports the one of the trainer at hand",
}

# Files of one name in rooms that know each other, with the reason.
ONE_FILE = {
    ("checkpoint", "formats.checkpoint"): "the second is where plug-ins have always found the first",
    ("anatomy.keras.describe", "anatomy.names.describe"): "every anatomy is entered through the `describe` of its room",
    ("batch.scan", "cli.scan"): "a command's file bears the name of the command",
    ("cli.plan", "measure.plan"): "a command's file bears the name of the command",
}


def definitions(path: Path) -> dict[str, str]:
    """Return the classes of a module and its aliases of types, without a leading underscore: name -> source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name: f"{path}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id.lstrip("_")
            if name[:1].isupper() and not name.isupper() and any(letter.islower() for letter in name):
                found[node.targets[0].id] = ast.unparse(node.value)  # the same alias twice is one meaning
    return {name.lstrip("_"): where for name, where in found.items()}


def homonyms(house: House) -> dict[str, list[str]]:
    """Return the names that several classes or aliases bear, and where."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for module, path in house.modules.items():
        for name, source in definitions(path).items():
            found[name][source] = module
    return {name: sorted(places.values()) for name, places in found.items() if len(places) > 1}


def are_neighbours(house: House, one: str, other: str) -> bool:
    """Whether one room lies in the other, or knows it: their files are then spoken of in one breath."""
    doors = {one: {one, f"{one}.__init__"}, other: {other, f"{other}.__init__"}}
    return (
        bool(house.arrows.get(one, set()) & doors[other])
        or bool(house.arrows.get(other, set()) & doors[one])
        or one.startswith(f"{other}.")
        or other.startswith(f"{one}.")
    )


def files_of_one_name(house: House) -> list[tuple[str, str]]:
    """Return the pairs of modules of neighbouring rooms whose files have one name."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for module, path in house.modules.items():
        if path.name != "__init__.py":
            by_name[path.stem].append(module)
    return [
        pair
        for modules in by_name.values()
        for pair in combinations(sorted(modules), 2)
        if "" in (rooms := [module.rpartition(".")[0] for module in pair]) or are_neighbours(house, *rooms)
    ]


def test_a_class_has_a_name_of_its_own() -> None:
    assert homonyms(HOUSE).keys() == ONE_THING.keys(), homonyms(HOUSE)


def test_files_of_neighbouring_rooms_have_names_of_their_own() -> None:
    assert set(files_of_one_name(HOUSE)) == ONE_FILE.keys()


@pytest.fixture
def house(tmp_path: Path) -> House:
    files = {
        "__init__.py": "",
        "hall/__init__.py": "",
        "hall/door.py": "class Lock:\n    class _Key: ...\n\nNumber = int\n_SHOUTED = 1\n",
        "attic/__init__.py": "",
        "attic/door.py": "from ..hall import door\n\nclass _Lock: ...\n\nNumber = int\nKey = str\n_SHOUTED = 2\n",
        "cellar/__init__.py": "",
        "cellar/door.py": "Number = float\n",
        "cellar/hatch.py": "class Hatch: ...\n",
    }
    return built(tmp_path, files)


def test_homonyms_are_found_through_underscores_and_in_aliases(house: House) -> None:
    assert homonyms(house) == {
        "Lock": ["attic.door", "hall.door"],
        "Key": ["attic.door", "hall.door"],
        "Number": ["cellar.door", "hall.door"],
    }


def test_rooms_that_do_not_know_each_other_may_be_furnished_alike(house: House) -> None:
    assert files_of_one_name(house) == [("attic.door", "hall.door")]


def test_a_file_beside_the_rooms_is_everyone_s_neighbour(house: House) -> None:
    (house.root / "hatch.py").write_text("")
    assert ("cellar.hatch", "hatch") in files_of_one_name(House(house.root))
