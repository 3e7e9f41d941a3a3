"""`normsniff check FILE...`: what is wrong with the norms of models."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    EXIT_EXPECTATION,
    EXIT_UNREADABLE,
    HELP,
    console,
    each_model,
    echo_json,
    exclude_option,
    failing,
    inputs_argument,
    limited,
    limits_options,
    models_in,
    report_failure,
    spare,
    tell_skipped,
)

if TYPE_CHECKING:
    from ..checks.baseline import Accepted
    from ..checks.findings import Report
    from ..record import Failure
    from ..source.place import Place

_EXAMPLES = """\b
Examples:
  normsniff check model.gguf
  normsniff check --deep models/ --fail-on warning
  normsniff check --select scale-offset,not-finite hf://org/model
  normsniff check --format sarif models/ > norms.sarif
  normsniff check models/ --baseline known.json --update-baseline     # then only what is new fails

\b
Exit codes:
  0  nothing as grave as --fail-on was found
  1  something was
  2  usage error, or an input could not be read (the others are still checked)
"""


class CodeList(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of codes."""

    name = "codes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the codes without doubles."""
        if isinstance(value, tuple):
            return value
        from ..checks.codes import codes

        found = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        if unknown := [code for code in found if code not in codes()]:
            self.fail(f"{', '.join(unknown)}: not among {', '.join(codes())}", param, ctx)
        return found


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@inputs_argument
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True,
    help="json: one object per model, one per line; sarif: one document.",
)  # fmt: skip
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--select", type=CodeList(), default="", metavar="CODES", help="Only these codes.")
@click.option("--ignore", type=CodeList(), default="", metavar="CODES", help="Not these codes.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning", "note", "never"]), default="error", show_default=True,
    help="Exit with 1 if something is found that is as grave.",
)  # fmt: skip
@click.option(
    "--baseline", type=click.Path(path_type=Path, dir_okay=False), help="Findings that are known: they are left out."
)
@click.option("--update-baseline", is_flag=True, help="Write what is found to --baseline, and exit with 0.")
@click.option("--deep", is_flag=True, help="Read samples of matrices too, for what only weights can tell.")
@exclude_option
@limits_options
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors; the exit code tells.")
def check(
    inputs: tuple[Place, ...],
    form: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str,
    baseline: Path | None,
    update_baseline: bool,
    deep: bool,
    exclude: tuple[str, ...],
    timeout: float | None,
    memory: int | None,
    quiet: bool,
) -> None:
    """Find what conversions, quantisations, merges and uploads break in norms: scales that are shifted by one, lost,
    copied, cut, not finite, of the wrong type; absurd epsilons; evidence that disagrees.

    Reads the header and the norms' own vectors. `normsniff explain CODE` says what a finding means.
    """
    import msgspec

    from ..batch.tally import PassedOver
    from ..checks.baseline import load, save
    from ..checks.findings import Report, chosen
    from ..record import SEVERITIES
    from ..render.lines import emit

    if update_baseline and baseline is None:
        raise click.UsageError("--update-baseline needs --baseline FILE")
    if update_baseline:
        spare(inputs, baseline, "--baseline")
    known: frozenset[Accepted] = frozenset()
    if baseline is not None and not update_baseline:
        with failing():
            known = load(baseline)
    answers: list[Report | Failure] = []
    skipped = PassedOver()
    for answer in _answers(models_in(inputs, skipped, exclude), deep, timeout, memory):
        if isinstance(answer, Report):
            answer = msgspec.structs.replace(answer, findings=chosen(answer.findings, select, ignore))
            answer = _without(answer, known)
        answers.append(answer)
        if not isinstance(answer, Report):
            report_failure(answer, as_json=form == "json")
        elif not quiet:
            _show(answer, form, emit)
    if form == "sarif" and not quiet:
        import json

        from ..render.sarif import check_log

        click.echo(json.dumps(check_log(answers), indent=2))
    if not quiet:
        tell_skipped(skipped)
    reports = [answer for answer in answers if isinstance(answer, Report)]
    if update_baseline and baseline is not None:
        with failing():
            click.echo(f"{save(baseline, reports)} findings written to {baseline}", err=True)
    if len(reports) < len(answers):
        sys.exit(EXIT_UNREADABLE)
    grave = [] if fail_on == "never" or update_baseline else SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    if any(report.count(severity) for report in reports for severity in grave):
        sys.exit(EXIT_EXPECTATION)


def _answers(
    models: Iterable[Place | Failure], deep: bool, timeout: float | None, memory: int | None
) -> Iterator[Report | Failure]:
    from ..pipeline import check as examine

    with limited(timeout, memory) as call:
        yield from each_model(models, lambda one: call(examine, one, deep=deep))


def _show(report: Report, form: str, emit: Any) -> None:
    if form == "json":
        echo_json(report.to_json())
    elif form == "text":
        from ..render.check_text import lines

        emit(lines(report), console())


def _without(report: Report, known: frozenset[Accepted]) -> Report:
    import msgspec

    from ..checks.baseline import known_of

    new = tuple(one for one in report.findings if known_of(report.path, one) not in known)
    return msgspec.structs.replace(report, findings=new)
