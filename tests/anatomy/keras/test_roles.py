"""What a Keras variable is to the stream: every row of the table of forms."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from normsniff.anatomy.keras.roles import ROLES, Variable, role_of

D, WIDE = 8, 20
PLAIN = Variable("layer", "kernel", (D, D), D, embedding=False, convolution=False, after_norm=False, into_sum=False)

# form -> a variable, by what differs from PLAIN; its role; its axis
ROWS: list[tuple[str, dict[str, Any], str, int | None]] = [
    ("table of a reversible embedding", {"embedding": True, "leaf": "1", "shape": (D, 500)}, "unembedding", 0),
    ("table of another width", {"embedding": True, "leaf": "0", "shape": (D, 4)}, "unknown", None),
    ("positions", {"embedding": True, "path": "position_embedding", "shape": (64, D)}, "position", 1),
    ("embedding", {"embedding": True, "shape": (500, D)}, "embedding", 1),
    ("no kernel", {"leaf": "spline", "shape": (D, WIDE)}, "unknown", None),
    ("no kernel", {"shape": (3, 3, D, WIDE)}, "unknown", 2),
    ("named as a writer", {"path": "block/attention_output", "shape": (2, 4, D)}, "writer", 2),
    ("named as a reader", {"path": "block/query", "shape": (D, 2, 4)}, "reader", 0),
    ("named as a reader", {"path": "block/query", "shape": (2, D, 4)}, "reader", 1),  # Gemma
    ("head", {"path": "logits", "shape": (D, 4)}, "unembedding", 0),
    ("behind a norm, or wider than the stream", {"after_norm": True}, "reader", 0),
    ("behind a norm, or wider than the stream", {"shape": (D, WIDE)}, "reader", 0),
    ("behind a norm, or wider than the stream", {"convolution": True, "shape": (1, D, WIDE)}, "reader", 1),
    ("into a sum, or from something wider", {"into_sum": True}, "writer", 1),
    ("into a sum, or from something wider", {"shape": (WIDE, D)}, "writer", 1),
    ("anything else", {}, "unknown", None),
    ("anything else", {"shape": (D, 4)}, "unknown", 0),
]


def test_every_row_is_tried() -> None:
    assert {form for form, *_ in ROWS} == {row.form for row in ROLES}


@pytest.mark.parametrize(("form", "change", "role", "axis"), ROWS)
def test_a_variable_is_what_its_row_says(form: str, change: dict[str, Any], role: str, axis: int | None) -> None:
    variable = msgspec.structs.replace(PLAIN, **change)
    assert next(row.form for row in ROLES if row.fits(variable)) == form
    assert role_of(variable) == (role, axis)
