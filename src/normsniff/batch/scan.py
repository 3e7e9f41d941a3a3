"""A lake of models to one table: find the inputs, answer what was not answered before, write the table."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .._version import __version__
from ..errors import NormsniffError, SourceError
from ..inputs.opening import models_of
from ..inputs.walk import walk
from ..json_text import writable
from ..limits import Limits
from ..outputs import replacing
from ..record import Answer, Classification, Failure, spelled
from ..render.table import writer_for
from ..source.place import Place
from ..source.places import is_directory, place_of
from ..workers import Workers
from .answers import answers
from .identity import identity_of
from .journal import Journal

_GENERAL = re.compile(r":| \(| in |, which | because ")
"""Where the words of a reason that are about the single file begin."""

_REASONS, _OTHER = 40, "other reasons"


@dataclass(slots=True)
class Tally:
    """What the answers of a scan amount to.

    Attributes:
        labels: answers by label.
        failures: failures by error code, or by error type where there is no code.
        duplicates: inputs whose content was answered under another path.
        contradictions: answers in which kinds of evidence disagree.
        broken: answers with an error among the findings about their norms.
        bytes_read: bytes read for the answers.
    """

    labels: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    contradictions: int = 0
    broken: int = 0
    bytes_read: int = 0

    @property
    def inputs(self) -> int:
        """How many inputs were answered, one way or another."""
        return self.labels.total() + self.failures.total() + self.duplicates

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        if isinstance(answer, Classification):
            self.labels[answer.label] += 1
            self.contradictions += bool(answer.contradictions)
            self.broken += bool(answer.count("error"))
            self.bytes_read += answer.bytes_read or 0
        elif isinstance(answer, Failure):
            self.failures[answer.error.code or answer.error.type] += 1
        else:
            self.duplicates += 1

    def merge(self, other: Tally) -> None:
        """Count what another one counts."""
        self.labels += other.labels
        self.failures += other.failures
        self.duplicates += other.duplicates
        self.contradictions += other.contradictions
        self.broken += other.broken
        self.bytes_read += other.bytes_read


@dataclass(slots=True)
class PassedOver:
    """What a scan was told of and did not take for an input: counted by its reason, and listed where asked for.

    Attributes:
        file: takes a line of JSON for each, with ``path`` and ``reason``; or None.
        reasons: how many there were of each reason, what it says of the single file left out.
    """

    file: BinaryIO | None = None
    reasons: Counter[str] = field(default_factory=Counter)

    def __call__(self, path: object, reason: str) -> None:
        """Take note of one."""
        general = _GENERAL.split(reason, maxsplit=1)[0].strip()
        self.reasons[general if general in self.reasons or len(self.reasons) < _REASONS else _OTHER] += 1
        if self.file is not None:
            self.file.write(msgspec.json.encode({"path": spelled(path), "reason": writable(reason)}) + b"\n")


def find_inputs(roots: Iterable[str], skip: Callable[[Place, str], object]) -> Iterator[str]:
    """Yield the inputs that `roots` stand for, lazily.

    A directory, here or behind a URL, is walked as `inputs` does, without a limit on its files. A file named ``*.txt``,
    or ``-`` for standard input, lists inputs, one a line, which are not walked; empty lines and lines that start with
    ``#`` do not count. Anything else is an input itself.

    Raises:
        SourceError: a list cannot be read, or a directory behind a URL once some of it was.
    """
    limits = Limits(files=sys.maxsize)
    for root in roots:
        path = Path(root)
        if root == "-" or (root.endswith(".txt") and "://" not in root):
            yield from _lines(root)
        elif "://" in root:
            yield from _behind(root, limits, skip)
        elif is_directory(path):
            yield from (str(one.path) for one in walk(path, limits, skip))
        else:
            yield root


def _behind(root: str, limits: Limits, skip: Callable[[Place, str], object]) -> Iterator[str]:
    found = False
    try:
        for place in models_of(place_of(root, limits), limits, skip):
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
