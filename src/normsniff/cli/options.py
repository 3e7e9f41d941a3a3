"""What several commands share: exit codes, parameter types, the terminal, the report of an input that failed."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ..record import Failure
    from ..source.place import Place

EXIT_EXPECTATION = 1  # an --expect failed, or a contradiction was found under --strict
EXIT_UNREADABLE = 2  # usage error, or an input that could not be read
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
    _units: ClassVar = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes that `value` names."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or match.group(2) not in self._units:
            self.fail(f"{value!r} is not a size such as 256MB, 64MiB or 1000000", param, ctx)
        return int(float(match.group(1)) * self._units[match.group(2)])


class InputPath(click.Path):
    """A path, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the place that `value` names."""
        if "://" not in str(value):
            from pathlib import Path  # here: --help and --version need none of it

            return Path(os.fsdecode(super().convert(value, param, ctx)))
        from ..errors import SourceError
        from ..limits import Limits
        from ..source.places import place_of

        try:
            return place_of(value, Limits())
        except SourceError as error:
            self.fail(str(error), param, ctx)


class Kinds(click.ParamType[tuple[str, ...]]):
    """A comma-separated list of kinds of evidence."""

    name = "kinds"
    _known = ("declared", "layout", "kernel")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the kinds without doubles."""
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        if not kinds or not set(kinds) <= set(self._known):
            self.fail(f"{value!r} is not a list of {', '.join(self._known)}", param, ctx)
        return kinds


def failure(path: Place, error: Exception) -> Failure:
    """Return the record of an input that could not be answered."""
    from ..record import Failure

    return Failure.of(path, error)


def report_failure(failure: Failure, as_json: bool) -> None:
    """Print a failure to stderr, and as JSON Lines to stdout if asked for."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(failure))
    hint = f" ({failure.error.hint})" if failure.error.hint else ""
    click.echo(f"error: {failure.error.message}{hint}", err=True)


def console() -> Console | None:
    """Return a rich console on a terminal, None in a pipe."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console(highlight=False)


def echo_record(record: Any, **more: Any) -> None:
    """Print a dataclass as one line of JSON, but for its arrays, and what else is given."""
    import msgspec
    import numpy as np

    fields = {key: value for key in record.__slots__ if not isinstance(value := getattr(record, key), np.ndarray)}
    click.echo(msgspec.json.encode(fields | more))
