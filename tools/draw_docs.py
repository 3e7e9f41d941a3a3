"""Draw the pictures of docs/how-it-knows.md: ``python -m tools.draw_docs`` (needs matplotlib)."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLOURS = {"LayerNorm": "#1f6feb", "RMSNorm": "#c06500"}


def dead_direction() -> Any:
    """Draw the outputs of both norms against γ⁻¹ and a direction across it."""
    random = np.random.default_rng(1)
    d = 16
    x = random.normal(0.3, 1.0, (2000, d))
    scale = random.uniform(0.5, 1.5, d)
    v = (1 / scale) / np.linalg.norm(1 / scale)
    across = random.normal(size=d)
    across -= across @ v * v
    across /= np.linalg.norm(across)
    centred = x - x.mean(1, keepdims=True)
    outputs = {
        "LayerNorm": scale * centred / np.sqrt((centred**2).mean(1, keepdims=True)),
        "RMSNorm": scale * x / np.sqrt((x**2).mean(1, keepdims=True)),
    }
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4), sharex=True, sharey=True, layout="constrained")
    for axis, (name, y) in zip(axes, outputs.items(), strict=True):
        axis.scatter(y @ across, y @ v, s=3, alpha=0.4, color=COLOURS[name], rasterized=True)
        axis.set_title(name, color=COLOURS[name])
        axis.set_xlabel("along some direction")
    axes[0].set_ylabel("along γ⁻¹")
    return figure


def rho() -> Any:
    """Draw how ρ of the writers is distributed over the corpus."""
    text = gzip.decompress((ROOT / "calibration" / "corpus.csv.gz").read_bytes()).decode()
    rows = [r for r in csv.DictReader(io.StringIO(text)) if r["view"] == "roles" and int(r["step"]) >= 300]
    figure, axis = plt.subplots(figsize=(7.5, 3), layout="constrained")
    bins = np.geomspace(0.015, 3, 45)
    for name, colour in COLOURS.items():
        values = [np.exp(float(r["writers"])) for r in rows if r["truth"] == name and r["writers"]]
        label = f"{name}, {len(values)} snapshots"
        axis.hist(
            values, bins=bins, weights=np.full(len(values), 100 / len(values)), color=colour, alpha=0.6, label=label
        )
    axis.set_xscale("log")
    axis.set_xticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
    axis.set_xlabel("ρ of the writers")
    axis.set_ylabel("% of the snapshots")
    axis.legend(frameon=False)
    return figure


def main() -> None:
    """Write every picture, the same bytes each time."""
    mpl.rcParams["svg.hashsalt"] = "normsniff"
    mpl.rcParams["svg.fonttype"] = "none"
    for name, figure in {"dead-direction": dead_direction(), "rho": rho()}.items():
        figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None}, dpi=150)


if __name__ == "__main__":
    main()
