"""Libraries whose names say which norm it is, where the same words mean either norm elsewhere. One row a library.

A name is a claim, as that of an architecture is: `declared` evidence weighs both alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ..parts import NormKind
from .patterns import Path, holds


class Dialect(msgspec.Struct, frozen=True):
    """A row.

    Attributes:
        library: its name.
        path: of its norms: structure that nobody else writes.
        norms: the norm by the word of its scale.
        because: how this is known.
    """

    library: str
    path: re.Pattern[str]
    norms: Mapping[str, NormKind]
    because: str


DIALECTS = (
    Dialect(
        "x-transformers",
        re.compile(r"(^|\.)attn_layers\.(layers\.#\.0\.#|layers\.#\.#\.#|final_norm)$"),
        {"gamma": "LayerNorm", "g": "RMSNorm"},
        "its LayerNorm calls the scale gamma, its RMSNorm g (lucidrains/x-transformers, x_transformers.py)",
    ),
)


def kind_of(path: Path) -> tuple[NormKind, str] | None:
    """Return which norm a library means by a name, and how that is known; None where no row knows the name."""
    for row in DIALECTS:
        kind = row.norms.get(path.parameter)
        if kind is not None and holds(path.text, row.path):
            return kind, f"named as {row.library} names it: {row.because}"
    return None
