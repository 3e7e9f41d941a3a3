"""Write the JSON Schema of the records, which `normsniff schema` prints, from their classes: python -m tools.schema."""

from __future__ import annotations

import json
from pathlib import Path

from normsniff.record import json_schema

SCHEMA = Path(__file__).parents[1] / "src" / "normsniff" / "data" / "record.schema.json"


def text() -> str:
    """Return what the file must hold."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text(), encoding="utf-8")
    print(SCHEMA)
