"""Tables in Markdown, put between the markers of docs/paper.md. Knows nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runs import Label, State, Trained, Untrained
    from .spectrum import Steps

LABELS = ("LayerNorm", "RMSNorm", "undetermined")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def fill(document: str, tables: Mapping[str, str]) -> str:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``.

    Raises:
        ValueError: a pair of markers is missing, or not there exactly once.
    """
    for name, text in tables.items():
        start, stop = f"<!-- {name} -->", f"<!-- end {name} -->"
        if document.count(start) != 1 or document.count(stop) != 1 or document.index(start) > document.index(stop):
            raise ValueError(f"the document needs {start} and {stop} once each, in this order")
        before, _, rest = document.partition(start)
        document = f"{before}{start}\n\n{text}\n\n{stop}{rest.partition(stop)[2]}"
    return document


def untrained_tables(rows: Sequence[Untrained]) -> dict[str, str]:
    """Return the tables of directions and labels, and a summary in words."""
    head = [
        "network", "norm", "d", "rows", "&#124;cos&#124; of v", "chance, 95 %", "&#124;cos&#124; of **1**",
        "variance along v", "smallest", "next",
    ]  # fmt: skip
    cells = [
        [
            one.name, one.truth, f"{one.d}{'' if one.published else ' (reduced)'}", f"{one.rows:,}",
            f"{one.cosine:.8f}", f"{one.chance:.3f}", f"{one.ones:.3f}", _power(one.along), _power(one.smallest),
            _power(one.next),
        ]
        for one in rows
    ]  # fmt: skip
    layer = [one for one in rows if one.truth == "LayerNorm"]
    rms = [one for one in rows if one.truth == "RMSNorm"]
    met = sum(one.cosine >= 0.9999 for one in layer)
    under = sum(one.cosine <= one.chance for one in rms)
    spread = math.sqrt(sum((1.96 * one.cosine / one.chance) ** 2 for one in rms) / len(rms))
    summary = (
        f"LayerNorm: {met} of {len(layer)} at 0.9999 or more, the lowest 1 - {1 - min(o.cosine for o in layer):.0e}. "
        f"RMSNorm: {under} of {len(rms)} under the 95 % bound of chance, the highest "
        f"{max(o.cosine for o in rms):.3f}; root mean square {spread:.1f} times what chance gives."
    )
    labels = [
        [
            f"{norm}, {what}",
            f"{len(found)}",
            *(f"{sum(o.label == one for o in found)}" for one in LABELS),
            _surest(found),
        ]
        for norm, group in (("LayerNorm", layer), ("RMSNorm", rms))
        for what, found in (
            ("as initialised", [one.label for one in group]),
            ("scales moved, nothing trained", [one.moved for one in group]),
        )
    ]
    return {
        "untrained": table(head, cells),
        "untrained summary": summary,
        "untrained labels": table(["networks", "number", *LABELS, "highest confidence"], labels),
    }


def trained_tables(rows: Sequence[Trained]) -> dict[str, str]:
    """Return the tables of the trained checkpoints."""
    along = [
        [
            one.name, one.final, f"{one.d}", f"{one.rows:,}", f"{one.before.cosine:.4f}", f"{one.after.cosine:.4f}",
            f"{one.chance:.2f}" if one.final == "RMSNorm" else "–", _power(one.before.along),
            _power(one.after.along), _power(one.before.along_single),
            _power(one.after.along_single), f"{one.before.lower}", f"{one.after.lower}",
        ]
        for one in rows
    ]  # fmt: skip
    spectra = [
        [
            one.name, one.final, _arrow(f"{one.before.dead}", f"{one.after.dead}"), _dying(one.after),
            *(_arrow(f"{a}", f"{b}") for a, b in zip(one.before.others, one.after.others, strict=True)),
            _arrow(_power(one.before.smallest), _power(one.after.smallest)),
            _arrow(f"{one.before.largest:.0f}", f"{one.after.largest:.0f}"),
        ]
        for one in rows
    ]  # fmt: skip
    stream = [
        [
            one.name, one.truth, f"{one.before.stream_ones:.3f}", f"{one.before.stream_spread:.3f}",
            f"{one.after.stream_ones:.3f}", f"{one.after.stream_spread:.3f}",
            f"{one.before.stream_ones / one.after.stream_ones:.1f}",
        ]
        for one in rows
        if not one.post_norm
    ]  # fmt: skip
    blocks = [
        [
            one.name, "post" if one.post_norm else "pre", f"{len(one.after.steps.ratios)}", _steps(one.before.steps),
            _steps(one.after.steps), _exceptions(one.after.steps),
            _arrow(f"{one.after.steps.dead[0]}", f"{one.after.steps.dead[-1]}"),
        ]
        for one in rows
    ]  # fmt: skip
    labels = [
        [one.name, one.truth, _label(one.before.label), _label(one.after.label), one.check] for one in rows
    ]  # fmt: skip
    return {
        "along": table(
            [
                "checkpoint", "final norm", "d", "rows", "&#124;cos&#124; init", "trained", "chance, 95 %",
                "λ_v float64, init", "trained", "λ_v float32, init", "trained", "eigenvalues below λ_v, init",
                "trained",
            ],
            along,
        ),
        "spectra": table(
            [
                "checkpoint", "final norm", "dead directions", "vanished scales", "further below 1/10", "1/100",
                "1/1000", "smallest further / median", "largest / median",
            ],
            spectra,
        ),
        "stream": table(
            ["checkpoint", "norm", "init", "null spread", "trained", "null spread", "init / trained"], stream
        ),
        "blocks": table(
            ["checkpoint", "norm placement", "blocks", "range, init", "range, trained", "exceptions, trained",
             "dead, first → last"],
            blocks,
        ),
        "labels": table(["checkpoint", "truth", "untrained twin", "trained", "does it work?"], labels),
    }  # fmt: skip


def _power(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2g}" if 0.01 <= value < 1000 else f"{value:.0e}"


def _arrow(before: str, after: str) -> str:
    return f"{before} → {after}"


def _label(label: Label) -> str:
    return label.label if label.confidence is None else f"{label.label} {100 * label.confidence:.1f} %"


def _surest(labels: Sequence[Label]) -> str:
    given = [one.confidence for one in labels if one.confidence is not None]
    return f"{100 * max(given):.1f} %" if given else "–"


def _dying(state: State) -> str:
    return ", ".join(str(i) for i in state.dying) or "none"


def _steps(steps: Steps) -> str:
    return f"{_power(min(steps.ratios))} – {_power(max(steps.ratios))}"


def _exceptions(steps: Steps) -> str:
    named = [f"block {i} ({_exception(steps, i)})" for i in steps.exceptions]
    return ", ".join(named) or "none"


def _exception(steps: Steps, block: int) -> str:
    return f"{steps.died(block)} die" if steps.died(block) else f"× {_power(steps.ratios[block])}"
