"""The pictures of the evidence, as inline SVG: log-odds that add up, and ρ by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from ...record import Evidence, Shadow
from ...words import amount
from .axis import LogAxis, beyond
from .elements import element

_ROLES = {
    "writer": "Writers into the stream",
    "reader": "Readers of a norm",
    "embedding": "Embeddings",
    "unknown": "Matrices of unknown role",
}
RHO_TICKS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_ODDS_TICKS = {-6.9: "99.9 %", -4.6: "99 %", -2.2: "90 %", 0.0: "50 %", 2.2: "90 %", 4.6: "99 %", 6.9: "99.9 %"}

_BETWEEN = 4.6  # the tick that makes room where there is little
_LETTERS = 110.0  # width of two labels of ticks
_TOP = 30  # room for the heads, which grow on a phone


def odds_chart(evidence: Sequence[Evidence], title: str) -> Element:
    """Draw the log-odds of each piece as a bar that begins where the one before ended; the last bar is their sum."""
    total = sum(one.log_odds for one in evidence)
    reach = [0.0]
    for one in evidence:
        reach.append(reach[-1] + one.log_odds)
    span = max(7.5, *(abs(x) for x in reach)) * 1.05
    left, width, row = 120, 560, 30

    def at(x: float) -> float:
        return left + (x / span + 1) * width / 2

    height = row * (len(evidence) + 1) + _TOP + 12
    svg = picture(left + width + 90, height + 16, title, f"Log-odds add up to {total:+.2f}", wide=True)
    crowded = at(_BETWEEN) - at(0) < _LETTERS
    for tick, text in _ODDS_TICKS.items():
        if crowded and abs(tick) == _BETWEEN:
            continue
        svg.append(element("line", class_="grid", x1=at(tick), x2=at(tick), y1=_TOP - 4, y2=height - 12))
        svg.append(element("text", text, class_=_tick(tick), x=at(tick), y=height + 6, text_anchor="middle"))
    svg.append(element("text", "← RMSNorm", class_="rms side", x=at(0) - 8, y=18, text_anchor="end"))
    svg.append(element("text", "LayerNorm →", class_="ln side", x=at(0) + 8, y=18))
    for number, one in enumerate(evidence):
        y = _TOP + number * row
        svg.append(_bar(at(reach[number]), at(reach[number + 1]), y, one))
        if number:
            svg.append(element("line", class_="step", x1=at(reach[number]), x2=at(reach[number]), y1=y - 12, y2=y))
    y = _TOP + len(evidence) * row
    words, side = f"sum: {total:+.2f} – the sum of the log-odds", side_of(total)
    svg.append(_row(at(0), at(total), y, ("sum", words, f"{total:+.2f}"), f"{side} sum"))
    return svg


def _tick(odds: float) -> str:
    return "tick dense" if abs(odds) == _BETWEEN else "tick"  # those in between are left out on a phone


def _bar(start: float, end: float, y: float, one: Evidence) -> Element:
    """Return the bar of one piece; a sum that is kept to its cap is no evidence for the other side, and is grey."""
    words = f"{one.kind}: {one.log_odds:+.2f} – {one.reason}"
    cap = one.details.get("cap")
    if not isinstance(cap, int | float):
        return _row(start, end, y, (one.kind, words, f"{one.log_odds:+.2f}"), side_of(one.log_odds))
    most = f"kept to {1 / (1 + math.exp(-abs(cap))):.1%}"
    return _row(start, end, y, ("cap", words, most), "cap", before=one.log_odds < 0)


def _row(
    start: float, end: float, y: float, texts: tuple[str, str, str], kind: str, *, before: bool = False
) -> Element:
    name, words, value = texts
    low, high = min(start, end), max(start, end)
    x, anchor = (low - 6, "end") if before else (high + 6, None)
    return element(
        "g",
        element("title", words),
        element("text", name, class_="name", x=110, y=y + 14, text_anchor="end"),
        element("rect", class_=f"bar {kind}", x=low, y=y, width=max(high - low, 1.5), height=18, rx=2),
        element("text", value, class_="value", x=x, y=y + 14, text_anchor=anchor),
    )


def side_of(odds: float) -> str:
    """Return the class of what points to one norm, to the other or to none."""
    return "ln" if odds > 0 else "rms" if odds < 0 else "flat"


def shadow_charts(shadows: Sequence[Shadow], prefix: str) -> list[Element]:
    """Draw ρ of every matrix by layer, one picture a role, before the spread that the corpus shows for each norm."""
    panels = {role: [s for s in shadows if panel(s.role) == role] for role in _ROLES}
    return [_rho_panel(role, found, f"{prefix}{_ROLES[role]}") for role, found in panels.items() if found]


def shadows_beyond(shadows: Sequence[Shadow]) -> str:
    """Return what `shadow_charts` cannot show in place, as a sentence for its caption, or ""."""
    return beyond(_RHO, ((s.tensor, s.rho) for s in shadows))


def rho_axis(top: float, height: float) -> LogAxis:
    """Return the axis of ρ in a picture."""
    return LogAxis(RHO_TICKS, RHO_TICKS[0] * 0.7, RHO_TICKS[-1] * 1.5, top, height)


_RHO = rho_axis(30, 200)


def bands(axis: LogAxis, role: str, left: float, width: float) -> Iterator[tuple[str, str, float, list[Element]]]:
    """Yield norm, class, middle and drawing of what the corpus shows of matrices of a role: 5 %, 50 %, 95 %."""
    for norm, side in (("LayerNorm", "ln"), ("RMSNorm", "rms")):
        bottom, middle, upper = map(axis.at, _spread()[role][norm])
        box = {"x": left, "width": width, "y": upper, "height": bottom - upper}
        band = element("rect", class_=f"band {side}", **box)
        yield (
            norm,
            side,
            middle,
            [band, element("line", class_=f"middle {side}", x1=left, x2=left + width, y1=middle, y2=middle)],
        )


def _rho_panel(role: str, shadows: Sequence[Shadow], title: str) -> Element:
    x0, width, axis = 40, 220, _RHO
    mean = math.exp(sum(math.log(max(s.rho, 1e-9)) for s in shadows) / len(shadows))
    words = f"{amount(len(shadows), 'matrix', 'matrices')}, geometric mean of ρ {mean:.2g}"
    svg = picture(x0 + width + 76, axis.top + axis.height + 28, title, words)
    svg.append(element("text", _ROLES[role], class_="head", x=x0, y=14))
    svg.extend(axis.grid(x0, width))
    for norm, side, middle, drawn in bands(axis, role, x0, width):
        svg.extend(drawn)
        svg.append(element("text", norm, class_=f"{side} side", x=x0 + width + 6, y=middle + 4))
    last = max((s.layer for s in shadows if s.layer is not None), default=0)
    for number, one in enumerate(shadows):
        share = one.layer / last if one.layer is not None and last else (number + 0.5) / len(shadows)
        x = x0 + 8 + share * (width - 16)
        error = one.relative_error or 0.0
        words = f"{one.tensor}: ρ = {one.rho:.3g} ± {error:.0%}, {amount(one.vectors, 'vector', 'vectors')}"
        low, high = axis.at(one.rho / (1 + error)), axis.at(one.rho * (1 + error))
        line = element("line", class_="error", x1=x, x2=x, y1=high, y2=low)
        svg.append(element("g", element("title", words), line, axis.point(x, one.rho, 3.5, "point")))
    foot = f"layer 0 to {last}" if last else f"{len(shadows)} sampled"
    y = axis.top + axis.height + 18
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y, text_anchor="middle"))
    return svg


def picture(width: float, height: float, title: str, description: str, *, wide: bool = False) -> Element:
    """Return an empty picture with its words for those who do not see it; the text of a wide one grows on a phone."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        viewBox=f"0 0 {width:g} {height:g}",
        class_="wide" if wide else None,
        role="img",
        aria_label=f"{title}. {description}",
        style=f"max-width: {width:g}px",
    )


def panel(role: str) -> str:
    """Return in which picture matrices of a role are drawn."""
    return {"unembedding": "embedding", "position": "embedding"}.get(role, role)


@cache
def _spread() -> dict[str, dict[str, list[float]]]:
    """Return the 5 %, 50 % and 95 % quantiles of ρ by role and norm; `python -m calibration spread` writes them."""
    text = resources.files("normsniff").joinpath("data/spread-v1.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(text)
    rho: dict[str, dict[str, list[float]]] = found["rho"]
    return rho
