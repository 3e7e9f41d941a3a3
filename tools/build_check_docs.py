"""Write docs/checks/, a page for every code that `normsniff check` finds, from src/normsniff/data/checks.toml.

Usage: python -m tools.build_check_docs
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from normsniff.checks.codes import codes

FOLDER = Path(__file__).parents[1] / "docs" / "checks"


def pages() -> Mapping[str, str]:
    """Return the text of every page, by file name."""
    table = codes()
    found = {f"{code}.md": row.page(1) for code, row in table.items()}
    rows = "".join(f"| [{row.code}]({row.code}.md) | {row.severity} | {row.title} |\n" for row in table.values())
    found["index.md"] = (
        "# What `normsniff check` finds\n\n"
        "How to run it is in [check.md](../check.md). The severity is the gravest that a code comes with.\n\n"
        f"| code | severity | what it is |\n|---|---|---|\n{rows}"
    )
    return found


def main() -> None:
    """Write the pages, and take away those whose code is gone."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path.name not in pages():
            path.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
