"""`normsniff explain CODE`: what a finding of `normsniff check` means, and what to do."""

from __future__ import annotations

import click

from .options import HELP


@click.command(context_settings=HELP)
@click.argument("code", required=False)
def explain(code: str | None) -> None:
    """Say what a finding of `normsniff check` means: cause, example, cure. Without a CODE, list all."""
    from ..checks.codes import codes

    table = codes()
    if code is None:
        for row in table.values():
            click.echo(f"{row.code:<17}{row.severity:<9}{row.title}")
    elif (known := code.lower()) in table:
        click.echo(table[known].page(1), nl=False)
    else:
        raise click.BadParameter(f"{code!r} is not among {', '.join(table)}", param_hint="CODE")
