"""The fixtures and their ground truth, as tests want them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"


@dataclass(frozen=True)
class Fixture:
    """One model of the manifest: what to give to `sniff`, and what the answer must be."""

    path: Path
    format: str
    model: str
    truth: str
    truth_kernel: str
    d_model: int
    sites: int


@cache
def models() -> tuple[Fixture, ...]:
    """Return one entry for every model; shards of one model count once."""
    rows = tomllib.loads((FIXTURES / "manifest.toml").read_text())["file"]
    found: dict[Path, Fixture] = {}
    for row in rows:
        path = FIXTURES / row["input"]
        found.setdefault(
            path,
            Fixture(path, row["format"], row["model"], row["truth"], row["truth_kernel"], row["d_model"], row["sites"]),
        )
    return tuple(found.values())


def name(fixture: Fixture) -> str:
    """Return a test id."""
    return fixture.path.relative_to(FIXTURES).as_posix()
