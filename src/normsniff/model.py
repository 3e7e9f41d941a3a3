"""One opened model: its header, and what is made of it, each part once and only if it is asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import arguments
from .anatomy import Anatomy, describe
from .checkpoint import Checkpoint
from .evidence import contents
from .inputs.opening import Source, name_of, opened
from .limits import Limits
from .measure import samples
from .measure.samples import Sample, prefetch, whole
from .measure.shadows import Vectors, read_vectors, vectors_of
from .record import EVIDENCE_KINDS, Classification, EvidenceKind

if TYPE_CHECKING:
    from .checks.inspection import Inspection


@dataclass(frozen=True)
class Model:
    """One opened model, and what was made of it so far: each part is worked out once, when it is first asked for.

    Attributes:
        name: what records and messages call it.
        checkpoint: its header; closed where the block of `modelled` ends.
        kinds: the evidence to use.
        limits: caps on what it may cost.
        started: when opening it began, by `time.perf_counter`.
    """

    name: str
    checkpoint: Checkpoint
    kinds: tuple[EvidenceKind, ...]
    limits: Limits
    started: float

    @property
    def parameters_alone(self) -> bool:
        """Whether names, metadata and operators must not influence the answer."""
        return self.kinds == ("kernel",)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Norm sites, and the matrices around them."""
        return describe(self.checkpoint, parameters_alone=self.parameters_alone)

    @cached_property
    def content(self) -> contents.Content | None:
        """What the file holds in place of a network; None for networks, and where names must not tell."""
        return None if self.parameters_alone else contents.of(self.checkpoint, self.anatomy)

    @cached_property
    def heard(self) -> tuple[EvidenceKind, ...]:
        """The kinds of evidence that may speak: of what is no network only what it says of itself."""
        return self.kinds if self.content is None else tuple(kind for kind in self.kinds if kind == "declared")

    @cached_property
    def vectors(self) -> Vectors:
        """Scales and shifts, decoded."""
        return read_vectors(self.anatomy, self.limits, values="kernel" in self.kinds)

    def fetch_vectors(self) -> None:
        """Have all scales and shifts of a model behind a URL fetched at once, where more than a label wants them."""
        prefetch(whole(vectors_of(self.anatomy)))

    def samples(self, budget: int | None) -> tuple[list[list[Sample]], list[str]]:
        """Return what the kernel samples of the matrices, in batches, and notes on what is left out."""
        return samples.select(self.anatomy, budget, self.limits) if "kernel" in self.heard else ([], [])

    def inspect(self, record: Classification) -> Inspection:
        """Return what is wrong with the norms, and what they store; reads their vectors, and no matrix."""
        from .checks.inspection import inspect

        return inspect(self.checkpoint, self.anatomy, record, self.limits)

    def spent(self) -> dict[str, Any]:
        """Return what the answer has cost so far, as the fields of a record."""
        return {
            "bytes_read": self.checkpoint.bytes_read if self.checkpoint.sources else None,
            "requests": self.checkpoint.requests,
            "seconds": round(time.perf_counter() - self.started, 6),
        }


@contextlib.contextmanager
def modelled(
    source: Source, *, evidence: str | Collection[EvidenceKind] = EVIDENCE_KINDS, limits: Limits | None = None
) -> Iterator[Model]:
    """Open a model for the length of a block.

    Raises:
        NormsniffError: as `sniff` does.
        ValueError: `evidence` is empty or names an unknown kind.
    """
    started, kinds, limits = time.perf_counter(), arguments.kinds(evidence), arguments.limits(limits)
    with opened(source, limits) as checkpoint:
        yield Model(name_of(source), checkpoint, kinds, limits, started)
