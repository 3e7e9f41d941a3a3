"""The checkpoints of a training run as a picture: ρ by role on top, what the kernel makes of it below."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MissingExtra
from ..outputs import replacing
from ..training.summary import Summary
from ..training.tracking import Snapshot

SUFFIXES = (".png", ".svg")
_COLOURS = {"writers": "C0", "readers": "C1", "embeddings": "C2", "unknown": "C4"}


def plot(snapshots: Sequence[Snapshot], path: Path) -> None:
    """Draw a run and write it as PNG or SVG, whichever the suffix says.

    The horizontal axis is the step where every checkpoint has one, else the order. Unreadable checkpoints leave a gap.

    Raises:
        MissingExtra: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    require()
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    known = all(one.step is not None for one in snapshots)
    rows = [
        (one.step if known and one.step is not None else i, one.summary)
        for i, one in enumerate(snapshots)
        if one.summary is not None
    ]
    figure = Figure(figsize=(8, 7), layout="constrained")
    shadows, verdict, scales = figure.subplots(3, sharex=True, height_ratios=(3, 1.4, 1.4))
    _draw_shadows(shadows, rows)
    _draw(verdict, [(x, summary.p_layernorm) for x, summary in rows], "P(LayerNorm), by weights alone")
    verdict.set_ylim(-0.05, 1.05)
    _draw(scales, [(x, summary.scale_spread) for x, summary in rows], "std/|mean| of γ")
    means = scales.twinx()
    _draw(means, [(x, summary.scale_mean) for x, summary in rows], "mean of γ (right)", color="C3", linestyle=":")
    for axes in (shadows, verdict, scales):
        axes.grid(visible=True, alpha=0.3)
    places = {shadows: "best", verdict: "center left", scales: "upper left", means: "lower right"}
    for axes, place in places.items():
        axes.legend(loc=place, fontsize="small")
    scales.set_xlabel("step" if known else "checkpoint, in order")
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=120)


def require() -> None:
    """Check that matplotlib is there, before any work is done.

    Raises:
        MissingExtra: it is not.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtra("plot", "a picture of a run")


def _draw_shadows(axes: Any, rows: Sequence[tuple[int, Summary]]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.axhline(1.0, color="0.5", linewidth=1, linestyle="--", label="chance: ρ = 1")
    for role, colour in _COLOURS.items():
        found = [(x, summary.rho[role]) for x, summary in rows if role in summary.rho]
        if not found:
            continue
        places = [x for x, _ in found]
        axes.plot(places, [mean.rho for _, mean in found], marker="o", markersize=3, color=colour, label=role)
        bands = [(max(mean.rho - (mean.error or 0), mean.rho / 10), mean.rho + (mean.error or 0)) for _, mean in found]
        low, high = zip(*bands, strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.3), max(high, 2.0))  # so that the noise about 1 does not look like a finding
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("ρ ± standard error")


def _draw(axes: Any, points: Sequence[tuple[int, float | None]], label: str, **style: str) -> None:
    known = [(x, y) for x, y in points if y is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=3, label=label, **style)
