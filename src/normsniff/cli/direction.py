"""`normsniff direction FILE`: the dead direction of every norm, as a table and as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    HELP,
    arrays_option,
    console,
    echo_record,
    failing,
    limited,
    limits_options,
    no_such_norm,
    norm_option,
    source_argument,
    spare,
    terminal_width,
)

if TYPE_CHECKING:
    from ..dead.directions import Direction
    from ..render.lines import Line
    from ..source.place import Place

_EXAMPLES = """\b
Examples:
  normsniff direction model.safetensors
  normsniff direction model.onnx --norm '*final*' -o directions.npz
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@source_argument
@norm_option
@arrays_option("Write them, as .safetensors or .npz (float64).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per norm, one per line.")
@limits_options
def direction(
    source: Place,
    norm: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    timeout: float | None,
    memory: int | None,
) -> None:
    """Print the dead direction of every norm of a model, the unit vector γ⁻¹/‖γ⁻¹‖ along which a LayerNorm's output
    never moves, and write it with -o.

    The file holds one array of shape (k, d) for each norm, under its name: k = 1 row, or one row for every dimension
    whose scale is zero. An RMSNorm has none.
    """
    from ..dead import directions as library
    from ..render.lines import emit

    spare([source], output, arrays=True)
    with failing(source, as_json=as_json), limited(timeout, memory) as call:
        found: list[Direction] = call(library.directions, source, norm=norm or "*")
        if norm and not found:
            raise call(no_such_norm, source, norm)
        written = None if output is None else library.save(found, output)
    if as_json:
        for one in found:
            echo_record(one, rows=0 if one.basis is None else len(one.basis))
    elif found:
        emit(_table(found), console())
    else:
        click.echo("no norm")
    if written is not None:
        click.echo(f"{written} of {len(found)} written to {output}", err=True)


def _table(found: list[Direction]) -> Iterator[Line]:
    from ..render.lines import columns, reasons

    header = ("norm", "label", "d", "condition", "angle to 1", "carried by", "dead dimensions")
    yield from columns(header, map(_row, found), terminal_width(), ("dead dimensions", "carried by", "condition", "d"))
    yield from reasons([one.reason for one in found])


def _row(one: Direction) -> tuple[str, ...]:
    return (
        one.norm,
        one.label,
        "–" if one.d is None else str(one.d),
        "–" if one.condition is None else f"{one.condition:.3g}",
        "–" if one.angle is None else f"{one.angle:.1f}°",
        "–" if one.carriers is None else f"{one.carriers:.1f}",
        "–" if one.basis is None else str(one.dead),
    )
