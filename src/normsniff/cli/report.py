"""`normsniff report`: one HTML page about one or several models."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
import sys
from collections.abc import Sequence
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
    limits_options,
    models_in,
    report_failure,
    spare,
    tell_skipped,
)
from .sniff import answers_for

if TYPE_CHECKING:
    from ..kernel.namespaces import Device
    from ..render.report.provenance import Provenance
    from ..source.place import Place

_HASHED = 1_000_000_000  # bytes that are hashed unasked: a second or two
_PIECE = 1 << 18  # of them at a time
_LISTED = 1_000  # files of a directory that are hashed unasked: nobody looks for one among more


@click.command(context_settings=HELP)
@inputs_argument
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The page to write."
)
@click.option(
    "--hash/--no-hash",
    "hashed",
    default=None,
    help="Put the SHA-256 of each whole local file at the foot of the page. "
    "Without either: of up to 1 GB in up to 1,000 files.",
)
@evidence_option
@budget_option
@full_option
@limits_options
def report(
    inputs: tuple[Place, ...],
    output: Path,
    hashed: bool | None,
    evidence: tuple[str, ...],
    budget: int,
    full: bool,
    timeout: float | None,
    memory: int | None,
) -> None:
    """Write one self-contained HTML page: verdict, evidence that adds up, ρ by layer, scales, norms, conflicts.

    Several models stand side by side. The foot says when, by which command and from which bytes the page was made.
    A model that cannot be read is shown as such, and the exit code is 2.
    """
    from ..batch.tally import PassedOver
    from ..outputs import replacing
    from ..record import Failure
    from ..render.report import page

    spare(inputs, output)
    device: Device = "cpu"
    skipped = PassedOver()
    answers = list(
        answers_for(models_in(inputs, skipped), evidence, None if full else budget, device, None, timeout, memory)
    )
    with failing(), replacing(output) as file:
        file.write(page(answers, _made(inputs, hashed)).encode())
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    tell_skipped(skipped)
    for failure in failures:
        report_failure(failure, as_json=False)
    if failures:
        sys.exit(EXIT_UNREADABLE)


def _made(inputs: Sequence[Place], hashed: bool | None) -> Provenance:
    """Return date, command and digests of the files; what cannot be read has its failure on the page already."""
    from datetime import UTC, datetime

    from ..record import spelled
    from ..render.report.provenance import Provenance
    from ..render.text import size as told
    from ..words import amount

    listed = [file for place in inputs if isinstance(place, Path) for file in _files(place)]
    many = hashed is None and len(listed) > _LISTED
    files = {} if many else {file: size for file in listed if (size := _size(file)) is not None}
    total, remark = sum(files.values()), ""
    if many or hashed is False or (hashed is None and total > _HASHED):
        remark = f"whole files are not hashed (--hash does, {amount(len(listed), 'file') if many else told(total)})"
        files = {}
    elif any(not isinstance(place, Path) for place in inputs):
        remark = "files behind URLs are not hashed whole"
    return Provenance(
        made=datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
        command=shlex.join(["normsniff", *map(spelled, sys.argv[1:])]),
        digests={spelled(file): digest for file in files if (digest := _digest(file))},
        remark=remark,
    )


def _files(place: Path) -> list[Path]:
    """Return what a place stands for: itself, or all that a directory shows."""
    from ..source.places import is_directory

    if is_directory(place):
        with contextlib.suppress(OSError):
            shown = [file for file in place.iterdir() if not file.name.startswith(".")]
            return sorted(shown, key=lambda file: file.name)
    return [place]


def _size(file: Path) -> int | None:
    """Return the size of a regular file; None of anything else, or if it is gone by now."""
    with contextlib.suppress(OSError, ValueError):
        status = file.stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


def _digest(file: Path) -> str | None:
    """Return the digest of as many bytes as the file says that it has: some below /proc say none, and never end."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        left, found = os.fstat(opened.fileno()).st_size, hashlib.sha256()
        while left > 0 and (piece := opened.read(min(left, _PIECE))):
            found.update(piece)
            left -= len(piece)
        return found.hexdigest()
    return None
