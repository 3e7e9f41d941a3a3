"""The parts of docs/formats.md that the code knows: `python -m tools.formats_page`; a test holds the page to them."""

from __future__ import annotations

import json
from pathlib import Path

from normsniff.formats import refusals

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "formats.md"
_HEAD = "| file | what it says |\n|---|---|\n"


def refused() -> list[str]:
    """Return the rows of the table of what is recognised and not read."""
    rows = {(row.what, row.because): None for row in refusals.TABLE}
    return [f"| {what} | {because} |" for what, because in rows]


def families() -> str:
    """Return how many families the table of facts has."""
    facts = json.loads((ROOT / "src/normsniff/data/families.json").read_text("utf-8"))
    return f"{len(facts['gguf'])} architectures of GGUF and {len(facts['transformers'])} model types of transformers"


def written(page: str) -> str:
    """Return a page with these parts as the code has them now."""
    before, _, rest = page.partition(_HEAD)
    _, _, after = rest.partition("\n\n")
    page = before + _HEAD + "\n".join(refused()) + "\n\n" + after
    before, _, rest = page.partition("in a table of ")
    _, _, after = rest.partition(", taken")
    return f"{before}in a table of {families()}, taken{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
