"""A training run in rows: every checkpoint measured by samples, one at a time, in the order of training."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from .. import arguments
from ..errors import NormsniffError
from ..limits import Limits
from ..measure.samples import DEFAULT_BUDGET
from ..pipeline import sniff
from ..record import ErrorDetail, Label, Written
from .runs import find
from .summary import Summary, of_record


class Snapshot(Written, frozen=True, kw_only=True, eq=False):
    """One checkpoint of a run.

    Attributes:
        path: the model file.
        step: how far training had come (`normsniff.training.runs.step_of` states the rule); None if unknown.
        label: the verdict on the main residual stream; None if the checkpoint could not be read.
        confidence: probability that the label is right; None for ``undetermined``.
        summary: ρ by role, the scales, and what the kernel alone says; None if the checkpoint could not be read.
        seconds: wall-clock time to answer.
        error: why the checkpoint could not be read, or None.
    """

    _shown: ClassVar = ("path", "step", "label", "confidence")

    path: str
    step: int | None
    label: Label | None = None
    confidence: float | None = None
    summary: Summary | None = None
    seconds: float
    error: ErrorDetail | None = None


def track(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    limits: Limits | None = None,
    budget: int | str | None = DEFAULT_BUDGET,
) -> Iterator[Snapshot]:
    """Measure the checkpoints of a training run, ordered by step.

    One checkpoint is open at a time. One that cannot be read gives a row with the error, and the others go on.

    Args:
        paths: checkpoints (files, or directories that hold one) or directories below which they lie.
        limits: caps on what a file may cost.
        budget: bytes of matrices to read of each checkpoint at most (or a text such as "32MB"); None reads every
            matrix whole.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a path is empty, or `budget` is no size.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else arguments.several("paths", paths, "paths")
    asked = [Path(arguments.path("each of paths", one)) for one in given]
    return _snapshots(asked, arguments.limits(limits), arguments.size("budget", budget))


def _snapshots(paths: Sequence[Path], limits: Limits, budget: int | None) -> Iterator[Snapshot]:
    for stored in find(paths, limits):
        started = time.perf_counter()
        path, step = str(stored.path), stored.step
        try:
            if stored.error is not None:
                raise stored.error
            record = sniff(stored.path, limits=limits, budget=budget)
        except NormsniffError as error:
            seconds = round(time.perf_counter() - started, 6)
            yield Snapshot(path=path, step=step, seconds=seconds, error=ErrorDetail.of(error))
            continue
        yield Snapshot(
            path=path,
            step=step,
            label=record.label,
            confidence=record.confidence,
            summary=of_record(record),
            seconds=round(time.perf_counter() - started, 6),
        )
