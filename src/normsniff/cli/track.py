"""`normsniff track`: the shadows, the scales and the verdict through a training run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import EXIT_UNREADABLE, HELP, LocalPath, budget_option, console, echo_json, failing

_EXAMPLES = """\b
Examples:
  normsniff track runs/gpt2                        # checkpoint-500, checkpoint-1000, ...
  normsniff track -o curve.png lightning_logs/version_0
  normsniff track --json step_*.safetensors > run.jsonl

Checkpoints are ordered by step: the number after "step", "iter" or "update", else after "checkpoint" or "ckpt", else
after "epoch", in the name of the file or of one of the two directories above it; else the global_step of a
trainer_state.json beside it; else the number in a name such as 0001000 or weights_200. Those without come last, by
name.

Exit codes: 0, every checkpoint was read; 2, usage error, or one could not be read (the others are still measured).
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@click.argument("inputs", nargs=-1, required=True, metavar="CHECKPOINT|DIRECTORY...", type=LocalPath())
@click.option("--json", "as_json", is_flag=True, help="One JSON object per checkpoint, one per line.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Draw the run as PNG or SVG, by suffix."
)
@budget_option
def track(inputs: tuple[Path, ...], as_json: bool, output: Path | None, budget: int) -> None:
    """Follow the shadows of a network through training: one row a checkpoint, in the order of steps.

    ρ is the energy of the matrices along the dead direction over what chance gives, as a geometric mean with its
    standard error: under LayerNorm it falls in training, under RMSNorm it stays near 1. "kernel" is the probability of
    LayerNorm by the weights alone, and "γ" are the scales of the norms.
    """
    from ..render import run_plot, run_table
    from ..render.lines import emit
    from ..training.tracking import track as follow

    if output is not None and output.suffix.lower() not in run_plot.SUFFIXES:
        raise click.BadParameter(f"{output} must end in {' or '.join(run_plot.SUFFIXES)}", param_hint="--output")
    with failing():
        if output is not None:
            run_plot.require()
        terminal = None if as_json else console()
        if not as_json:
            emit([[(run_table.HEADER, "bold")]], terminal)
        snapshots = []
        for snapshot in follow(inputs, budget=budget):
            snapshots.append(snapshot)
            if as_json:
                echo_json(snapshot.to_json())
            else:
                emit([[(run_table.row(snapshot), "red" if snapshot.error else "")]], terminal)
        if unplaced := sum(one.step is None for one in snapshots):
            click.echo(f"warning: {unplaced} of {len(snapshots)} have no known step: placed last, by name", err=True)
        if output is not None:
            run_plot.plot(snapshots, output)
    if any(one.error for one in snapshots):
        sys.exit(EXIT_UNREADABLE)
