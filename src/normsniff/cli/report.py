"""`normsniff report`: one HTML page about one or several models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    EXIT_UNREADABLE,
    HELP,
    budget_option,
    evidence_option,
    failing,
    full_option,
    inputs_argument,
    report_failure,
)
from .sniff import answers_for

if TYPE_CHECKING:
    from ..kernel.namespaces import Device
    from ..source.place import Place


@click.command(context_settings=HELP)
@inputs_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write."
)
@evidence_option
@budget_option
@full_option
def report(inputs: tuple[Place, ...], output: Path, evidence: tuple[str, ...], budget: int, full: bool) -> None:
    """Write one self-contained HTML page: verdict, evidence that adds up, ρ by layer, scales, norms, conflicts.

    Several models stand side by side. A model that cannot be read is shown as such, and the exit code is 2.
    """
    from ..outputs import replacing
    from ..record import Failure
    from ..render.report import page

    device: Device = "cpu"
    answers = list(answers_for(inputs, evidence, None if full else budget, device))
    with failing(), replacing(output) as file:
        file.write(page(answers).encode())
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    for failure in failures:
        report_failure(failure, as_json=False)
    if failures:
        sys.exit(EXIT_UNREADABLE)
