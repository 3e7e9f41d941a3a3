"""A logarithmic axis upwards, and points on it: what lies beyond its ends is drawn as a mark there, and is named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .elements import element

_TINY = 1e-9  # the logarithm of nothing, for drawing
_NAMED = 6  # points beyond an axis that a caption names: more is a table's work, and there is one


class LogAxis(NamedTuple):
    """From `low` at the bottom to `high` at the top.

    Attributes:
        ticks: values with a line, of which the outer ones lie near the ends.
        low: value at the bottom end.
        high: value at the top end.
        top: where the top end is, in the units of the picture.
        height: length, likewise.
    """

    ticks: Sequence[float]
    low: float
    high: float
    top: float
    height: float

    def at(self, value: float) -> float:
        """Return where a value is drawn; what lies beyond an end, at that end."""
        low, high = math.log(self.low), math.log(self.high)
        share = (math.log(max(value, _TINY)) - low) / (high - low)
        return self.top + self.height * (1 - min(max(share, 0.0), 1.0))

    def misses(self, value: float) -> bool:
        """Whether a value lies beyond an end."""
        return not self.low <= value <= self.high

    def grid(self, left: float, width: float, *, labels: bool = True) -> Iterable[Element]:
        """Yield the lines of the ticks, and their labels at the left."""
        for tick in self.ticks:
            y = self.at(tick)
            yield element("line", class_="grid", x1=left, x2=left + width, y1=y, y2=y)
            if labels:
                yield element("text", f"{tick:g}", class_="tick", x=left - 6, y=y + 4, text_anchor="end")

    def point(self, x: float, value: float, radius: float, kind: str) -> Element:
        """Return a circle at a value, or an arrowhead at the end that it lies beyond."""
        y = self.at(value)
        if not self.misses(value):
            return element("circle", class_=kind, cx=x, cy=y, r=radius)
        return arrowhead(x, y, kind, up=value > self.high)


def arrowhead(x: float, y: float, kind: str, *, up: bool) -> Element:
    """Return the mark of what lies beyond the end of an axis, in the middle of its height at `y`."""
    size = 5.0 if up else -5.0
    corners = f"{x - 5:.5g},{y + size:.5g} {x + 5:.5g},{y + size:.5g} {x:.5g},{y - size:.5g}"
    return element("polygon", class_=f"{kind} beyond", points=corners)


def beyond(axis: LogAxis, values: Iterable[tuple[str, float]]) -> str:
    """Return the names and values that lie beyond an axis, as a sentence for its caption, or ""."""
    return named([(name, value) for name, value in values if axis.misses(value)])


def named(outside: Sequence[tuple[str, float]]) -> str:
    """Return the names and values of what lies beyond an axis, as a sentence for its caption, or ""."""
    if not outside:
        return ""
    first = ", ".join(f"{name} ({value:.2g})" for name, value in outside[:_NAMED])
    more = f" and {len(outside) - _NAMED:,} more" if len(outside) > _NAMED else ""
    return f" Beyond the axis, an arrowhead at its end: {first}{more}."
