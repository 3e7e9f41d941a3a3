"""The checkpoints of a training run as an aligned table, row by row as they are measured."""

from __future__ import annotations

from ..training.summary import MeanRho
from ..training.tracking import Snapshot

HEADER = (
    f"{'step':>9}  {'verdict':<12} {'sure':>6} {'kernel':>6}  {'writers ρ':<15} {'readers ρ':<15} {'embeddings ρ':<15}"
    f" {'γ spread':>8} {'γ mean':>7}  checkpoint"
)
"""``kernel`` is the probability of LayerNorm by the weights alone; ± is one standard error; – is unknown."""


def row(snapshot: Snapshot) -> str:
    """Return one line of the table."""
    step = f"{snapshot.step:>9,}" if snapshot.step is not None else f"{'–':>9}"
    summary = snapshot.summary
    if summary is None:
        message = snapshot.error.message if snapshot.error else ""
        return f"{step}  {'unreadable':<12} {message}"
    shadows = " ".join(f"{_mean(summary.rho.get(role)):<15}" for role in ("writers", "readers", "embeddings"))
    return (
        f"{step}  {snapshot.label or '':<12} {_percent(snapshot.confidence):>6} {_percent(summary.p_layernorm):>6}"
        f"  {shadows} {_number(summary.scale_spread):>8} {_number(summary.scale_mean):>7}  {snapshot.path}"
    )


def _mean(mean: MeanRho | None) -> str:
    if mean is None:
        return "–"
    style = ".2f" if mean.rho >= 0.1 else ".2g"
    return f"{mean.rho:{style}}" + (f" ± {mean.error:{style}}" if mean.error is not None else "")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
