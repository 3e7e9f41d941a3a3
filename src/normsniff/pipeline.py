"""The street, walked once: file → checkpoint → anatomy → evidence → verdict → record."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import msgspec

from . import arguments
from .course import Tell, classify
from .errors import BudgetSpent
from .inputs.opening import Source, portable
from .kernel.namespaces import DEVICES, Device
from .limits import Limits
from .measure import samples
from .measure.plan import Plan, steps
from .measure.samples import DEFAULT_BUDGET
from .measure.shadows import vectors_of
from .model import Model, modelled
from .record import EVIDENCE_KINDS, Classification, EvidenceKind, sound

if TYPE_CHECKING:
    from .checks.findings import Report

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
        return answer_of(model, options["budget"], device, check, tell)


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


def answer_of(
    model: Model,
    budget: int | None = DEFAULT_BUDGET,
    device: Device = "cpu",
    check: bool | None = None,
    tell: Tell | None = None,
) -> Classification:
    """Return what `sniff` does; arguments as there."""
    wanted = ("kernel" in model.kinds if check is None else check) and not model.parameters_alone
    if wanted:
        model.fetch_vectors()
    record = classify(model, budget, device, tell)
    if wanted:
        record = _checked(model, record, asked=check is True)
    return sound(record)


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
        record = classify(model)
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
