"""A lake of models to one table: find the inputs, answer what was not answered before, write the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import NormsniffError, SourceError
from ..inputs.filenames import EXCLUDED, is_excluded
from ..inputs.opening import models_of
from ..inputs.walk import walk
from ..limits import Limits
from ..outputs import replacing
from ..record import Answer
from ..render.table import writer_for
from ..source.place import Place
from ..source.places import is_directory, place_of
from ..workers import Workers
from .answers import answers
from .identity import identity_of
from .journal import Journal
from .tally import Tally

_BEHIND = 1_000_000  # files below one URL, names that a server may make up: 400 MB of this process


def find_inputs(
    roots: Iterable[str], skip: Callable[[Place, str], object], exclude: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the inputs that `roots` stand for, lazily, but for those that `exclude` matches (`is_excluded`).

    A directory, here or behind a URL, is walked as `inputs` does, here without a limit on its files. A file named
    ``*.txt``, or ``-`` for standard input, lists inputs, one a line, which are not walked; empty lines and lines that
    start with ``#`` do not count. Anything else is an input itself.

    Raises:
        SourceError: a list cannot be read.
        LimitExceeded: a walk behind a URL takes more than it may, once it has found something.
    """
    limits = Limits(files=sys.maxsize)
    behind = Limits(files=_BEHIND)
    for root in roots:
        path = Path(root)
        if root != "-" and is_excluded(root, exclude):
            skip(path, EXCLUDED)
        elif root == "-" or (root.endswith(".txt") and "://" not in root):
            for one in _lines(root):
                if is_excluded(one, exclude):
                    skip(Path(one), EXCLUDED)
                else:
                    yield one
        elif "://" in root:
            yield from _behind(root, behind, skip, exclude)
        elif is_directory(path):
            yield from (str(one.path) for one in walk(path, limits, skip, exclude))
        else:
            yield root


def _behind(root: str, limits: Limits, skip: Callable[[Place, str], object], exclude: Sequence[str]) -> Iterator[str]:
    found = False
    try:
        for place in models_of(place_of(root, limits), limits, skip, exclude):
            found = True
            yield getattr(place, "url", root)
    except NormsniffError:
        if found:
            raise
        yield root  # its row will say what is wrong


def _lines(root: str) -> Iterator[str]:
    try:
        with open(sys.stdin.fileno() if root == "-" else root, errors="surrogateescape", closefd=root != "-") as file:
            for line in file:
                one = line.rstrip("\r\n")
                if one and not one.startswith("#"):
                    yield one
    except (OSError, ValueError) as error:
        raise SourceError(root, getattr(error, "strerror", None) or str(error)) from error


def journal_of(output: Path) -> Path:
    """Return where the journal of a scan is while its output is not there."""
    return output.with_name(f"{output.name}.partial")


def settings_of(options: Mapping[str, Any]) -> str:
    """Return what the answers of a scan depend on besides the inputs, so that it goes on only under the same."""
    return f"normsniff {__version__}, evidence {','.join(options['evidence'])}, budget {options['budget']}"


def answer_all(
    inputs: Iterable[str], journal: Journal, workers: Workers, *, dedupe: bool = True, options: Mapping[str, Any]
) -> Iterator[Answer]:
    """Answer every input that `journal` has no answer to, keep each answer in it, then yield it.

    Args:
        inputs: paths and URIs.
        journal: answers so far.
        workers: where to work.
        dedupe: answer inputs of the same content once; see `content`.
        options: those of `sniff`.

    Raises:
        OutputError: the journal cannot be written.
    """
    fresh = (one for one in inputs if identity_of(one).key not in journal)
    known = journal if dedupe else None
    for name, answer in answers(fresh, workers, known=known, in_flight=2 * workers.jobs, **options):
        journal.add(name.key, answer)
        yield answer


def finish(journal: Journal, output: Path) -> Tally:
    """Write the output from the journal, whole or not at all, then remove the journal.

    Raises:
        OutputError: the output cannot be written; the journal stays.
    """
    tally = Tally()

    def counted() -> Iterator[Answer]:
        for answer in journal.answers():
            tally.add(answer)
            yield answer

    with replacing(output) as file:
        writer_for(output)(counted(), file)
    journal.remove()
    return tally
