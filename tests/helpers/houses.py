"""Small packages made of a few lines each, for the tests of how the rooms of this one know each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.rooms import House


def built(directory: Path, files: Mapping[str, str]) -> House:
    """Write the modules of a package called ``toy`` and return it."""
    for name, text in files.items():
        path = directory / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(directory / "toy")
