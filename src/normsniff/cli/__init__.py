"""The command line: one module a command, imported when it is called. Commands parse, call the library, render."""

from __future__ import annotations

import codecs
import contextlib
import gc
import importlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from ..threads import VARIABLES
from .options import EXIT_INTERRUPTED, HELP

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SPELLED = "normsniff-spelled"
_SPELLINGS = {
    "ρ": "rho", "γ": "gamma", "β": "beta", "ε": "epsilon", "σ": "sigma", "…": "...", "–": "-", "—": "-", "−": "-",
    "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "→": "->", "√": "sqrt", "²": "^2", "⁻¹": "^-1", "·": "*",
    "�": "?",
}  # fmt: skip

_NEAR = 0.7  # of difflib: one letter wrong, missing or too many of five, or two that changed places

COMMANDS = {
    "sniff": "Label models: LayerNorm or RMSNorm.",
    "check": "Find what is wrong with the norms of models.",
    "explain": "Say what a finding of check means.",
    "scan": "Label a lake of models, into one table.",
    "track": "Follow the checkpoints of a training run.",
    "plan": "Say what would be read of a model, and where.",
    "norms": "Print or export the parameters of every norm.",
    "direction": "Give the direction along which each LayerNorm is dead.",
    "readout": "Compare activations with the dead directions.",
    "report": "Write an HTML page that shows the evidence.",
    "prune": "Write a LayerNorm model without what cannot matter in it.",
    "serve": "Open a page where files are dropped, and an HTTP API.",
    "schema": "Print the JSON Schema of the records that --json writes.",
}
"""Name and short help of every command; `normsniff.cli.NAME` has the function NAME (a hyphen becomes an underscore)."""


class _Commands(click.Group):
    """The table above as a group. Without a command's name the default runs: `normsniff FILE` is `… sniff FILE`."""

    default = "sniff"

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; that nobody reads its output any more is no failure, while click would say 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _stop_printing()
            return 0

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the words; where ``--help`` prints into a closed pipe, that is no failure either."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError:
            _stop_printing()
            raise click.exceptions.Exit(0) from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return _plugged_in(cmd_name)
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f".{name}", __name__), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"] and not os.path.lexists("help"):
            args = [*args[1:2], "--help"]
        if args and args[0] not in COMMANDS and args[0] not in HELP["help_option_names"] and not _is_command(args[0]):
            _check_word(args[0])
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer what the default command takes (files, options) beside the other commands."""
        from click.shell_completion import CompletionItem

        command = self._default_command(ctx)
        with click.Context(command, parent=ctx) as inner:
            items = command.shell_complete(inner, incomplete)
            if not incomplete.startswith("-"):
                items += command.params[0].shell_complete(inner, incomplete)
        others = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name != self.default]
        return items + [item for item in others if item.value.startswith(incomplete)]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the default command's help, then the other commands."""
        command = self._default_command(ctx)
        with click.Context(command, info_name=ctx.info_name, parent=ctx.parent) as inner:
            command.format_usage(inner, formatter)
            command.format_help_text(inner, formatter)
            command.format_options(inner, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, text in COMMANDS.items() if name != self.default])
        with click.Context(command, info_name=ctx.info_name) as inner:
            command.format_epilog(inner, formatter)

    def _default_command(self, ctx: click.Context) -> click.Command:
        command = self.get_command(ctx, self.default)
        assert command is not None
        return command


def _is_command(word: str) -> bool:
    """Whether packages offer a command of this name; they are asked only if it can be nothing else."""
    may_be = re.fullmatch(r"[a-z][a-z0-9-]*", word) is not None and not os.path.lexists(word)
    return may_be and _plugged_in(word) is not None


def _check_word(word: str) -> None:
    """Refuse a word that names no file and is nearly a command."""
    if re.fullmatch(r"[A-Za-z][A-Za-z-]*", word) is None or os.path.lexists(word):
        return
    from difflib import get_close_matches

    from .. import plugins

    near = get_close_matches(word.lower(), [*COMMANDS, "help", *plugins.offered("commands")], 1, _NEAR)
    if near:
        raise click.UsageError(f"no file and no command is called {word!r}; did you mean `normsniff {near[0]}`?")


def _plugged_in(name: str) -> click.Command | None:
    """Return the command that a package offers under ``normsniff.commands``, or None."""
    from .. import plugins
    from ..errors import NormsniffError

    point = plugins.offered("commands").get(name)
    try:
        return None if point is None else plugins.load(point, click.Command, "a click.Command")
    except NormsniffError as error:
        raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings=HELP)
def cli() -> None:
    """Tell LayerNorm from RMSNorm in model files."""


def main() -> None:
    """Run the command line; the entry point of the `normsniff` script."""
    gc.set_threshold(50_000)  # imports and headers make many objects and few cycles
    for name in VARIABLES:
        os.environ.setdefault(name, "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELLED)
    try:
        try:
            code = cli.main(prog_name="normsniff", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever reads has seen enough
        _stop_printing()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _stop_printing() -> None:
    """Lead standard output into nothing, or the interpreter would complain when it flushes what is left."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell what an output's encoding does not have: Greek letters by name, signs by their like, all else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(c, c.encode("ascii", "backslashreplace").decode()) for c in found), error.end


codecs.register_error(_SPELLED, _spell)
