"""What several commands share: exit codes, parameter types, the terminal, the report of an input that failed."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from ..batch.tally import PassedOver
    from ..errors import NormsniffError
    from ..inputs.opening import Source
    from ..record import ErrorDetail, Failure
    from ..source.place import Place

_Said = TypeVar("_Said")
_Command = TypeVar("_Command", bound=Callable[..., Any])

_LEAST_MEMORY = 256_000_000  # Python, numpy and a format library allocate about 100 MB before the first file

_NAMED = 5  # norms that an error names

EXIT_EXPECTATION = 1  # an --expect failed, or a contradiction was found under --strict
EXIT_UNREADABLE = 2  # usage error, or an input that could not be read
EXIT_INTERRUPTED = 130  # Ctrl-C or a polite signal
EXIT_ABSTAINED = 3  # only abstentions, under --strict


def _width() -> int:
    """Return the width of help texts as click would choose it, without the archive modules that it imports for that."""
    try:
        return max(min(int(os.environ.get("COLUMNS") or os.get_terminal_size().columns), 80) - 2, 50)
    except (OSError, ValueError):  # no terminal
        return 78


HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"], "terminal_width": _width()}


class Size(click.ParamType[int]):
    """A number of bytes, such as 256MB, 64MiB or 1000000."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes that `value` names."""
        from ..arguments import parse_size

        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Number(click.ParamType[float]):
    """A number that one of the functions of `normsniff.arguments` takes; those of click let NaN pass every range."""

    def __init__(self, name: str, kind: str = "number", *bounds: float) -> None:
        self.name, self._kind, self._bounds = name, kind, bounds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        from .. import arguments

        name = "it" if param is None or param.name is None else param.name
        with contextlib.suppress(ValueError):  # what is no number is told below
            value = float(value)
        try:
            found: float = getattr(arguments, self._kind)(name, value, *self._bounds)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)
        return found


def filled(_context: click.Context | None, _parameter: click.Parameter | None, value: _Said) -> _Said:
    """Refuse an empty path, which would stand for the whole working directory: the callback of every input.

    Raises:
        click.BadParameter: it is empty, or one of several is.
    """
    if "" in (value if isinstance(value, tuple) else (value,)):
        raise click.BadParameter("an empty path; is a variable of the shell not set?")
    return value


