"""What the seen half says of layout's rules, a code base counted once; the other half is for scoring alone."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from normsniff import sniff
from normsniff.anatomy import describe
from normsniff.errors import NormsniffError
from normsniff.inputs.opening import open_source
from normsniff.limits import Limits
from normsniff.record import EvidenceKind

from .build import write
from .table import Row, load

KINDS = ("LayerNorm", "RMSNorm")
_STORED = {"stored": "present", "absent": "absent"}


def shifts(when: str) -> dict[str, set[str]]:
    """Return by norm the code bases whose stream's norms have a shift (``present``), or a scale alone (``absent``)."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for row in load("seen"):
        if row.truth in KINDS and _STORED.get(row.shifts) == when:
            found[row.truth].add(row.source)
    return found


class Seen(NamedTuple):
    """What layout evidence makes of one file.

    Attributes:
        row: what is in it.
        said: the label of layout evidence alone, without a configuration.
        hints: of its main component.
        words: names of the norms of the stream that have no shift; empty if some have one.
    """

    row: Row
    said: str
    hints: tuple[str, ...]
    words: frozenset[str]


LAYOUT: tuple[EvidenceKind, ...] = ("layout",)


def seen() -> Iterator[Seen]:
    """Yield what layout says of every file of the half that may be learnt from, if it is read."""
    for row in load("seen"):
        with tempfile.TemporaryDirectory() as folder:
            path = write(row, Path(folder))
            try:
                said = next((e.label for e in sniff(path, evidence=LAYOUT).evidence), "undetermined")
                checkpoint = open_source(path, Limits())
            except NormsniffError:
                continue
            anatomy = describe(checkpoint)
            checkpoint.close()
        main = next(iter(anatomy.widths), "main")
        stream = [site for site in anatomy.sites if site.component == main and site.role == "stream"]
        bare = not any(site.shift is not None for site in stream)
        words = frozenset(site.word for site in stream if site.word) if bare else frozenset()
        yield Seen(row, said, anatomy.hints.get(main, ()), words)


def words(observed: list[Seen]) -> dict[str, dict[str, set[str]]]:
    """Return by name of a norm without a shift, and by norm, the code bases that have it."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: {kind: set() for kind in KINDS})
    for one in observed:
        if one.row.truth in KINDS:
            for word in one.words:
                found[word][one.row.truth].add(one.row.source)
    return found
