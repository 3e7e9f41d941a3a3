"""`normsniff.scan`: what the command of that name does, for programs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import arguments
from ..errors import OutputError
from ..measure.samples import DEFAULT_BUDGET
from ..pipeline import checked_options
from ..record import EVIDENCE_KINDS, Answer, EvidenceKind
from ..render.table import writer_for
from ..source.place import Place
from ..workers import Workers
from .answers import answers
from .identity import Identity, identity_of
from .journal import Journal
from .scan import answer_all, find_inputs, finish, journal_of, settings_of
from .tally import PassedOver


def scan(
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    jobs: int | None = None,
    timeout: float | None = 300.0,
    memory: int | str | None = "2GB",
    dedupe: bool = True,
    exclude: str | Collection[str] = (),
    skip: Callable[[Place, str], object] | None = None,
    evidence: str | Collection[EvidenceKind] = EVIDENCE_KINDS,
    budget: int | str | None = DEFAULT_BUDGET,
) -> Iterator[Answer]:
    """Label every model of a lake: yield one record an input, whatever the input does, as they are ready.

    The engine is that of ``normsniff scan``: processes under limits, the same content answered once, a journal. Nothing
    is done before the first record is asked for; to have only the table, use up the iterator.

    >>> for record in normsniff.scan("/lake", "labels.parquet", jobs=8):  # doctest: +SKIP
    ...     print(record)

    Args:
        roots: a directory to walk, a ``.txt`` file that lists inputs, a model file, a URL; or several of these.
        output: the table to write, ``*.parquet``, ``*.jsonl`` or ``*.csv``. It appears once the iterator is used up;
            until then a journal beside it (``NAME.partial``) keeps what was answered.
        resume: go on with a scan that was interrupted: the answers of its journal come first.
        jobs: processes; by default one for every CPU.
        timeout: seconds that an input may take.
        memory: bytes that the process of an input may allocate (Linux only), or a text such as "2GB".
        dedupe: answer inputs of the same content once; copies give a `Duplicate`.
        exclude: shell patterns of names, or of paths, that are left out.
        skip: told of what was passed over, with the reason.
        evidence: as for `sniff`.
        budget: as for `sniff`.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument has a value that it cannot have, or `resume` is asked for without `output`.
        OutputError: the table or the journal cannot be written; the journal is there and `resume` is not asked for.
        SourceError: a list of inputs cannot be read.
        MissingExtra: the output is Parquet, and pyarrow is not installed.
    """
    several = [roots] if isinstance(roots, (str, os.PathLike)) else arguments.several("roots", roots, "paths")
    names = [arguments.path("each of roots", root) for root in several]
    table = None if output is None else Path(arguments.path("output", output))
    if arguments.flag("resume", resume) and table is None:
        raise ValueError("only a scan with an output can be resumed")
    limits: dict[str, Any] = {
        "jobs": None if jobs is None else arguments.count("jobs", jobs, 1),
        "timeout": None if timeout is None else arguments.seconds("timeout", timeout),
        "memory": arguments.size("memory", memory, 1) if sys.platform.startswith("linux") else None,
    }
    arguments.flag("dedupe", dedupe)
    if skip is not None and not callable(skip):
        raise TypeError(f"skip must be a function, not {type(skip).__name__}")
    options = checked_options(evidence=evidence, budget=budget)
    if table is not None:
        writer_for(table)
        begun = journal_of(table)
        if os.path.lexists(begun) and not resume:
            raise OutputError(str(begun), "is there from an earlier scan: resume it, or delete it")
    inputs = find_inputs(names, skip or PassedOver(), arguments.texts("exclude", exclude))
    return (
        _without_table(inputs, limits, dedupe, options)
        if table is None
        else _scan(inputs, table, limits, dedupe, options)
    )


def _scan(
    inputs: Iterator[str], table: Path, limits: Mapping[str, Any], dedupe: bool, options: Mapping[str, Any]
) -> Iterator[Answer]:
    with contextlib.closing(Journal(journal_of(table), settings_of(options))) as journal:
        yield from journal.answers()
        with Workers(**limits) as workers:
            yield from answer_all(inputs, journal, workers, dedupe=dedupe, options=options)
        finish(journal, table)


def _without_table(
    inputs: Iterator[str], limits: Mapping[str, Any], dedupe: bool, options: Mapping[str, Any]
) -> Iterator[Answer]:
    met: set[bytes] = set()

    def fresh() -> Iterator[str]:
        for one in inputs:
            key = identity_of(one).key
            if key not in met:
                met.add(key)
                yield one

    with Workers(**limits) as workers:
        known: dict[bytes, Identity] | None = {} if dedupe else None
        for _, answer in answers(fresh(), workers, known=known, in_flight=2 * workers.jobs, **options):
            yield answer
