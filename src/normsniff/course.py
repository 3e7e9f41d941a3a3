"""The course of one label: a batch of matrices after the other, until the verdict is certain; then the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from . import meter, verdict
from ._version import __version__
from .evidence import (
    architecture_of,
    family_of,
    from_declarations,
    from_layout,
    from_shadows,
    is_quiet,
    load_weights,
    substitutes,
)
from .evidence.abstention import account_of, next_steps, sentence
from .kernel.namespaces import Device
from .measure import samples
from .measure.samples import DEFAULT_BUDGET, Sample
from .measure.shadows import Measured, as_planned, omissions, take
from .measure.sites import norm_records
from .model import Model
from .record import Classification, Component, Evidence, Shadow, sound

Tell: TypeAlias = Callable[[Classification], object]
"""What is told of a label on the way to it."""


@dataclass(slots=True)
class _Course:
    """How far an answer has come.

    Attributes:
        unread: batches of matrices that are left.
        notes: on matrices that are left out.
        measured: what was measured.
        reasons: why something was not.
        found: the evidence.
        components: verdicts on it.
        added: what the verdicts add.
    """

    unread: list[list[Sample]]
    notes: list[str]
    measured: list[Measured] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    found: list[Evidence] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    added: list[Evidence] = field(default_factory=list)


def classify(
    model: Model, budget: int | None = DEFAULT_BUDGET, device: Device = "cpu", tell: Tell | None = None
) -> Classification:
    """Return the record; arguments as for `sniff`. This reads matrices, as few as certainty allows."""
    weights = load_weights()
    checkpoint, anatomy, vectors = model.checkpoint, model.anatomy, model.vectors
    heard, fact = model.heard, family_of(checkpoint)
    if budget is None or budget > DEFAULT_BUDGET:  # bytes of the file, not of what it says that it holds
        meter.ask(checkpoint.file_size if budget is None else min(budget, checkpoint.file_size))
    told = from_declarations(checkpoint, anatomy, weights, fact, model.content) if "declared" in heard else []
    told += from_layout(checkpoint, anatomy, vectors.shifts, weights, fact) if "layout" in heard else []
    batches, notes = model.samples(budget)
    course = _Course(samples.parted(batches) if budget is not None else batches, notes)
    glance = len(course.unread) - len(batches)  # 1 if the first batch comes in two parts
    unlike = substitutes.find(checkpoint, anatomy)
    while True:  # a batch of matrices after the other, until the verdict is certain
        complete = not glance or len(course.unread) != len(batches)  # a glance says when to give up, and no more
        quiet = budget is not None and is_quiet(course.measured)
        if complete or quiet:
            course.found = list(told)
            if "kernel" in heard:
                course.found += from_shadows(anatomy, course.measured, vectors.scale_spread, weights, unlike)
            course.components, course.added = verdict.decide(anatomy, course.found, weights)
            settled = complete and verdict.is_settled(course.components, course.found, weights)
            if quiet or not course.unread or (budget is not None and settled):
                return _record(model, course, partly=budget is not None)
        if tell is not None and complete:
            tell(sound(_record(model, course, partly=True)))
        more, why = take(course.unread.pop(0), anatomy.sites, vectors.scales, device, vectors.candidates)
        course.measured += more
        course.reasons += why
        if glance and len(course.unread) == len(batches) - 1:  # in the order in which one batch would have come
            course.measured = as_planned(course.measured, batches[0])


def _record(model: Model, course: _Course, *, partly: bool) -> Classification:
    """Write down what is known so far; `partly` if more of the matrices could be read."""
    weights, checkpoint, anatomy, vectors = load_weights(), model.checkpoint, model.anatomy, model.vectors
    found, added, components = course.found, course.added, course.components
    content, fact = model.content, family_of(checkpoint)
    main, doubts = verdict.main_of(components, found)
    undetermined = main.label == "undetermined"
    if undetermined:
        said = Evidence(
            kind="verdict",
            component=main.name,
            label="undetermined",
            log_odds=0.0,
            reason=sentence(checkpoint, anatomy, content),
        )
        added = [*added, said]
    return Classification(
        tool_version=__version__,
        calibration=weights.version,
        path=model.name,
        format=checkpoint.format,
        format_version=checkpoint.version,
        architecture=architecture_of(checkpoint),
        file_size=checkpoint.file_size if checkpoint.sources else None,
        header_sha256=checkpoint.header_sha256 or None,
        label=main.label,
        confidence=main.confidence,
        probabilities=main.probabilities,
        rewritten_from=main.rewritten_from,
        components=components,
        evidence=[*found, *added],
        contradictions=verdict.contradictions(found, weights),
        norms=norm_records(anatomy, vectors, course.measured),
        shadows=[_shadow_record(one) for one in course.measured],
        d_model=main.d_model,
        tensors=len(checkpoint.tensors),
        scales=None if model.parameters_alone else sum(site.scale is not None for site in anatomy.sites),
        shifts=None if model.parameters_alone else sum(site.shift is not None for site in anatomy.sites),
        matrices_left=sum(len(batch) for batch in course.unread) if "kernel" in model.kinds else None,
        account=account_of(anatomy),
        next_steps=next_steps(checkpoint, anatomy, model.kinds, fact, content, partly=partly) if undetermined else [],
        warnings=[
            *checkpoint.warnings,
            *anatomy.notes,
            *vectors.notes,
            *course.notes,
            *omissions(course.reasons),
            *doubts,
        ],
        **model.spent(),
    )


def _shadow_record(one: Measured) -> Shadow:
    shadow, matrix = one.shadow, one.matrix
    return Shadow(
        tensor=matrix.tensor.name,
        role=matrix.role,
        component=matrix.component,
        layer=matrix.layer,
        axis=matrix.axis,
        direction=one.direction,
        rho=_rounded(shadow.rho) or 0.0,
        relative_error=_rounded(shadow.relative_error),
        z=_rounded(shadow.z),
        dispersion=_rounded(shadow.dispersion),
        alignment=_rounded(shadow.alignment),
        vectors=shadow.vectors,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
