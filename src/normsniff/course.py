"""The course of one label: a batch of matrices after the other, until the verdict is certain; then the record."""

from __future__ import annotations

from collections import Counter, deque
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
from .measure.gains import gains
from .measure.samples import DEFAULT_BUDGET, Sample
from .measure.shadows import Measured, as_planned, omissions, take
from .measure.sites import norm_records
from .model import Model
from .record import Classification, Component, Evidence, Shadow, sound

Tell: TypeAlias = Callable[[Classification], object]
"""What is told of a label on the way to it."""

_GROWTH = 8
"""Where every matrix is read whole, the evidence is weighed each time that it has grown by an eighth, and only if
somebody is told: weighed after each, a model of 740 small matrices took 7 s instead of one."""


@dataclass(slots=True)
class _Course:
    """How far an answer has come.

    Attributes:
        unread: batches of matrices that are left.
        notes: on matrices that are left out.
        taken: how many matrices were.
        due: of how many the evidence is weighed next, where every matrix is a batch of its own.
        pooled: where it is, how many of a role have given vectors to all of them together.
        measured: what was measured.
        reasons: why something was not.
        found: the evidence.
        components: verdicts on it.
        added: what the verdicts add.
    """

    unread: deque[list[Sample]]
    notes: list[str]
    taken: int = 0
    due: int = 0
    pooled: Counter[tuple[str, str]] = field(default_factory=Counter)
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
    course = _Course(deque(samples.parted(batches) if budget is not None else batches), notes)
    glance = len(course.unread) - len(batches)  # 1 if the first batch comes in two parts
    unlike, scales = substitutes.find(checkpoint, anatomy), gains(anatomy.sites, vectors.scales)
    while True:  # a batch of matrices after the other, until the verdict is certain
        complete = not glance or len(course.unread) != len(batches)  # a glance says when to give up, and no more
        quiet = budget is not None and is_quiet(course.measured)
        due = budget is not None or not course.unread or (tell is not None and course.taken >= course.due)
        if (complete and due) or quiet:
            course.found = list(told)
            if "kernel" in heard:
                course.found += from_shadows(anatomy, course.measured, vectors.scale_spread, weights, unlike)
            course.components, course.added = verdict.decide(anatomy, course.found, weights)
            settled = complete and verdict.is_settled(course.components, course.found, weights)
            if quiet or not course.unread or (budget is not None and settled):
                return _record(model, course, partly=budget is not None)
            if tell is not None and complete:
                tell(sound(_record(model, course, partly=True)))
            course.due = course.taken + course.taken // _GROWTH
        batch = course.unread.popleft()
        pooled = course.pooled if budget is None else None
        more, why = take(batch, anatomy.sites, scales, device, vectors.candidates, pooled)
        course.taken += len(batch)
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
    for why in (*doubts, sentence(checkpoint, anatomy, content)) if undetermined else ():
        said = Evidence(kind="verdict", component=main.name, label="undetermined", log_odds=0.0, reason=why)
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
        next_steps=next_steps(checkpoint, anatomy, model.kinds, fact, content, partly=partly, several=bool(doubts))
        if undetermined
        else [],
        warnings=[
            *checkpoint.warnings,
            *anatomy.notes,
            *vectors.notes,
            *course.notes,
            *omissions(course.reasons),
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
