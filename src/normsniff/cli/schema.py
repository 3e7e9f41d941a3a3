"""`normsniff schema`: the JSON Schema of the records."""

from __future__ import annotations

import click

from .options import HELP


@click.command(context_settings=HELP)
def schema() -> None:
    """Print the JSON Schema of the records that --json writes."""
    from importlib import resources

    click.echo(resources.files("normsniff").joinpath("data/record.schema.json").read_text("utf-8"), nl=False)
