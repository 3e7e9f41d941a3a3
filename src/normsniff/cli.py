"""The command line: parses, calls the library, renders, sets the exit code. Heavy imports wait until needed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from . import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import Console

    from .devices import Device
    from .record import Classification, Failure

EXIT_EXPECTATION = 1  # an --expect failed, or a contradiction was found under --strict
EXIT_UNREADABLE = 2  # usage error, or an input that could not be read
EXIT_ABSTAINED = 3  # only abstentions, under --strict

_HELP = {"help_option_names": ["-h", "--help"]}

_EXAMPLES = """\b
Examples:
  normsniff model.safetensors
  normsniff --norms SmolLM2-135M-Instruct.Q4_1.gguf
  normsniff --json models/ > records.jsonl
  normsniff --evidence kernel unknown.onnx      # parameters alone
  normsniff --expect RMSNorm --quiet model.gguf && echo as expected

\b
Exit codes:
  0  every input was answered (an abstention is an answer)
  1  an --expect failed, or a contradiction was found under --strict
  2  usage error, or an input could not be read (the others are still answered)
  3  only abstentions, under --strict

\b
Shell completion (bash; zsh and fish likewise):
  eval "$(_NORMSNIFF_COMPLETE=bash_source normsniff)"
"""


class _DefaultCommand(click.Group):
    """A group whose first command runs when no command is named: `normsniff FILE` is `normsniff sniff FILE`."""

    default = "sniff"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _HELP["help_option_names"]:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer what the default command takes (files, options) beside the other commands."""
        command = self.commands[self.default]
        with click.Context(command, parent=ctx) as inner:
            items = command.shell_complete(inner, incomplete)
            if not incomplete.startswith("-"):
                items += command.params[0].shell_complete(inner, incomplete)
        return items + [item for item in super().shell_complete(ctx, incomplete) if item.value != self.default]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the default command's help, then the other commands."""
        command = self.commands[self.default]
        with click.Context(command, info_name=ctx.info_name, parent=ctx.parent) as inner:
            command.format_usage(inner, formatter)
            command.format_help_text(inner, formatter)
            command.format_options(inner, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(80)) for n, c in self.commands.items() if n != self.default])
        with click.Context(command, info_name=ctx.info_name) as inner:
            command.format_epilog(inner, formatter)


class _Bytes(click.ParamType[int]):
    """A number of bytes, such as 256MB, 64MiB or 1000000."""

    name = "size"
    _units: ClassVar = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or match.group(2) not in self._units:
            self.fail(f"{value!r} is not a size such as 256MB, 64MiB or 1000000", param, ctx)
        return int(float(match.group(1)) * self._units[match.group(2)])


class _Kinds(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of kinds of evidence."""

    name = "kinds"
    _known = ("declared", "layout", "kernel")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        if not kinds or not set(kinds) <= set(self._known):
            self.fail(f"{value!r} is not a list of {', '.join(self._known)}", param, ctx)
        return kinds


@click.group(cls=_DefaultCommand, context_settings=_HELP)
def cli() -> None:
    """Tell LayerNorm from RMSNorm in model files."""


@cli.command(epilog=_EXAMPLES, context_settings=_HELP)
@click.argument("inputs", nargs=-1, required=True, metavar="FILE|DIRECTORY...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per input, one per line.")
@click.option("--norms", is_flag=True, help="Add the table of every norm site.")
@click.option(
    "--evidence",
    type=_Kinds(),
    default="declared,layout,kernel",
    show_default=True,
    help="Use only these kinds of evidence. 'kernel' alone means parameters alone: no names, no metadata.",
)
@click.option("--budget", type=_Bytes(), default="64MB", show_default=True, help="Bytes of matrices to read at most.")
@click.option("--full", is_flag=True, help="Read every matrix whole, whatever the budget.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the arithmetic runs."
)
@click.option("--expect", type=click.Choice(["LayerNorm", "RMSNorm"]), help="Exit with 1 if a label differs.")
@click.option("--strict", is_flag=True, help="Exit with 1 on a contradiction, with 3 if all inputs abstain.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors; the exit code tells.")
@click.version_option(__version__, prog_name="normsniff", message="%(prog)s %(version)s")
def sniff(
    inputs: tuple[Path, ...],
    as_json: bool,
    norms: bool,
    evidence: tuple[str, ...],
    budget: int,
    full: bool,
    device: Device,
    expect: str | None,
    strict: bool,
    quiet: bool,
) -> None:
    """Tell from model files alone whether they normalise with LayerNorm or RMSNorm, how sure that is, and why.

    Reads safetensors, GGUF, ONNX and Keras/HDF5 files, single or sharded. A directory is one model if it holds
    one; otherwise every model file below it is an input.
    """
    from .record import Failure

    console = None if as_json or quiet else _console()
    answers: list[Classification] = []
    unreadable = 0
    for answer in _answers(inputs, evidence, None if full else budget, device):
        if isinstance(answer, Failure):
            unreadable += 1
            _report_failure(answer, as_json)
            continue
        answers.append(answer)
        if as_json and not quiet:
            click.echo(answer.to_json())
        elif not quiet:
            from .render.text import show

            if len(answers) > 1:
                click.echo()
            show(answer, console=console, norms=norms)
    sys.exit(_exit_code(answers, unreadable, expect, strict))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the records that --json writes."""
    from importlib import resources

    click.echo(resources.files("normsniff").joinpath("data/record.schema.json").read_text("utf-8"), nl=False)


def main() -> None:
    """Run the command line; the entry point of the `normsniff` script."""
    cli(prog_name="normsniff")


def _answers(
    inputs: tuple[Path, ...], evidence: tuple[str, ...], budget: int | None, device: Device
) -> Iterator[Classification | Failure]:
    """Yield a record or a failure for every input, in order; one bad input never stops the others."""
    from .errors import NormsniffError
    from .inputs import survey
    from .pipeline import sniff as classify

    for given in inputs:
        try:
            found = survey(given)
        except NormsniffError as error:
            yield _failure(given, error)
            continue
        for path, reason in found.skipped:
            click.echo(f"skipped {path}: {reason}", err=True)
        for one in found.inputs:
            try:
                yield classify(
                    one.path,
                    evidence=evidence,  # type: ignore[arg-type]  # checked by _Kinds
                    budget=budget,
                    device=device,
                )
            except NormsniffError as error:
                yield _failure(one.path, error)


def _failure(path: Path, error: Exception) -> Failure:
    from .record import ErrorDetail, Failure

    return Failure(
        tool_version=__version__,
        path=str(path),
        error=ErrorDetail(
            type=type(error).__name__,
            code=getattr(error, "code", None),
            message=str(error),
            hint=getattr(error, "hint", ""),
        ),
    )


def _report_failure(failure: Failure, as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(failure))
    hint = f" ({failure.error.hint})" if failure.error.hint else ""
    click.echo(f"error: {failure.error.message}{hint}", err=True)


def _exit_code(answers: list[Classification], unreadable: int, expect: str | None, strict: bool) -> int:
    if unreadable:
        return EXIT_UNREADABLE
    if expect is not None and any(answer.label != expect for answer in answers):
        return EXIT_EXPECTATION
    if strict and any(answer.contradictions for answer in answers):
        return EXIT_EXPECTATION
    if strict and all(answer.label == "undetermined" for answer in answers):
        return EXIT_ABSTAINED
    return 0


def _console() -> Console | None:
    """Return a rich console on a terminal, None in a pipe."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(highlight=False)
