"""The street, walked once: file → checkpoint → anatomy → evidence → verdict → record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from . import arguments, meter, verdict
from ._version import __version__
from .anatomy import Anatomy, describe
from .checkpoint import Checkpoint
from .errors import BudgetSpent
from .evidence import (
    architecture_of,
    contents,
    family_of,
    from_declarations,
    from_layout,
    from_shadows,
    is_quiet,
    load_weights,
    substitutes,
)
from .evidence.abstention import account_of, next_steps, sentence
from .inputs.opening import Source, name_of, opened, portable
from .kernel.namespaces import DEVICES, Device
from .limits import Limits
from .measure import samples
from .measure.plan import Plan, steps
from .measure.samples import DEFAULT_BUDGET, Sample, prefetch, whole
from .measure.shadows import Measured, Vectors, as_planned, omissions, read_vectors, take, vectors_of
from .measure.sites import norm_records
from .record import EVIDENCE_KINDS, Classification, Component, Evidence, EvidenceKind, Shadow, sound

if TYPE_CHECKING:
    from .checks.findings import Report
    from .checks.inspection import Inspection

Tell: TypeAlias = Callable[[Classification], object]

_SHALLOW: tuple[EvidenceKind, ...] = ("declared", "layout")
"""What `check` labels a model by: no matrix is read for it."""


def sniff(
    source: Source,
    *,
    evidence: str | Collection[EvidenceKind] = EVIDENCE_KINDS,
    limits: Limits | None = None,
    budget: int | str | None = DEFAULT_BUDGET,
    device: Device = "cpu",
    check: bool | None = None,
    tell: Tell | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    memory: int | str | None = None,
) -> Classification:
    """Classify one model.

    Args:
        source: a path or URL of a model file or of a directory that holds one model, the bytes of a file, a seekable
            binary file object, or a mapping of names to arrays (numpy, or anything with ``__array__`` or
            ``__dlpack__``).
        evidence: the kinds to use, in a collection or in a text with commas. ``"kernel"`` alone means parameters alone:
            names, metadata, operator types, configurations beside the file and the presence of shifts do not influence
            the label.
        limits: caps on what a file may cost.
        budget: bytes of matrices to read at most, or a text such as ``"32MB"``; None reads every matrix whole.
        device: where the kernel's arithmetic runs: ``"cpu"``, or ``"cuda"`` with the extra ``gpu``.
        check: whether to fill `findings`, for which all scales and shifts are read. By default where the label takes
            them anyway, and never from parameters alone.
        tell: told of the record as it grows: of the header, then after every batch of matrices but the last.
        isolate: work in a process of its own, which a file may crash or fill without harm to this one. `source` is then
            a path, a URL or bytes. For many files, `Workers` and `sniff_many` share processes.
        timeout: with `isolate`: seconds that it may take.
        memory: with `isolate`, on Linux: bytes that it may allocate, or a text such as ``"2GB"``.

    Raises:
        SourceError: the bytes cannot be had.
        WorkerError: the process of its own was lost, or stopped at a limit.
        FormatError: the file is in no known format, or breaks the rules of its format.
        LimitExceeded: the file asks for more than `limits` allows.
        DeviceError: `device` is not there.
        MissingExtra: `device` is ``"cuda"`` and CuPy is not installed.
        ValueError: an argument has a value that it cannot have; a limit of the process is given without `isolate`, or
            `tell` with it.
        TypeError: an argument is of another type, or `source` cannot be handed to another process.
    """
    options = checked_options(evidence=evidence, limits=limits, budget=budget, device=device, check=check)
    timeout = None if timeout is None else arguments.seconds("timeout", timeout)
    memory = arguments.size("memory", memory, 1)
    if tell is not None and not callable(tell):
        raise TypeError(f"tell must be a function, not {type(tell).__name__}")
    if arguments.flag("isolate", isolate):
        if tell is not None:
            raise ValueError("a process of its own tells nothing on the way: tell is for isolate=False")
        from .workers import alone

        return alone(sniff, portable(source), timeout=timeout, memory=memory, **options)
    if timeout is not None or memory is not None:
        raise ValueError("timeout and memory are limits of a process of its own: isolate=True")
    with modelled(source, evidence=options["evidence"], limits=limits) as model:
        return model.answer(options["budget"], device, check, tell)


def checked_options(**options: Any) -> dict[str, Any]:
    """Return the options of `sniff` that say how to label, each as what it means.

    Raises:
        TypeError: one is of another type, or there is no such option.
        ValueError: one has a value that it cannot have.
    """
    known: dict[str, Callable[[Any], Any]] = {
        "evidence": arguments.kinds,
        "limits": arguments.limits,
        "budget": lambda value: arguments.size("budget", value),
        "device": lambda value: arguments.choice("device", value, DEVICES),
        "check": lambda value: None if value is None else arguments.flag("check", value),
    }
    if unknown := options.keys() - known.keys():
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return {name: known[name](value) for name, value in options.items()}


def _checked(model: Model, record: Classification, *, asked: bool) -> Classification:
    """Add the findings; a file that leaves no work for them keeps its label, unless they were asked for."""
    try:
        seen = model.inspect(record)
        norms = [
            msgspec.structs.replace(norm, stores=told) for norm, told in zip(record.norms, seen.stores, strict=True)
        ]
        return msgspec.structs.replace(record, findings=seen.findings, norms=norms, **model.spent())
    except BudgetSpent as error:
        if asked:
            raise
        return msgspec.structs.replace(record, warnings=[*record.warnings, f"norms not checked: {error}"])


def check(source: Source, *, deep: bool = False, limits: Limits | None = None) -> Report:
    """Say what is wrong with the norms of one model.

    The header and the norms' own vectors are read, and no matrix.

    Args:
        source: whatever `sniff` takes.
        deep: read samples of matrices too, as `sniff` does: ``contradiction``, ``rewritten`` and ``tampered`` need it.
        limits: caps on what a file may cost.

    Raises:
        NormsniffError: as `sniff` does.
    """
    from .checks.findings import Report

    deep = arguments.flag("deep", deep)
    with modelled(source, evidence=EVIDENCE_KINDS if deep else _SHALLOW, limits=limits) as model:
        model.fetch_vectors()
        record = model.classify()
        seen = model.inspect(record)
        return Report(
            path=model.name,
            format=record.format,
            architecture=record.architecture,
            label=record.label,
            confidence=record.confidence,
            norms=len(record.norms),
            unread=seen.unread,
            deep=deep,
            findings=tuple(seen.findings),
            **model.spent(),
        )


def plan(
    source: Source,
    *,
    evidence: str | Collection[EvidenceKind] = EVIDENCE_KINDS,
    limits: Limits | None = None,
    budget: int | str | None = DEFAULT_BUDGET,
) -> Plan:
    """Say what `sniff` with the same arguments would read. Only the header is read for it.

    Raises:
        NormsniffError: as `sniff` does of a file's header.
        ValueError: `evidence` is empty or names an unknown kind.
    """
    budget = arguments.size("budget", budget)
    with modelled(source, evidence=evidence, limits=limits) as model:
        checkpoint = model.checkpoint
        batches, notes = model.samples(budget)
        vectors = vectors_of(model.anatomy, values="kernel" in model.kinds)
        ordered = list(steps(checkpoint.bytes_read, vectors, batches))
        later = sum(sample.nbytes for batch in samples.parted(batches)[1:] for sample in batch) if budget else 0
    return Plan(
        path=model.name,
        format=checkpoint.format,
        file_size=checkpoint.file_size if checkpoint.sources else None,
        least_bytes=sum(step.bytes for step in ordered) - later,
        most_bytes=sum(step.bytes for step in ordered),
        steps=ordered,
        notes=notes,
    )


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

    def classify(
        self, budget: int | None = DEFAULT_BUDGET, device: Device = "cpu", tell: Tell | None = None
    ) -> Classification:
        """Return the record; arguments as for `sniff`. This reads matrices, as few as certainty allows."""
        return _classify(self, budget, device, tell)

    def answer(
        self,
        budget: int | None = DEFAULT_BUDGET,
        device: Device = "cpu",
        check: bool | None = None,
        tell: Tell | None = None,
    ) -> Classification:
        """Return what `sniff` does; arguments as there."""
        wanted = ("kernel" in self.kinds if check is None else check) and not self.parameters_alone
        if wanted:
            self.fetch_vectors()
        record = self.classify(budget, device, tell)
        if wanted:
            record = _checked(self, record, asked=check is True)
        return sound(record)

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


def _classify(model: Model, budget: int | None, device: Device, tell: Tell | None) -> Classification:
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
        whole = not glance or len(course.unread) != len(batches)  # a glance says when to give up, and no more
        quiet = budget is not None and is_quiet(course.measured)
        if whole or quiet:
            course.found = list(told)
            if "kernel" in heard:
                course.found += from_shadows(anatomy, course.measured, vectors.scale_spread, weights, unlike)
            course.components, course.added = verdict.decide(anatomy, course.found, weights)
            settled = whole and verdict.is_settled(course.components, course.found, weights)
            if quiet or not course.unread or (budget is not None and settled):
                return _record(model, course, partly=budget is not None)
        if tell is not None and whole:
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
