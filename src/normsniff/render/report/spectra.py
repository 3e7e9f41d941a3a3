"""What the matrices of a role learned: every direction above the noise, and its overlap with the dead one, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from ...record import Evidence
from .charts import picture
from .elements import element

_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0)
_ROLES = {"writer": "writers", "reader": "readers", "unknown": "matrices of unknown role"}
_UNDER_LAYER_NORM = 0.03
"""Middle of what is left of the learned energy along the dead direction under LayerNorm: e⁻³·⁵, and the noise beside it
adds 1 - c̄."""


def spectrum_charts(evidence: Sequence[Evidence], prefix: str) -> list[Element]:
    """Draw one picture a role from `details.learned` of the kernel evidence; none where nothing was learned."""
    found = [one.details.get("learned") for one in evidence if one.kind == "kernel"]
    return [
        _panel(role, pool, prefix)
        for pools in found
        if isinstance(pools, Mapping)
        for role, pool in pools.items()
        if role in _ROLES and pool["signals"]
    ]


def _panel(role: str, pool: Mapping[str, Any], prefix: str) -> Element:
    x0, y0, width, height = 40, 30, 220, 200
    low, high = math.log(_TICKS[0] * 0.7), math.log(_TICKS[-1])

    def at(ratio: float) -> float:
        share = (math.log(max(ratio, 1e-9)) - low) / (high - low)
        return y0 + height * (1 - min(max(share, 0.0), 1.0))

    words = f"ρ {pool['rho']:.2g} in what they learned, {pool['nu']:.1f} independent directions"
    svg = picture(x0 + width + 76, y0 + height + 28, f"{prefix}{_ROLES[role]}", words)
    svg.append(element("text", _ROLES[role], class_="head", x=x0, y=14))
    for tick in _TICKS:
        svg.append(element("line", class_="grid", x1=x0, x2=x0 + width, y1=at(tick), y2=at(tick)))
        svg.append(element("text", f"{tick:g}", class_="tick", x=x0 - 6, y=at(tick) + 4, text_anchor="end"))
    layer_norm = 1 - pool["share"] * (1 - _UNDER_LAYER_NORM)
    for norm, side, middle in (("LayerNorm", "ln", layer_norm), ("RMSNorm", "rms", 1.0)):
        svg.append(element("line", class_=f"middle {side}", x1=x0, x2=x0 + width, y1=at(middle), y2=at(middle)))
        svg.append(element("text", norm, class_=f"{side} side", x=x0 + width + 6, y=at(middle) + 4))
    signals, ratios = pool["signals"], pool["ratios"]
    for number, (signal, ratio) in enumerate(zip(signals, ratios, strict=True)):
        x = x0 + (number + 0.5) * width / len(signals)
        radius = 2 + 5 * math.sqrt(signal / max(signals))
        about = f"direction {number + 1}: {signal:.3g} times the noise, overlap {ratio:.3g} of chance"
        svg.append(
            element("g", element("title", about), element("circle", class_="peak", cx=x, cy=at(ratio), r=radius))
        )
    foot = "directions, strongest first"
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y0 + height + 18, text_anchor="middle"))
    return svg
