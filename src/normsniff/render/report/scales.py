"""The scales of a model's norms as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ...record import NormSite, Statistics
from ...words import amount
from .axis import arrowhead, named
from .charts import picture
from .elements import element

_MOST_NORMS = 400
_OUTLIER = 20.0
"""How many times the range of the middle nine tenths of the means a scale's ends may reach before the axis leaves them
out: one norm of 1e30 would draw all the others as a flat line."""


def scale_chart(norms: Sequence[NormSite], title: str) -> tuple[Element, str] | None:
    """Draw the scales of each norm: the range as a thin line, mean ± standard deviation as a thick one.

    Returns:
        The picture, and a sentence on what reaches beyond its axis, or ""; None where no scale was read.
    """
    found = [(site, site.scale) for site in norms if site.scale is not None]
    found = found[:: math.ceil(len(found) / _MOST_NORMS)] if found else found
    if not found:
        return None
    low, high = _reach([scale for _, scale in found])
    span = (high - low) or 1.0
    x0, width, y0, height = 72, 760, 14, 180

    def at(value: float) -> float:
        return y0 + height * (1 - min(max((value - low) / span, 0.0), 1.0))

    words = f"Scales of {amount(len(found), 'norm', 'norms')}, from {low:.3g} to {high:.3g}"
    svg = picture(x0 + width + 12, y0 + height + 34, title, words, wide=True)
    for tick in _ticks(low, high):
        svg.append(element("line", class_="grid", x1=x0, x2=x0 + width, y1=at(tick), y2=at(tick)))
        svg.append(element("text", f"{tick:g}", class_="tick", x=x0 - 6, y=at(tick) + 4, text_anchor="end"))
    outside = []
    for number, (site, scale) in enumerate(found):
        x = x0 + (number + 0.5) * width / len(found)
        words = f"{site.name}: mean {scale.mean:.4g}, std {scale.std:.3g}, from {scale.min:.4g} to {scale.max:.4g}"
        thick = min(6.0, 0.7 * width / len(found))
        # a constant scale is a dash, and no line without length
        ends = {"y1": at(scale.mean - scale.std) + 1.5, "y2": at(scale.mean + scale.std) - 1.5}
        drawn = element(
            "g",
            element("title", words),
            element("line", class_="error", x1=x, x2=x, y1=at(scale.min), y2=at(scale.max)),
            element("line", class_=f"body {site.role}", x1=x, x2=x, stroke_width=thick, **ends),
        )
        for value, tip in ((scale.max, high), (scale.min, low)):
            if not low <= value <= high:
                drawn.append(arrowhead(x, at(tip), "point", up=value > high))
                outside.append((site.name, value))
        svg.append(drawn)
    foot = "norms in the order of the file"
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y0 + height + 24, text_anchor="middle"))
    return svg, named(outside)


def _reach(scales: Sequence[Statistics]) -> tuple[float, float]:
    """Return the ends of the axis: all there is, and 0, unless a few outliers would leave no rest to see."""
    low, high = min(0.0, *(s.min for s in scales)), max(0.0, *(s.max for s in scales))
    tenth = len(scales) // 20
    lows, highs = sorted(s.mean - s.std for s in scales), sorted(s.mean + s.std for s in scales)
    bottom, top = min(0.0, lows[tenth]), max(0.0, highs[len(scales) - 1 - tenth])
    room = _OUTLIER * (top - bottom) / 2
    return (max(low, bottom - room), min(high, top + room)) if room else (low, high)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    step *= next(m for m in (0.2, 0.5, 1, 2, 5) if (high - low) / (step * m) <= 6)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
