"""Several models as small multiples: the same picture of each, on the same axes, so that the eye compares them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element

from ...record import Classification
from ...words import amount
from .charts import bands, panel, picture, rho_axis, side_of
from .elements import element

_HEADS: Mapping[str, str] = {
    "writer": "writers",
    "reader": "readers",
    "embedding": "embeddings",
    "unknown": "role unknown",
}
_REACH = 8.0  # log-odds at the ends of the scale of the sum: beyond all caps


def roles_of(records: Iterable[Classification]) -> list[str]:
    """Return the columns that small pictures of these models need, all the same."""
    found = {panel(one.role) for record in records for one in record.shadows}
    return [role for role in _HEADS if role in found]


def small_picture(record: Classification, name: str, roles: Sequence[str]) -> Element:
    """Draw ρ of a model's matrices by role, before the spread of the corpus, and below it the sum of its log-odds."""
    left, all_of_it, gap, axis = 34, 204, 8, rho_axis(20, 92)
    column = all_of_it / max(len(roles), 1) - gap
    main = record.components[0].name if record.components else "main"
    total = math.fsum(one.log_odds for one in record.evidence if one.component == main)
    shadows = [one for one in record.shadows if one.component == main]
    words = f"ρ of {amount(len(shadows), 'matrix', 'matrices')}; log-odds add up to {total:+.2f}"
    svg = picture(left + all_of_it, 164, f"{name} in small", words)
    for number, role in enumerate(roles):
        x = left + number * (column + gap)
        svg.append(element("text", _HEADS[role], class_="tick", x=x + column / 2, y=12, text_anchor="middle"))
        svg.extend(axis.grid(x, column, labels=number == 0))
        for _, _, _, drawn in bands(axis, role, x, column):
            svg.extend(drawn)
        found = [one for one in shadows if panel(one.role) == role]
        for place, one in enumerate(found):
            at = x + (place + 0.5) * column / len(found)
            svg.append(
                element(
                    "g", element("title", f"{one.tensor}: ρ = {one.rho:.3g}"), axis.point(at, one.rho, 2.5, "point")
                )
            )
    svg.extend(_sum(total, left, all_of_it - gap, 134))
    return svg


def _sum(total: float, left: float, width: float, y: float) -> list[Element]:
    middle = left + width / 2
    end = middle + min(max(total / _REACH, -1.0), 1.0) * width / 2
    return [
        element("line", class_="grid", x1=left, x2=left + width, y1=y + 5, y2=y + 5),
        element(
            "rect",
            class_=f"bar sum {side_of(total)}",
            x=min(middle, end),
            y=y,
            width=max(abs(end - middle), 1.5),
            height=10,
        ),
        element("line", class_="zero", x1=middle, x2=middle, y1=y - 3, y2=y + 13),
        element("text", "RMSNorm", class_="tick", x=left, y=y + 26),
        element("text", "LayerNorm", class_="tick", x=left + width, y=y + 26, text_anchor="end"),
    ]
