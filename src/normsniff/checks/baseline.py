"""A baseline: the findings that are known, so that only new ones fail."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import FormatError, SourceError
from ..outputs import replacing
from ..record import Finding
from .findings import Report

_MOST_BYTES = 1 << 26


class Accepted(msgspec.Struct, frozen=True, order=True):
    """One finding as a baseline keeps it: numbers may change, what and where may not.

    Attributes:
        model: name of the file or directory, without the path to it.
        code: of the finding.
        component: tower.
        norms: names of the sites.
    """

    model: str
    code: str
    component: str
    norms: tuple[str, ...]


class _Baseline(msgspec.Struct, frozen=True):
    version: int
    findings: tuple[Accepted, ...]


def known_of(path: str, finding: Finding) -> Accepted:
    """Return what a baseline keeps of a finding about the model at `path`."""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return Accepted(name, finding.code, finding.component, finding.norms)


def load(path: Path) -> frozenset[Accepted]:
    """Read a baseline.

    Raises:
        SourceError: it cannot be read.
        FormatError: it is none.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= _MOST_BYTES else b""
    except OSError as error:
        raise SourceError(str(path), error.strerror or str(error)) from error
    try:
        return frozenset(msgspec.json.decode(data, type=_Baseline).findings)
    except msgspec.MsgspecError as error:
        raise FormatError("baseline", str(path), f"not a baseline of normsniff check: {error}"[:300]) from error


def save(path: Path, reports: Iterable[Report]) -> int:
    """Write all findings of some models as a baseline, replaced whole; return how many.

    Raises:
        OutputError: it cannot be written.
    """
    found = tuple(sorted({known_of(report.path, one) for report in reports for one in report.findings}))
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(_Baseline(1, found)), indent=1) + b"\n")
    return len(found)
