"""The street, walked once: file → checkpoint → anatomy → evidence → verdict → record."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from . import verdict
from ._version import __version__
from .anatomy import describe
from .checkpoint import Checkpoint
from .errors import parsing
from .evidence import architecture_of, from_declarations, from_layout, from_shadows, load_weights, substitutes
from .evidence.abstention import account_of, next_steps, sentence
from .inputs.opening import Source, open_source
from .kernel.namespaces import Device
from .limits import Limits
from .measure import samples
from .measure.plan import Plan, steps
from .measure.samples import DEFAULT_BUDGET
from .measure.shadows import Measured, omissions, read_vectors, take, vectors_of
from .measure.sites import norm_records
from .meter import metered
from .record import EVIDENCE_KINDS, Classification, Evidence, EvidenceKind, Shadow, spelled


def sniff(
    source: Source,
    *,
    evidence: Collection[EvidenceKind] = EVIDENCE_KINDS,
    limits: Limits | None = None,
    budget: int | None = DEFAULT_BUDGET,
    device: Device = "cpu",
) -> Classification:
    """Classify one model.

    Args:
        source: a path or URL of a model file or of a directory that holds one model, the bytes of a file, a seekable
            binary file object, or a mapping of names to arrays (numpy, or anything with ``__array__`` or
            ``__dlpack__``).
        evidence: the kinds to use. ``("kernel",)`` means parameters alone: names, metadata, operator types,
            configurations beside the file and the presence of shifts do not influence the label.
        limits: caps on what a file may cost.
        budget: bytes of matrices to read at most; None reads every matrix whole.
        device: where the kernel's arithmetic runs: ``"cpu"``, or ``"cuda"`` with the extra ``gpu``.

    Raises:
        SourceError: the bytes cannot be had.
        FormatError: the file is in no known format, or breaks the rules of its format.
        LimitExceeded: the file asks for more than `limits` allows.
        DeviceError: `device` is not there.
        MissingExtra: `device` is ``"cuda"`` and CuPy is not installed.
        ValueError: `evidence` is empty or names an unknown kind.
    """
    started = time.perf_counter()
    kinds = _kinds(evidence)
    limits = limits or Limits()
    with metered(_name(source), limits):
        checkpoint = open_source(source, limits)
        try:
            with parsing(_name(source)):
                return _classify(checkpoint, _name(source), kinds, limits, budget, device, started)
        finally:
            checkpoint.close()


def plan(
    source: Source,
    *,
    evidence: Collection[EvidenceKind] = EVIDENCE_KINDS,
    limits: Limits | None = None,
    budget: int | None = DEFAULT_BUDGET,
) -> Plan:
    """Say what `sniff` with the same arguments would read. Only the header is read for it.

    Raises:
        NormsniffError: as `sniff` does of a file's header.
        ValueError: `evidence` is empty or names an unknown kind.
    """
    kinds = _kinds(evidence)
    limits = limits or Limits()
    with metered(_name(source), limits):
        checkpoint = open_source(source, limits)
        try:
            with parsing(_name(source)):
                anatomy = describe(checkpoint, parameters_alone=kinds == ("kernel",))
                batches, notes = samples.select(anatomy, budget, limits) if "kernel" in kinds else ([], [])
                ordered = list(steps(checkpoint.bytes_read, vectors_of(anatomy, values="kernel" in kinds), batches))
        finally:
            checkpoint.close()
    return Plan(
        path=_name(source),
        format=checkpoint.format,
        file_size=checkpoint.file_size if checkpoint.sources else None,
        least_bytes=sum(step.bytes for step in ordered if step.batch <= 1 or budget is None),
        most_bytes=sum(step.bytes for step in ordered),
        steps=ordered,
        notes=notes,
    )


def _kinds(evidence: Collection[EvidenceKind]) -> tuple[EvidenceKind, ...]:
    kinds = tuple(kind for kind in EVIDENCE_KINDS if kind in evidence)
    if not kinds or len(kinds) != len(set(evidence)):
        raise ValueError(f"evidence must name some of {', '.join(EVIDENCE_KINDS)}, not {tuple(evidence)!r}")
    return kinds


def _classify(
    checkpoint: Checkpoint,
    name: str,
    kinds: tuple[EvidenceKind, ...],
    limits: Limits,
    budget: int | None,
    device: Device,
    started: float,
) -> Classification:
    weights = load_weights()
    alone = kinds == ("kernel",)
    anatomy = describe(checkpoint, parameters_alone=alone)
    vectors = read_vectors(anatomy, limits, values="kernel" in kinds)
    told = from_declarations(checkpoint, anatomy, weights) if "declared" in kinds else []
    told += from_layout(checkpoint, anatomy, vectors.shifts, weights) if "layout" in kinds else []
    unread, notes = samples.select(anatomy, budget, limits) if "kernel" in kinds else ([], [])
    unlike = substitutes.find(checkpoint, anatomy)
    measured: list[Measured] = []
    reasons: list[str] = []
    while True:  # a batch of matrices after the other, until the verdict is certain
        found = list(told)
        if "kernel" in kinds:
            found += from_shadows(anatomy, measured, vectors.scale_spread, weights, unlike)
        components, added = verdict.decide(anatomy, found, weights)
        if not unread or (budget is not None and verdict.is_settled(components, found, weights)):
            break
        more, why = take(unread.pop(0), anatomy.sites, vectors.scales, device)
        measured += more
        reasons += why
    main, doubts = verdict.main_of(components, found)
    undetermined = main.label == "undetermined"
    if undetermined:
        said = Evidence(
            kind="verdict", component=main.name, label="undetermined", log_odds=0.0, reason=sentence(anatomy)
        )
        added = [*added, said]
    return Classification(
        tool_version=__version__,
        calibration=weights.version,
        path=name,
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
        norms=norm_records(anatomy, vectors, measured),
        shadows=[_shadow_record(one) for one in measured],
        d_model=main.d_model,
        tensors=len(checkpoint.tensors),
        scales=None if alone else sum(site.scale is not None for site in anatomy.sites),
        shifts=None if alone else sum(site.shift is not None for site in anatomy.sites),
        bytes_read=checkpoint.bytes_read if checkpoint.sources else None,
        requests=checkpoint.requests,
        seconds=round(time.perf_counter() - started, 6),
        matrices_left=sum(len(batch) for batch in unread) if "kernel" in kinds else None,
        account=account_of(anatomy),
        next_steps=next_steps(checkpoint, anatomy, kinds, partly=budget is not None) if undetermined else [],
        warnings=[*checkpoint.warnings, *anatomy.notes, *vectors.notes, *notes, *omissions(reasons), *doubts],
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


def _name(source: Source) -> str:
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, Mapping):
        return "<arrays>"
    return str(getattr(source, "name", "<stream>")) if hasattr(source, "read") else spelled(source)
