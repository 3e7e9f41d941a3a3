"""What normalising layers of Keras and KerasHub compute, by their classes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ...formats.keras.layers import snake_case
from ..parts import NormKind


class NormClass(NamedTuple):
    """What a norm class computes, and what is added to its stored scale."""

    kind: NormKind
    offset: float


class Tables(NamedTuple):
    """The tables of ``data/keras_norms.toml``, by snake-case name."""

    norms: Mapping[str, NormClass]
    others: Mapping[str, str]
    families: Mapping[str, NormClass]


@cache
def load_tables() -> Tables:
    """Return the tables, read once."""
    table = Path(__file__).parents[2] / "data" / "keras_norms.toml"
    data: dict[str, Any] = tomllib.loads(table.read_text("utf-8"))
    norms = {
        snake_case(c): NormClass(row["kind"], row.get("offset", 0.0)) for row in data["norm"] for c in row["classes"]
    }
    others = {snake_case(c): kind for kind, classes in data["others"].items() for c in classes}
    families = {p: NormClass(row["kind"], row["offset"]) for row in data["family"] for p in row["prefixes"]}
    return Tables(norms, others, families)
