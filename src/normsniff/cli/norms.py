"""`normsniff norms FILE`: the parameters of every norm, as a table and as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .options import (
    HELP,
    arrays_option,
    console,
    echo_json,
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
    from numpy.typing import NDArray

    from ..inputs.opening import Source
    from ..parameters import NormParameters
    from ..record import StoredScale
    from ..render.lines import Line
    from ..source.place import Place

_EXAMPLES = """\b
Examples:
  normsniff norms model.safetensors
  normsniff norms model.gguf --norm '*attn_norm' -o norms.npz
  normsniff norms hf://google/gemma-3-270m -o norms.safetensors
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@source_argument
@norm_option
@arrays_option("Write the arrays, as .safetensors or .npz.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="Of arrays."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per norm, one per line.")
@limits_options
def norms(
    source: Place,
    norm: tuple[str, ...],
    output: Path | None,
    dtype: str,
    as_json: bool,
    timeout: float | None,
    memory: int | None,
) -> None:
    """Print what every norm of a model stores, and write its arrays with -o.

    The file holds NAME.scale (the effective γ), NAME.stored where the file stores γ - 1, and NAME.shift. Its metadata
    has one row a norm: epsilon, role, layer, component, how the scale is stored.
    """
    import msgspec

    spare([source], output, arrays=True)
    with failing(source, as_json=as_json), limited(timeout, memory) as call:
        found: _Told = call(_find, source, norm, output, dtype, rows=not as_json and output is None)
    if as_json:
        for one in found.facts:
            echo_json(msgspec.json.encode(one))
    elif found.rows:
        from ..render.lines import emit

        emit(_table(found), console())
    if found.written is not None:
        click.echo(f"{found.written} arrays of {len(found.facts)} norms written to {output}", err=True)
    elif not found.facts and not as_json:
        click.echo("no norm")


class _Told(NamedTuple):
    """What is to be printed of the norms of a model, which another process may have read.

    Attributes:
        facts: what JSON has of each.
        rows: of the table, if one is wanted.
        why: what is to be said of what each stores, or "".
        written: how many arrays were; None if no output was asked for.
    """

    facts: list[dict[str, Any]]
    rows: list[tuple[str, ...]]
    why: list[str]
    written: int | None


def _find(source: Source, norm: tuple[str, ...], output: Path | None, dtype: str, *, rows: bool) -> _Told:
    import msgspec

    from .. import parameters as library
    from ..render.scale_words import why

    with library.norms(source, norm=norm or "*", dtype=dtype) as found:
        if norm and not found:
            raise no_such_norm(source, norm)
        found.fetch()
        written = None if output is None else library.save(found, output)
        told = found.stores() if written is None else []
        facts = [one.facts() for one in found]
        for fact, stores in zip(facts, told, strict=False):
            fact["stores"] = None if stores is None else msgspec.structs.asdict(stores)
        with found.counted():
            table = list(map(_row, found, told)) if rows else []
        return _Told(
            facts, table, [why(said, one.zero_centred) for said, one in zip(told, found, strict=False)], written
        )


def _table(found: _Told) -> Iterator[Line]:
    from ..render.lines import columns, reasons

    yield from columns(
        ("norm", "d", "role", "stored", "as", "γ", "β", "epsilon"),
        found.rows,
        terminal_width(),
        ("role", "stored", "d", "as", "epsilon", "β"),
    )
    yield from reasons([one["why"] for one in found.facts])
    yield from reasons(found.why)


def _row(one: NormParameters, told: StoredScale | None) -> tuple[str, ...]:
    from ..render.scale_words import stored

    how = stored(told, one.zero_centred) if one.scale_tensor else "–"
    return (
        one.name,
        "–" if one.d is None else str(one.d),
        one.role,
        one.scale_dtype or one.shift_dtype or "–",
        how,
        _span(one, "scale"),
        _span(one, "shift"),
        "–" if one.epsilon is None else f"{one.epsilon:g}",
    )


def _span(one: NormParameters, part: str) -> str:
    from ..errors import BudgetSpent, NormsniffError

    try:
        values = one.scale if part == "scale" else one.shift
    except BudgetSpent:
        raise
    except NormsniffError:
        return "not read"
    if values is None or not values.size:
        return "–"
    low, middle, high = float(values.min()), _mean(values), float(values.max())
    return f"{low:.3g} … {middle:.3g} … {high:.3g}"


def _mean(values: NDArray[Any]) -> float:
    import numpy as np

    with np.errstate(all="ignore"):  # numbers may be huge, or none
        return float(values.mean(dtype=np.float64))
