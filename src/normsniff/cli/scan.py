"""`normsniff scan`: a lake of models to one table, one row an input whatever the input does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .options import (
    EXIT_INTERRUPTED,
    EXIT_UNREADABLE,
    HELP,
    budget_option,
    evidence_option,
    exclude_option,
    failing,
    filled,
    memory_option,
    timeout_option,
)

if TYPE_CHECKING:
    from ..batch.tally import PassedOver, Tally


_EXAMPLES = """\b
Examples:
  normsniff scan /lake --output labels.parquet --jobs 8
  normsniff scan uploads.txt --output labels.jsonl --timeout 60 --memory 1GB
  find /lake -name '*.gguf' | normsniff scan - --output labels.csv
  normsniff scan /lake --output labels.parquet --resume     # after an interruption

\b
Exit codes:
    0  every input was answered (an abstention is an answer)
    2  usage error, or an input could not be read (its row says why; the others are answered)
  130  interrupted; what was answered is kept, and --resume goes on from there
"""


@click.command(epilog=_EXAMPLES, context_settings=HELP)
@click.argument("roots", nargs=-1, required=True, metavar="ROOT|LIST.txt|FILE|URI|-...", callback=filled)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="The table to write: *.parquet, *.jsonl or *.csv. It appears once it is complete.",
)
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Processes. [default: one for every CPU]")
@click.option("--resume", is_flag=True, help="Go on with a scan that was interrupted.")
@timeout_option(300)
@memory_option("2GB")
@click.option(
    "--skipped",
    type=click.Path(path_type=Path),
    help="Write what was passed over, one JSON object a line with path and reason; without it, reasons are counted.",
)
@click.option("--dedupe/--no-dedupe", default=True, show_default=True, help="Answer inputs of the same content once.")
@exclude_option
@evidence_option
@budget_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to work: processes here, or a Ray cluster, which writes a directory of Parquet files.",
)
@click.option("--address", help="Address of the Ray cluster. [default: one is started here]")
def scan(
    roots: tuple[str, ...],
    output: Path,
    jobs: int | None,
    resume: bool,
    timeout: float,
    memory: int,
    skipped: Path | None,
    dedupe: bool,
    exclude: tuple[str, ...],
    evidence: tuple[str, ...],
    budget: int,
    engine: str,
    address: str | None,
) -> None:
    """Label every model of a lake and write one table with one row an input.

    A directory is walked; a text file (or - for standard input) lists inputs, one a line; anything else is an input.
    An input that hangs, crashes its process or runs out of memory gets a row that says so.
    """
    from ..batch.scan import journal_of, settings_of
    from ..batch.tally import PassedOver

    if engine == "ray" and output.suffix != ".parquet":
        raise click.BadParameter("Ray writes a directory named *.parquet", param_hint="--output")
    begun = journal_of(output) if engine == "local" else output
    there = os.path.lexists(begun)  # a link that leads nowhere is there, too
    if there and not resume:
        raise click.UsageError(f"{begun} is there from an earlier scan: add --resume, or delete it")
    if resume and os.path.lexists(output) and not there:
        click.echo(f"{output} is complete: nothing to resume", err=True)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave things in order
    options = {"evidence": evidence, "budget": budget}
    job = _Job(
        roots,
        output,
        jobs,
        {"timeout": timeout, "memory": memory if sys.platform.startswith("linux") else None},
        dedupe,
        options,
        settings_of(options),
        PassedOver(),
        exclude,
    )
    try:
        with failing(), _noted(skipped) as note:
            job.skip = PassedOver(note)
            tally = _locally(job) if engine == "local" else _on_ray(job, address)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted: what was answered is in {begun}; --resume goes on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_UNREADABLE if tally.failures or not tally.inputs else 0)


@dataclass(slots=True)
class _Job:
    """What was asked for, and a count of what was passed over."""

    roots: tuple[str, ...]
    output: Path
    jobs: int | None
    limits: dict[str, Any]
    dedupe: bool
    options: dict[str, Any]
    settings: str
    skip: PassedOver
    exclude: tuple[str, ...]

    def inputs(self) -> Iterator[str]:
        """Walk and list."""
        from ..batch.scan import find_inputs

        return find_inputs(self.roots, self.skip, self.exclude)


def _locally(job: _Job) -> Tally:
    from ..batch.journal import Journal
    from ..batch.scan import answer_all, finish, journal_of
    from ..render.table import writer_for
    from ..workers import Workers

    writer_for(job.output)  # an ending or a library that is missing is better told now than in ten hours
    started = time.monotonic()
    journal = Journal(journal_of(job.output), job.settings)
    before = len(journal)
    try:
        with Workers(job.jobs, **job.limits) as workers, _progress(job, before) as tell:
            for _ in answer_all(job.inputs(), journal, workers, dedupe=job.dedupe, options=job.options):
                tell(1)
        tally = finish(journal, job.output)
    finally:
        journal.close()
    _report(job, tally, tally.inputs, tally.inputs - before, time.monotonic() - started)
    return tally


def _on_ray(job: _Job, address: str | None) -> Tally:
    from ..batch.ray import begin, scan_on_ray

    started = time.monotonic()
    done = begin(job.output, job.settings)
    before = len(done)
    with _progress(job, before) as tell:
        tally = scan_on_ray(
            job.inputs(),
            job.output,
            done,
            address=address,
            jobs=job.jobs,
            limits=job.limits,
            dedupe=job.dedupe,
            options=job.options,
            tell=tell,
        )
    _report(job, tally, before + tally.inputs, tally.inputs, time.monotonic() - started)
    return tally


def _report(job: _Job, tally: Tally, total: int, now: int, seconds: float) -> None:
    from ..batch.tally import ranked

    counts = {
        **ranked(tally.labels),
        "duplicates": tally.duplicates,
        "contradictions": tally.contradictions,
        "errors of norms": tally.broken,
        **{f"failed: {code}": count for code, count in ranked(tally.failures).items()},
        **{f"skipped: {why}": count for why, count in ranked(job.skip.reasons).items()},
    }
    click.echo(f"{job.output}: {total:,} inputs", err=True)
    for name, count in counts.items():
        if count:
            click.echo(f"  {name:<24}{count:>12,}", err=True)
    rate = f"{now:,} inputs now, in {seconds:,.1f} s ({now / max(seconds, 1e-9):,.1f}/s)"
    click.echo(f"  {tally.bytes_read / 1e6:,.1f} MB read; {rate}", err=True)


@contextmanager
def _noted(path: Path | None) -> Iterator[BinaryIO | None]:
    from ..outputs import replacing

    if path is None:
        yield None
        return
    with replacing(path) as file:
        yield file


@contextmanager
def _progress(job: _Job, before: int) -> Iterator[Callable[[int], object]]:
    """Show a bar with rate and remaining time on a terminal; the total is counted beside the work."""
    if not sys.stderr.isatty():
        yield lambda _n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..batch.scan import find_inputs
    from ..errors import NormsniffError

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    started, done = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scan", total=None, completed=before, rate="")

        def count() -> None:
            with suppress(NormsniffError):  # a list that cannot be read: the scan itself says so
                bar.update(task, total=sum(1 for _ in find_inputs(job.roots, lambda _path, _reason: None, job.exclude)))

        def tell(n: int) -> None:
            nonlocal done
            done += n
            bar.update(task, advance=n, rate=f"{done / max(time.monotonic() - started, 1e-9):,.1f}/s")

        if "-" not in job.roots:  # standard input can be read once only
            threading.Thread(target=count, daemon=True).start()
        yield tell
