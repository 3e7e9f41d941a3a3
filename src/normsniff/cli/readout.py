"""`normsniff readout ACTIVATIONS FILE`: what the activations of norms and blocks show of dead directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .options import (
    HELP,
    InputPath,
    Number,
    console,
    echo_record,
    failing,
    source_argument,
    terminal_width,
)

if TYPE_CHECKING:
    from ..dead.readouts import NormReadout, Readout, SequenceReadout
    from ..render.lines import Line
    from ..source.place import Place

_EXAMPLES = """\b
Examples:
  normsniff readout activations.npz model.safetensors
  normsniff readout final.npy model.onnx --norm /model/norm/
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@click.argument("activations", type=InputPath())
@source_argument
@click.option("--norm", metavar="NAME", help="The norm that the activations are outputs of, where no name tells.")
@click.option(
    "--threshold",
    type=Number("number", "number", 0.0, 1.0),
    default=1e-6,
    show_default=True,
    help="A direction is dead if its singular value is below this part of the largest.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per norm and per sequence of blocks.")
def readout(activations: Place, source: Place, norm: str | None, threshold: float, as_json: bool) -> None:
    """Compare recorded activations with the dead directions that a model's scales give.

    ACTIVATIONS is a .npy, .npz or safetensors file; its last axis is the width, all others are tokens. An array
    belongs to the norm whose name it has (`normsniff direction` lists them), or whose name ends in its own. Others
    whose names differ in one number are taken for the outputs of consecutive blocks.
    """
    from ..dead.readouts import readout as read
    from ..render.lines import emit

    with failing(activations, as_json=as_json):
        found = read(activations, source, norm=norm, threshold=threshold)
    if as_json:
        for one in (*found.norms, *found.sequences):
            echo_record(one)
    else:
        emit(_lines(found), console())
    if found.unmatched:
        click.echo(f"not used, no norm and no sequence has such names: {', '.join(found.unmatched)}", err=True)


def _lines(found: Readout) -> Iterator[Line]:
    from ..render.lines import columns, reasons

    header = (
        "norm",
        "label",
        "rows",
        "λ along v / median",
        "λ smallest / median",
        "|cos| bottom, v",
        "chance",
        "further",
        "ρ_L readers",
    )
    if found.norms:
        yield from columns(
            header,
            map(_row, found.norms),
            terminal_width(),
            ("further", "chance", "|cos| bottom, v", "λ smallest / median", "rows"),
        )
    yield from reasons([one.reason for one in found.norms])
    for sequence in found.sequences:
        yield from _sequence(sequence)


def _row(one: NormReadout) -> tuple[str, ...]:
    return (
        one.norm,
        one.label,
        f"{one.rows:,}",
        _ratio(one.along, one.median),
        _ratio(one.smallest, one.median),
        "–" if one.cosine is None else f"{one.cosine:.4f}",
        "–" if one.chance is None else f"{one.chance:.2f}",
        "–" if one.further is None else str(one.further),
        "–" if one.learned is None else f"{one.learned:.2f}",
    )


def _ratio(value: float | None, median: float | None) -> str:
    return f"{value / median:.1e}" if value is not None and median else "–"


def _sequence(one: SequenceReadout) -> Iterator[Line]:
    yield [(f"  {one.places[0]} … {one.places[-1]}", "bold"), (f"  {len(one.places)} places", "")]
    if one.reason:
        yield [(f"    {one.reason}", "dim")]
        return
    text = f"    smallest live singular value, step by step: × {min(one.ratios):.2g} to × {max(one.ratios):.2g}"
    yield [(text, ""), (f", dead {one.dead[0]} → {one.dead[-1]}", "")]
    yield [(f"    exceptions: {'; '.join(one.exceptions) or 'none'}", "")]
