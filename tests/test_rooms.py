"""Data flows one way: a room knows those that the table below lets it know, and there is no circle anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.houses import built
from tools.rooms import House, circle, floors

HOUSE = House()

# The words that everyone may use.
GROUND = {
    "_version": "",
    "errors": "",
    "limits": "",
    "meter": "errors limits",
    "dtypes": "",
    "sorting": "",
    "threads": "",
    "outputs": "errors",
    "words": "",
    "plugins": "errors",
    "json_text": "meter",
    "record": "_version errors json_text",
    "arguments": "limits record",
}

# Which room may know which, beside the ground; the way of the data is downwards, so each knows only those above it.
# "x.__init__" is the door of a room that has rooms inside. Whoever lets a room know one more asks first whether the
# word that is missing does not belong lower, or the caller higher.
MAY_KNOW = {
    "source.remote": "",
    "source": "source.remote",
    "kernel": "",
    "families": "",
    "checkpoint": "source",
    "decode": "source checkpoint",
    "formats": "source checkpoint",
    "formats.tflite": "source checkpoint",
    "formats.hdf5": "source checkpoint",
    "formats.keras": "source checkpoint formats formats.hdf5",
    "formats.pytorch": "source checkpoint formats",
    "formats.onnx": "source checkpoint decode",  # constants of quantised graphs are decoded where they stand
    "formats.openvino": "source checkpoint decode",
    "formats.__init__": "source checkpoint formats formats.keras formats.onnx formats.openvino formats.pytorch"
    " formats.tflite",
    "packed": "source checkpoint decode formats.__init__",
    "inputs": "source source.remote kernel checkpoint formats.keras formats.__init__ packed",
    "anatomy": "checkpoint decode",
    "anatomy.names": "families checkpoint anatomy",
    "anatomy.keras": "checkpoint formats.keras anatomy anatomy.names",
    "anatomy.graph.arithmetic": "checkpoint",
    "anatomy.graph": "checkpoint decode anatomy anatomy.graph.arithmetic",  # the constants of a norm that is run
    "anatomy.__init__": "checkpoint formats.__init__ anatomy anatomy.names anatomy.keras anatomy.graph",
    "measure": "source kernel checkpoint decode anatomy",
    "evidence": "families kernel checkpoint anatomy measure",
    "verdict": "anatomy evidence",
    "checks": "checkpoint decode families anatomy measure evidence",
    "workers": "",
    "model": "checks checkpoint inputs anatomy.__init__ measure evidence",
    "course": "kernel measure evidence verdict model",
    "pipeline": "workers checks kernel inputs measure model course",
    "parameters": "checks checkpoint decode inputs anatomy anatomy.__init__ measure evidence",
    "training": "source kernel checkpoint inputs anatomy anatomy.__init__ measure evidence verdict pipeline",
    "callbacks": "training",
    "dead": "source kernel checkpoint decode inputs anatomy measure model course",
    "render": "training checks",  # what a run and a check look like
    "render.report": "render",
    "batch": "source checkpoint inputs measure workers model pipeline render",
    "serve": "source.remote workers inputs measure pipeline checks render.report",
    "cli": "source workers kernel inputs measure pipeline parameters training dead checks render render.report batch"
    " serve",
    "__main__": "cli",
    "__init__": "workers kernel measure pipeline parameters training dead checks batch",
}


def allowed(room: str) -> set[str]:
    return set(GROUND[room].split()) if room in GROUND else {*MAY_KNOW.get(room, "").split(), *GROUND}


def test_modules_do_not_import_in_circles() -> None:
    assert circle(HOUSE.imports) == []


def test_rooms_do_not_know_each_other_in_circles() -> None:
    assert circle(HOUSE.arrows) == []


def test_the_table_lists_every_room() -> None:
    assert sorted(HOUSE.arrows) == sorted({*GROUND, *MAY_KNOW})


@pytest.mark.parametrize("room", sorted(HOUSE.arrows))
def test_a_room_knows_only_what_the_table_lets_it_know(room: str) -> None:
    assert HOUSE.arrows[room] <= allowed(room)


def test_the_table_lets_no_room_know_what_it_does_not_need() -> None:
    unused = {room: may - GROUND.keys() - HOUSE.arrows[room] for room in MAY_KNOW if (may := allowed(room))}
    assert {room: sorted(names) for room, names in unused.items() if names} == {}


def test_the_table_reads_from_the_ground_up() -> None:
    order = [*GROUND, *MAY_KNOW]
    for room in MAY_KNOW:
        assert all(order.index(known) < order.index(room) for known in MAY_KNOW[room].split()), room


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A small house with one import of each kind."""
    files = {
        "__init__.py": "",
        "ground.py": "",
        "late.py": "def f():\n    from . import ground\n",
        "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .wing.hall import x\n",
        "listed.py": 'TABLE = ("toy.wing.hall:read", "toy.absent", "toy")\n',
        "wing/__init__.py": "from ..ground import a\n",
        "wing/hall.py": "import toy.ground\nfrom .nook import door\n",
        "wing/nook/__init__.py": "",
        "wing/nook/door.py": "from ... import late\n",
    }
    return built(tmp_path, files)


def test_every_kind_of_import_is_seen(house: House) -> None:
    assert house.imports == {
        "__init__": set(),
        "ground": set(),
        "late": {"ground"},
        "typed": {"wing.hall"},
        "listed": {"wing.hall"},
        "wing": {"ground"},
        "wing.hall": {"ground", "wing.nook.door"},
        "wing.nook": set(),
        "wing.nook.door": {"late"},
    }
    assert house.arrows["wing"] == {"ground", "wing.nook"}
    assert house.arrows["wing.__init__"] == {"ground"}
    assert floors(house.arrows)[:2] == [["__init__", "ground"], ["late", "wing.__init__"]]


def test_a_circle_is_named(house: House) -> None:
    (house.root / "ground.py").write_text("def f():\n    from .wing import hall\n")
    assert set(circle(House(house.root).imports)) == {"ground", "late", "wing.hall", "wing.nook.door"}