class InputPath(click.Path):
    """A path, a URL, or ``-`` for standard input."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place that `value` names."""
        if value == "-":
            return self._standard_input(param, ctx)
        if "://" not in str(filled(ctx, param, value)):
            from pathlib import Path  # here: --help and --version need none of it

            return Path(os.fsdecode(super().convert(value, param, ctx)))
        from ..errors import SourceError
        from ..limits import Limits
        from ..source.places import place_of

        try:
            return place_of(value, Limits())
        except SourceError as error:
            self.fail(str(error), param, ctx)

    def _standard_input(self, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a file with what standard input holds; asked for twice, it is the same one."""
        from ..errors import NormsniffError
        from ..limits import Limits
        from ..source.piped import spool

        ctx = (ctx or click.get_current_context()).find_root()
        try:
            if __name__ not in ctx.meta:
                ctx.meta[__name__] = ctx.with_resource(spool(sys.stdin.buffer, Limits()))
        except NormsniffError as error:
            self.fail(str(error), param, ctx)
        return ctx.meta[__name__]


class LocalPath(click.Path):
    """A path on this machine, for commands that take no URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        from pathlib import Path

        if "://" in str(filled(ctx, param, value)):
            from ..errors import redact

            self.fail(f"{redact(str(value))} is a URL: this command takes files and directories", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class ArraysPath(click.Path):
    """A file that arrays are written to."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, if its extension names a format that `outputs.write_arrays` writes."""
        from pathlib import Path

        from ..outputs import ARRAY_SUFFIXES

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix not in ARRAY_SUFFIXES:
            self.fail(f"{path}: name a {' or '.join(ARRAY_SUFFIXES)} file", param, ctx)
        return path


class Kinds(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of kinds of evidence."""

    name = "kinds"
    known = ("declared", "layout", "kernel")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the kinds without doubles."""
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        if not kinds or not set(kinds) <= set(self.known):
            self.fail(f"{value!r} is not a list of {', '.join(self.known)}", param, ctx)
        return kinds


source_argument = click.argument("source", metavar="FILE|DIRECTORY|URL", type=InputPath())
inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="FILE|DIRECTORY|URL...", type=InputPath())
evidence_option = click.option(
    "--evidence",
    type=Kinds(),
    default=",".join(Kinds.known),
    show_default=True,
    help="Use only these kinds of evidence. 'kernel' alone means parameters alone: no names, no metadata.",
)
budget_option = click.option(
    "--budget", type=Size(), default="32MB", show_default=True, help="Bytes of matrices to read of a model at most."
)
norm_option = click.option(
    "--norm", multiple=True, metavar="PATTERN", help="Only norms whose names match, such as '*.ln_f'."
)
exclude_option = click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help="Leave out files and directories whose name or path matches, such as '*mmproj*' or 'old/*'.",
)
full_option = click.option("--full", is_flag=True, help="Read every matrix whole, whatever the budget.")


def timeout_option(default: float | None) -> Callable[[_Command], _Command]:
    """Return the decorator that adds ``--timeout``."""
    return click.option(
        "--timeout",
        type=Number("seconds", "seconds"),
        default=default,
        show_default=default is not None,
        help="Seconds that an input may take; its process is then ended.",
    )


def memory_option(default: str | None) -> Callable[[_Command], _Command]:
    """Return the decorator that adds ``--memory``."""
    return click.option(
        "--memory",
        type=Size(),
        default=default,
        show_default=default is not None,
        callback=_enough_memory,
        help="Bytes that the process of an input may allocate (Linux only; mapped files do not count).",
    )


def _enough_memory(_context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    if value is not None and value < _LEAST_MEMORY:
        raise click.BadParameter(f"at least {_LEAST_MEMORY:,} bytes")
    return value


def limits_options(command: _Command) -> _Command:
    """Add ``--timeout`` and ``--memory``, of which neither is set by itself; see `limited`."""
    return timeout_option(None)(memory_option(None)(command))


@contextlib.contextmanager
def limited(timeout: float | None, memory: int | None) -> Iterator[Callable[..., Any]]:
    """Yield a function that calls another one, ``call(function, source, ...)``: here, or in a process under limits."""
    if timeout is None and memory is None:
        yield lambda function, *arguments, **options: function(*arguments, **options)
        return
    from ..inputs.opening import portable
    from ..workers import Workers

    memory = memory if sys.platform.startswith("linux") else None
    with Workers(1, timeout=timeout, memory=memory) as workers:
        yield lambda function, source, *more, **options: workers.submit(
            function, portable(source), *more, **options
        ).result()


def spare(inputs: Iterable[Place], output: Path | None, option: str = "-o", *, arrays: bool = False) -> None:
    """Refuse an output that would replace what is read.

    Args:
        inputs: what is read.
        output: what is to be written.
        option: that names it.
        arrays: whether they are written: no file of a directory that is read may then be replaced by them, as it may
            be of a model. A page or a list that lies there may.

    Raises:
        click.UsageError: it would.
    """
    for place in inputs:
        if output is None or not isinstance(place, type(output)):
            continue
        with contextlib.suppress(OSError, ValueError):  # one is not there, or has a name that no file system holds
            held = arrays and place.is_dir() and output.exists() and place.resolve() in output.resolve().parents
            if held or place.samefile(output):
                what = f"a file of {place}" if held else "an input"
                raise click.UsageError(f"{output} is {what}, and would be lost: name another file with {option}")


def arrays_option(text: str) -> Callable[[_Command], _Command]:
    """Return the decorator that adds ``--output`` for arrays, with this help."""
    return click.option("--output", "-o", type=ArraysPath(), help=text)


@contextlib.contextmanager
def failing(source: Place | None = None, *, as_json: bool = False) -> Iterator[None]:
    """End the command where the library says what is wrong: one line on stderr, and a record where one is asked for.

    Args:
        source: the input that the block is about; None if it is about none.
        as_json: whether to print the `Failure` of that input, too.
    """
    from ..errors import NormsniffError

    try:
        yield
    except NormsniffError as error:
        from ..record import ErrorDetail, Failure

        if source is None:
            tell_error(ErrorDetail.of(error))
        else:
            report_failure(Failure.of(source, error), as_json)
        sys.exit(EXIT_UNREADABLE)


def no_such_norm(source: Source, patterns: Sequence[str]) -> NormsniffError:
    """Return the error of patterns that no norm of a model matches."""
    from ..errors import FormatError
    from ..inputs.opening import name_of
    from ..parameters import norms
    from ..words import amount

    with norms(source) as known:
        names = [one.name for one in known]
    has = f"it has {amount(len(names), 'norm')}" + (f": {', '.join(names[:_NAMED])}" if names else "")
    more = " ..." if len(names) > _NAMED else ""
    asked = " or ".join(f"'{pattern}'" for pattern in patterns)
    return FormatError("unknown-norm", name_of(source), f"no norm is called {asked}; {has}{more}")


def report_failure(failure: Failure, as_json: bool) -> None:
    """Print a failure to stderr, and as JSON Lines to stdout if asked for."""
    if as_json:
        import msgspec

        echo_json(msgspec.json.encode(failure))
    tell_error(failure.error)


def tell_error(error: ErrorDetail) -> None:
    """Print an error to stderr, with the hint if there is one."""
    click.echo(f"error: {error.message}{f' ({error.hint})' if error.hint else ''}", err=True)


def models_in(
    inputs: Iterable[Place], skip: Callable[[Place, str], object], exclude: Sequence[str] = ()
) -> Iterator[Place | Failure]:
    """Yield every model of the inputs, in order, or why one stands for none; one that is bad never stops the others."""
    from ..errors import NormsniffError
    from ..inputs.filenames import EXCLUDED, is_excluded
    from ..inputs.opening import models_of
    from ..limits import Limits
    from ..record import Failure

    for given in inputs:
        if is_excluded(str(given), exclude):
            skip(given, EXCLUDED)
            continue
        try:
            yield from [given] if hasattr(given, "read") else list(models_of(given, Limits(), skip, exclude))
        except NormsniffError as error:
            yield Failure.of(given, error)


def each_model(models: Iterable[Place | Failure], answer: Callable[[Place], _Said]) -> Iterator[_Said | Failure]:
    """Yield an answer or a failure for every model, in order; one that is bad never stops the others."""
    from ..errors import NormsniffError
    from ..record import Failure

    for one in models:
        if isinstance(one, Failure):
            yield one
            continue
        try:
            yield answer(one)
        except NormsniffError as error:
            yield Failure.of(one, error)


def tell_skipped(skipped: PassedOver) -> None:
    """Print what was passed over to stderr, grouped by reason."""
    from ..errors import printable

    for line in skipped.lines():
        click.echo(printable(line), err=True)


def console() -> Console | None:
    """Return a rich console on a terminal, None in a pipe."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(highlight=False)


def terminal_width() -> int | None:
    """Return the width of the terminal, None in a pipe."""
    terminal = console()
    return None if terminal is None else terminal.width


_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]")  # U+007F to U+009F in UTF-8; what is below, JSON always escapes


def echo_json(data: bytes) -> None:
    """Print one line of JSON, in which no character controls a terminal."""
    click.echo(_CONTROL.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), data))


def echo_record(record: Any, **more: Any) -> None:
    """Print a dataclass as one line of JSON, but for its arrays, and what else is given."""
    import msgspec
    import numpy as np

    fields = {key: value for key in record.__slots__ if not isinstance(value := getattr(record, key), np.ndarray)}
    echo_json(msgspec.json.encode(fields | more))
