"""`normsniff prune FILE -o OUT`: a copy of a LayerNorm model without what cannot matter in it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import EXIT_EXPECTATION, HELP, console, echo_record, failing, source_argument

if TYPE_CHECKING:
    from ..dead.pruning import Pruned
    from ..render.lines import Line
    from ..source.place import Place

_NAMED = 8  # files that a line names

_EXAMPLES = """\b
Examples:
  normsniff prune bert/ -o bert-pruned/
  normsniff prune model.safetensors -o pruned.safetensors --verify

\b
Exit codes:
  0  written (and, with --verify, found equal)
  1  --verify found a difference that rounding does not explain; the output is kept
  2  refused, or something could not be read, written or run
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@source_argument
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="A .safetensors file, or a new directory (for shards; it gets the config.json too).",
)
@click.option("--verify", is_flag=True, help="Run both with torch and transformers; show the largest difference.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def prune(source: Place, output: Path, verify: bool, as_json: bool) -> None:
    """Write a copy of a LayerNorm model that computes the same, without what cannot matter in it: the mean of what is
    written into the stream, and what is read along the dead direction.

    Names, types, shapes and metadata stay. Takes safetensors files with their config.json, of families whose code is
    known; refuses whatever it cannot prove. A directory also gets the tokenizer and the settings that lie beside the
    model; what is left behind is said.
    """
    from ..dead.pruning import prune as rewrite

    with failing(source, as_json=as_json):
        done = rewrite(source, output)
        difference = None
        if verify:
            from ..dead.verification import TOLERANCES, compare

            difference = compare(source, output)
    lines = list(_lines(done))
    equal = True
    if difference is not None:
        bound = max(TOLERANCES[dtype] for dtype in done.dtypes)
        equal = difference.relative <= bound
        text = (
            f"  verified with {difference.model} on {difference.tokens} random tokens: largest difference "
            f"{difference.largest:.2g} of outputs up to {difference.output:.3g}, {difference.relative:.1e}"
        )
        why = "" if equal else f": more than rounding explains ({bound:.0e})"
        lines.append([(text + why, "" if equal else "bold red")])
    if as_json:
        facts = None if difference is None else {"largest": difference.largest, "relative": difference.relative}
        echo_record(done, difference=facts)
    else:
        from ..render.lines import emit

        emit(lines, console())
    if not equal:
        sys.exit(EXIT_EXPECTATION)


def _lines(done: Pruned) -> Iterator[Line]:
    from ..words import amount

    share = done.redundant / done.parameters
    yield [(f"{done.redundant:,} of {done.parameters:,} parameters were redundant ({share:.2%})", "bold")]
    yield [(f"  centred along the stream: {amount(len(done.centred), 'tensor')}", "")]
    yield [(f"  projected off the dead direction: {amount(len(done.projected), 'reader')}", "")]
    yield [(f"  given what these lose: {amount(len(done.compensated), 'bias', 'biases')}", "")]
    for reason, count in Counter(done.left.values()).items():
        names = [name for name, why in done.left.items() if why == reason]
        yield [(f"  left as it is: {names[0]}{f' and {count - 1} more' if count > 1 else ''}: {reason}", "")]
    yield [(f"  rounded to {', '.join(done.dtypes)} once more; names, shapes and metadata are the same", "dim")]
    yield [(f"  written to {done.output}", "")]
    if done.copied:
        yield [(f"  copied beside it: {_listed(done.copied)}", "")]
    if done.left_behind:
        yield [(f"  left behind: {_listed(done.left_behind)}", "yellow")]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
