"""What the matrices of a role learned: every direction above the noise, and its overlap with the dead one, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from ...record import Evidence
from .axis import LogAxis, beyond
from .charts import picture
from .elements import element

_AXIS = LogAxis((0.001, 0.01, 0.1, 1.0, 10.0), 0.0007, 10.0, 30, 200)
_ROLES = {"writer": "writers", "reader": "readers", "unknown": "matrices of unknown role"}
_UNDER_LAYER_NORM = 0.03
"""Middle of what is left of the learned energy along the dead direction under LayerNorm: e⁻³·⁵, and the noise beside it
adds 1 - c̄."""


def spectrum_charts(evidence: Sequence[Evidence], prefix: str) -> list[Element]:
    """Draw one picture a role from `details.learned` of the kernel evidence; none where nothing was learned."""
    return [_panel(role, pool, prefix) for role, pool in _pools(evidence)]


def directions_beyond(evidence: Sequence[Evidence]) -> str:
    """Return what `spectrum_charts` cannot show in place, as a sentence for its caption, or ""."""
    return beyond(
        _AXIS,
        (
            (f"direction {number + 1} of the {_ROLES[role]}", ratio)
            for role, pool in _pools(evidence)
            for number, ratio in enumerate(pool["ratios"])
        ),
    )


def _pools(evidence: Sequence[Evidence]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in evidence:
        learned = one.details.get("learned") if one.kind == "kernel" else None
        if isinstance(learned, Mapping):
            yield from ((role, pool) for role, pool in learned.items() if role in _ROLES and pool["signals"])


def _panel(role: str, pool: Mapping[str, Any], prefix: str) -> Element:
    x0, width, axis = 40, 220, _AXIS
    words = f"ρ {pool['rho']:.2g} in what they learned, {pool['nu']:.1f} independent directions"
    svg = picture(x0 + width + 76, axis.top + axis.height + 28, f"{prefix}{_ROLES[role]}", words)
    svg.append(element("text", _ROLES[role].capitalize(), class_="head", x=x0, y=14))
    svg.extend(axis.grid(x0, width))
    layer_norm = 1 - pool["share"] * (1 - _UNDER_LAYER_NORM)
    for norm, side, middle in (("LayerNorm", "ln", layer_norm), ("RMSNorm", "rms", 1.0)):
        y = axis.at(middle)
        svg.append(element("line", class_=f"middle {side}", x1=x0, x2=x0 + width, y1=y, y2=y))
        svg.append(element("text", norm, class_=f"{side} side", x=x0 + width + 6, y=y + 4))
    signals, ratios = pool["signals"], pool["ratios"]
    for number, (signal, ratio) in enumerate(zip(signals, ratios, strict=True)):
        x = x0 + (number + 0.5) * width / len(signals)
        radius = 2 + 5 * math.sqrt(signal / max(signals))
        about = f"direction {number + 1}: {signal:.3g} times the noise, overlap {ratio:.3g} of chance"
        svg.append(element("g", element("title", about), axis.point(x, ratio, radius, "peak")))
    foot, y = "directions, strongest first", axis.top + axis.height + 18
    svg.append(element("text", foot, class_="tick", x=x0 + width / 2, y=y, text_anchor="middle"))
    return svg
