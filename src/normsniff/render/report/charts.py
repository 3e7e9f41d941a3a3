"""The pictures of a report, as inline SVG: log-odds that add up, ρ by layer, scales by norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from ...record import Evidence, NormSite, Shadow
from .elements import element

_ROLES = {
    "writer": "Writers into the stream",
    "reader": "Readers of a norm",
    "embedding": "Embeddings",
    "unknown": "Matrices of unknown role",
}
_RHO_TICKS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_ODDS_TICKS = {-6.9: "99.9 %", -4.6: "99 %", -2.2: "90 %", 0.0: "50 %", 2.2: "90 %", 4.6: "99 %", 6.9: "99.9 %"}
_MOST_NORMS = 400


def odds_chart(evidence: Sequence[Evidence], title: str) -> Element:
    """Draw the log-odds of each piece as a bar that begins where the one before ended; the last bar is their sum."""
    total = sum(one.log_odds for one in evidence)
    reach = [0.0]
    for one in evidence:
        reach.append(reach[-1] + one.log_odds)
    span = max(7.5, *(abs(x) for x in reach)) * 1.05
    left, width, row = 110, 560, 30

    def at(x: float) -> float:
        return left + (x / span + 1) * width / 2

    height = row * (len(evidence) + 1) + 34
    svg = picture(left + width + 70, height + 16, title, f"Log-odds add up to {total:+.2f}")
    for tick, text in _ODDS_TICKS.items():
        svg.append(element("line", class_="grid", x1=at(tick), x2=at(tick), y1=18, y2=height - 12))
        svg.append(element("text", text, class_="tick", x=at(tick), y=height + 4, text_anchor="middle"))
    svg.append(element("text", "← RMSNorm", class_="rms side", x=at(0) - 8, y=12, text_anchor="end"))
    svg.append(element("text", "LayerNorm →", class_="ln side", x=at(0) + 8, y=12))
    for number, one in enumerate(evidence):
        svg.append(
            _bar(at(reach[number]), at(reach[number + 1]), 22 + number * row, one.kind, one.log_odds, one.reason)
        )
        if number:
            y = 22 + number * row
            svg.append(element("line", class_="step", x1=at(reach[number]), x2=at(reach[number]), y1=y - 12, y2=y))
    svg.append(_bar(at(0), at(total), 22 + len(evidence) * row, "sum", total, "the sum of the log-odds", "sum"))
    return svg


def _bar(start: float, end: float, y: float, name: str, odds: float, reason: str, kind: str = "") -> Element:
    side = "ln" if odds > 0 else "rms" if odds < 0 else "flat"
    low, high = min(start, end), max(start, end)
    return element(
        "g",
        element("title", f"{name}: {odds:+.2f} – {reason}"),
        element("text", name, class_="name", x=100, y=y + 13, text_anchor="end"),
        element("rect", class_=f"bar {side} {kind}", x=low, y=y, width=max(high - low, 1.5), height=18, rx=2),
        element("text", f"{odds:+.2f}", class_="value", x=high + 6, y=y + 13),
    )


def shadow_charts(shadows: Sequence[Shadow], prefix: str) -> list[Element]:
    """Draw ρ of every matrix by layer, one picture a role, before the spread that the corpus shows for each norm."""
    panels = {role: [s for s in shadows if _panel(s.role) == role] for role in _ROLES}
    return [_rho_panel(role, found, f"{prefix}{_ROLES[role]}") for role, found in panels.items() if found]


def _rho_panel(role: str, shadows: Sequence[Shadow], title: str) -> Element:
    x0, y0, width, height = 40, 30, 220, 200
    low, high = math.log(_RHO_TICKS[0] * 0.7), math.log(_RHO_TICKS[-1] * 1.5)

    def at(rho: float) -> float:
        share = (math.log(max(rho, 1e-9)) - low) / (high - low)
        return y0 + height * (1 - min(max(share, 0.0), 1.0))

    mean = math.exp(sum(math.log(max(s.rho, 1e-9)) for s in shadows) / len(shadows))
    svg = picture(x0 + width + 76, y0 + height + 28, title, f"{len(shadows)} matrices, geometric mean of ρ {mean:.2g}")
    svg.append(element("text", _ROLES[role], class_="head", x=x0, y=14))
    for tick in _RHO_TICKS:
        svg.append(element("line", class_="grid", x1=x0, x2=x0 + width, y1=at(tick), y2=at(tick)))
        svg.append(element("text", f"{tick:g}", class_="tick", x=x0 - 6, y=at(tick) + 4, text_anchor="end"))
    for norm, side in (("LayerNorm", "ln"), ("RMSNorm", "rms")):
        bottom, middle, upper = _spread()[role][norm]
        box = {"x": x0, "width": width, "y": at(upper), "height": at(bottom) - at(upper)}
        svg.append(element("rect", class_=f"band {side}", **box))
        svg.append(element("line", class_=f"middle {side}", x1=x0, x2=x0 + width, y1=at(middle), y2=at(middle)))
        svg.append(element("text", norm, class_=f"{side} side", x=x0 + width + 6, y=at(middle) + 4))
    last = max((s.layer for s in shadows if s.layer is not None), default=0)
    for number, one in enumerate(shadows):
        share = one.layer / last if one.layer is not None and last else (number + 0.5) / len(shadows)
        x = x0 + 8 + share * (width - 16)
        error = one.relative_error or 0.0
        words = f"{one.tensor}: ρ = {one.rho:.3g} ± {error:.0%}, {one.vectors:,} vectors"
        svg.append(
            element(
                "g",
                element("title", words),
                element("line", class_="error", x1=x, x2=x, y1=at(one.rho * (1 + error)), y2=at(one.rho / (1 + error))),
                element("circle", class_="point", cx=x, cy=at(one.rho), r=3.5),
            )
        )
    foot = f"layer 0 to {last}" if last else f"{len(shadows)} sampled"
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y0 + height + 18, text_anchor="middle"))
    return svg


def scale_chart(norms: Sequence[NormSite], title: str) -> Element | None:
    """Draw the scales of each norm: the range as a thin line, mean ± standard deviation as a thick one."""
    found = [(site, site.scale) for site in norms if site.scale is not None]
    found = found[:: math.ceil(len(found) / _MOST_NORMS)] if found else found
    if not found:
        return None
    low = min(0.0, *(scale.min for _, scale in found))
    high = max(0.0, *(scale.max for _, scale in found))
    span = (high - low) or 1.0
    x0, width, y0, height = 52, 760, 14, 180

    def at(value: float) -> float:
        return y0 + height * (1 - (value - low) / span)

    svg = picture(
        x0 + width + 12, y0 + height + 34, title, f"Scales of {len(found)} norms, from {low:.3g} to {high:.3g}"
    )
    for tick in _ticks(low, high):
        svg.append(element("line", class_="grid", x1=x0, x2=x0 + width, y1=at(tick), y2=at(tick)))
        svg.append(element("text", f"{tick:g}", class_="tick", x=x0 - 6, y=at(tick) + 4, text_anchor="end"))
    for number, (site, scale) in enumerate(found):
        x = x0 + (number + 0.5) * width / len(found)
        words = f"{site.name}: mean {scale.mean:.4g}, std {scale.std:.3g}, from {scale.min:.4g} to {scale.max:.4g}"
        thick = min(6.0, 0.7 * width / len(found))
        spread = {"y1": at(scale.mean - scale.std), "y2": at(scale.mean + scale.std)}
        svg.append(
            element(
                "g",
                element("title", words),
                element("line", class_="error", x1=x, x2=x, y1=at(scale.min), y2=at(scale.max)),
                element("line", class_=f"body {site.role}", x1=x, x2=x, stroke_width=thick, **spread),
            )
        )
    foot = "norms in the order of the file"
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y0 + height + 24, text_anchor="middle"))
    return svg


def picture(width: float, height: float, title: str, description: str) -> Element:
    """Return an empty picture with its words for those who do not see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"{title}. {description}",
        style=f"max-width: {width:g}px",
    )


def _panel(role: str) -> str:
    return {"unembedding": "embedding", "position": "embedding"}.get(role, role)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    step *= next(m for m in (0.2, 0.5, 1, 2, 5) if (high - low) / (step * m) <= 6)
    return [round(n * step, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


@cache
def _spread() -> dict[str, dict[str, list[float]]]:
    """Return the 5 %, 50 % and 95 % quantiles of ρ by role and norm; `python -m calibration spread` writes them."""
    text = resources.files("normsniff").joinpath("data/spread-v1.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(text)
    rho: dict[str, dict[str, list[float]]] = found["rho"]
    return rho
