"""The table of codes: what each means, an example, what to do. The words are in data/checks.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from ..record import Severity

_TABLE = Path(__file__).parents[1] / "data" / "checks.toml"


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of finding.

    Attributes:
        code: stable slug.
        severity: the gravest that it comes with.
        title: one line.
        cause: how it comes about.
        example: what `normsniff check` prints.
        cure: what to do.
    """

    code: str
    severity: Severity
    title: str
    cause: str
    example: str
    cure: str

    def page(self, level: int = 2) -> str:
        """Return the documentation of this code as Markdown, its heading of this level."""
        parts = (self.cause.strip(), f"```text\n{self.example.strip()}\n```", f"**Cure.** {self.cure.strip()}")
        return f"{'#' * level} {self.code}\n\n**{self.title}** ({self.severity})\n\n" + "\n\n".join(parts) + "\n"


class _Codes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: tuple[Code, ...]


@cache
def codes() -> Mapping[str, Code]:
    """Return the table, in its order."""
    rows = msgspec.convert(tomllib.loads(_TABLE.read_text("utf-8")), _Codes)
    return {row.code: row for row in rows.code}
