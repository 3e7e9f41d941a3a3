"""`normsniff report`: one HTML page about one or several models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import EXIT_UNREADABLE, HELP, InputPath, Kinds, Size, report_failure
from .sniff import answers_for

if TYPE_CHECKING:
    from ..kernel.namespaces import Device
    from ..source.place import Place


@click.command(context_settings=HELP)
@click.argument("inputs", nargs=-1, required=True, metavar="FILE|DIRECTORY|URL...", type=InputPath())
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write."
)
@click.option("--evidence", type=Kinds(), default="declared,layout,kernel", help="Use only these kinds of evidence.")
@click.option("--budget", type=Size(), default="32MB", show_default=True, help="Bytes of matrices to read at most.")
@click.option("--full", is_flag=True, help="Read every matrix whole, whatever the budget.")
def report(inputs: tuple[Place, ...], output: Path, evidence: tuple[str, ...], budget: int, full: bool) -> None:
    """Write one self-contained HTML page: verdict, evidence that adds up, ρ by layer, scales, norms, conflicts.

    Several models stand side by side. A model that cannot be read is shown as such, and the exit code is 2.
    """
    from ..record import Failure
    from ..render.report import page

    device: Device = "cpu"
    answers = list(answers_for(inputs, evidence, None if full else budget, device))
    try:
        output.write_text(page(answers), "utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: {error.strerror or error}") from error
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    for failure in failures:
        report_failure(failure, as_json=False)
    if failures:
        sys.exit(EXIT_UNREADABLE)
