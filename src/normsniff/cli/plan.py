"""`normsniff plan FILE`: what would be read of a model, in which order, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .options import (
    HELP,
    budget_option,
    console,
    echo_json,
    evidence_option,
    failing,
    full_option,
    limited,
    limits_options,
    source_argument,
    terminal_width,
)

if TYPE_CHECKING:
    from ..measure.plan import Plan, Step
    from ..render.lines import Line
    from ..source.place import Place

_EXAMPLES = """\b
Examples:
  normsniff plan model.safetensors
  normsniff plan --json --budget 8MB model.gguf      # with every byte range
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@source_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with every byte range.")
@evidence_option
@budget_option
@full_option
@limits_options
def plan(
    source: Place,
    as_json: bool,
    evidence: tuple[str, ...],
    budget: int,
    full: bool,
    timeout: float | None,
    memory: int | None,
) -> None:
    """Say what a label would read of a model: the header, the scales, then matrices in batches.

    Only the header is read for it. After every batch of matrices reading stops if the verdict is certain.
    """
    from ..pipeline import plan as make
    from ..render.lines import emit

    with failing(source, as_json=as_json), limited(timeout, memory) as call:
        found: Plan = call(make, source, evidence=evidence, budget=None if full else budget)
    if as_json:
        echo_json(found.to_json())
    else:
        emit(_table(found), console())


def _table(found: Plan) -> Iterator[Line]:
    from ..render.lines import columns
    from ..render.text import size

    yield from columns(
        ("batch", "what", "role", "vectors", "ranges", "bytes"),
        map(_row, found.steps),
        terminal_width(),
        ("ranges", "vectors", "role"),
    )
    share = f" of {size(found.file_size)}, {found.least_bytes / found.file_size:.2%}" if found.file_size else ""
    most = "" if found.most_bytes == found.least_bytes else f"; {size(found.most_bytes)} if the verdict stays in doubt"
    yield [(f"  {size(found.least_bytes)}{share}{most}", "")]
    yield from ([(f"  {note}", "dim")] for note in found.notes)


def _row(step: Step) -> tuple[str, ...]:
    from ..render.text import size

    return (
        str(step.batch or "–"),
        step.tensor or step.what,
        step.role or "",
        str(step.vectors or ""),
        str(sum(one.count for one in step.ranges) or "–"),
        size(step.bytes),
    )
