"""The classification record: the one thing that normsniff returns. ``None`` means "not computed"."""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar, Literal, Self, get_args

import msgspec

from ._version import __version__
from .errors import WorkerError, redact, redact_url
from .json_text import writable

SCHEMA_VERSION = "1.2"

Label = Literal["LayerNorm", "RMSNorm", "mixed", "none", "undetermined"]
EvidenceKind = Literal["declared", "layout", "kernel"]
EVIDENCE_KINDS: tuple[EvidenceKind, ...] = ("declared", "layout", "kernel")

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Gravest first."""

_URL = re.compile(r"[a-z][a-z0-9+.-]{1,30}://|(?:https?|s3|gs|hf):/", re.IGNORECASE)  # `Path` makes one slash of two
_SHOWN = 3  # norms that the line of a finding names


class Written(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is written out as one object of JSON, and read again."""

    _shown: ClassVar[tuple[str, ...]] = ()  # fields that tell one from another at a glance

    def to_json(self) -> bytes:
        """Encode as one line of JSON."""
        return msgspec.json.encode(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dicts, lists, texts, numbers, bools and None."""
        found: dict[str, Any] = msgspec.json.decode(self.to_json())
        return found

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        """Return what `to_json` wrote, this version or another one of the same schema.

        Fields that a newer version has added are left out.

        Raises:
            TypeError: `line` is neither text nor bytes.
            ValueError: it is no such record, or of a schema that this version does not know.
        """
        if not isinstance(line, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a line of JSON must be text or bytes, not {type(line).__name__}")
        newer = ""
        try:
            version = msgspec.json.decode(line, type=_Versions)
            found, own = _numbers(version.schema_version), _numbers(SCHEMA_VERSION)
            if found[:1] != own[:1]:
                raise ValueError(f"a record of schema {version.schema_version}: this version reads {own[0]}.x")
            newer = f" (written by normsniff {version.tool_version})" if found > own else ""
            return msgspec.json.decode(line, type=cls)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise ValueError(f"no {cls.__name__} as JSON: {error}{newer}") from error

    def __eq__(self, other: object) -> bool:
        """Whether two say the same; how long that took does not count."""
        if type(other) is not type(self):
            return NotImplemented
        compared = (name for name in self.__struct_fields__ if name != "seconds")
        return all(getattr(self, name) == getattr(other, name) for name in compared)

    def __ne__(self, other: object) -> bool:
        """Whether two differ: msgspec has an operator of its own, which compares by identity."""
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as of every class with equality and lists in it

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._shown)})"


class _Versions(msgspec.Struct):
    schema_version: str = SCHEMA_VERSION
    tool_version: str = ""


def _numbers(version: str) -> list[int]:
    """Return the parts of a version as numbers; one that has none stands for nothing known."""
    parts = version[:40].split(".")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else []


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for or against a label.

    Attributes:
        kind: what sort of evidence; independent sorts can contradict each other. ``verdict`` is none: such an entry
            corrects the sum of a component's log-odds, or names the rule that decided instead of it.
        component: the tower that it speaks of.
        label: where it points; ``undetermined`` if it says nothing.
        log_odds: natural log of P(LayerNorm)/P(RMSNorm) that it contributes; positive means LayerNorm. Those of a
            component add up to the log-odds of its probabilities.
        reason: one sentence for a person.
        details: the numbers and facts behind it.
    """

    kind: EvidenceKind | Literal["verdict"]
    component: str
    label: Label
    log_odds: float
    reason: str
    details: dict[str, Any] = {}


class Contradiction(msgspec.Struct, frozen=True, kw_only=True):
    """Two kinds of evidence that disagree strongly.

    Attributes:
        component: the tower that they disagree about.
        between: the two kinds of evidence.
        statement: the disagreement in words.
        strength: the smaller of the two absolute log-odds.
    """

    component: str
    between: tuple[EvidenceKind, EvidenceKind]
    statement: str
    strength: float


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one tower (text, vision, encoder, decoder ...).

    Attributes:
        name: ``main`` where the model has one tower only.
        label: the verdict.
        confidence: probability that the label is right; None for ``undetermined``.
        probabilities: of LayerNorm and RMSNorm; None where neither applies.
        d_model: width of its residual stream.
        norms: number of norm sites.
        rewritten_from: ``LayerNorm`` if the weights were centred after training, which makes an equivalent
            RMSNorm model of a LayerNorm model; else None.
    """

    name: str
    label: Label
    confidence: float | None
    probabilities: dict[str, float] | None
    d_model: int | None
    norms: int
    rewritten_from: Label | None = None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Of a scale (effective γ) or a shift vector."""

    min: float
    max: float
    mean: float
    std: float


class DeadDirection(msgspec.Struct, frozen=True, kw_only=True):
    """What γ alone says about the dead direction γ⁻¹/‖γ⁻¹‖ of this norm, if it is a LayerNorm.

    Attributes:
        degenerate: some γᵢ is zero: the kernel is then spanned by those dimensions.
        dead_dimensions: how many γᵢ are zero.
        condition: max|γ| / min|γ| over the non-zero entries.
        cosine_to_ones: |cos| between γ⁻¹ and the vector of ones.
        power: participation ratio of the direction over d, in (0, 1]: near 0 the direction is
            one coordinate and the test has no statistical power.
    """

    degenerate: bool
    dead_dimensions: int
    condition: float | None
    cosine_to_ones: float | None
    power: float | None


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """ρ of one matrix: energy along the direction over its sign-flip expectation; 1 = nothing special.

    Attributes:
        tensor: the matrix.
        role: writer, reader, embedding, unembedding, position or unknown.
        axis: the residual-stream axis in the stored shape.
        direction: ``ones`` or ``inverse-scale``.
        rho: the ratio.
        relative_error: standard error of rho over rho, from the vectors sampled.
        z: (energy - null mean) / null spread.
        dispersion: relative spread of the sampled vectors' squared norms beyond that of Gaussian ones:
            about 0 for untrained weights, 0.1 to 1 for trained ones.
        alignment: mean squared cosine between sampled vectors beyond 1/d: about 0 for untrained weights.
        vectors: how many vectors of length d were sampled.
    """

    tensor: str
    role: str
    component: str
    layer: int | None
    axis: int
    direction: Literal["ones", "inverse-scale"]
    rho: float
    relative_error: float | None
    z: float | None
    dispersion: float | None
    alignment: float | None
    vectors: int


class StoredScale(msgspec.Struct, frozen=True, kw_only=True):
    """What a file has in place of γ.

    Attributes:
        probabilities: of ``scale`` (γ), ``scale-1`` (γ - 1), ``scale+1`` and so on, the likeliest first, told by the
            family's rules, the last bits and the values of all norms of the tower together.
        expected: what the family stores in this format; None where no family is known.
    """

    probabilities: dict[str, float]
    expected: str | None


class NormSite(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the network normalises.

    Attributes:
        name: module path or graph node.
        component: tower.
        layer: block index, if any.
        role: ``stream``, ``query-key`` or ``other``.
        kind: what the file says that it computes, if it says.
        d: length of the scale.
        scale: statistics of the effective γ; None if there is none or it was not read.
        shift: statistics of β; None if there is none or it was not read.
        has_scale: whether a scale is stored.
        has_shift: whether a shift is stored.
        zero_centred: whether the file stores γ - 1; None if unknown.
        stores: what the values say of that; None where they were not looked at, or are all alike.
        caveat: why the effective γ may differ from the stored one, or "".
        dead_direction: what γ says of the dead direction.
        readers_rho: geometric mean of ρ over the sampled matrices that read this norm.
        writers_rho: geometric mean of ρ over the sampled matrices of its layer that write into the stream.
    """

    name: str
    component: str
    layer: int | None
    role: str
    kind: Label | None
    d: int | None
    has_scale: bool
    has_shift: bool
    scale: Statistics | None = None
    shift: Statistics | None = None
    zero_centred: bool | None = None
    stores: StoredScale | None = None
    caveat: str = ""
    dead_direction: DeadDirection | None = None
    readers_rho: float | None = None
    writers_rho: float | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a file was understood: vectors, norms, layers and operators that may be or hide a norm.

    Attributes:
        explained: how many were.
        unexplained: how many were not; statements of absence lose weight by them.
        names: of those that were not, up to ten, with what is not understood.
    """

    explained: int
    unexplained: int
    names: list[str]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, or worth a look.

    Attributes:
        code: stable slug; `normsniff explain CODE` and docs/checks say what it means.
        severity: an ``error`` changes what the model computes, or shows that it was damaged; a ``warning`` may; a
            ``note`` is only said.
        component: the tower.
        norms: names of the sites, in the order of the network; empty if it is about the file.
        reason: one sentence with the measured numbers.
        cure: what to do.
        confidence: probability that the finding is right, where it rests on a likelihood; None where it is read off.
        details: the numbers behind it.
    """

    code: str
    severity: Severity
    component: str
    norms: tuple[str, ...]
    reason: str
    cure: str
    confidence: float | None = None
    details: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """The norms, in a few words."""
        more = len(self.norms) - _SHOWN
        return ", ".join(self.norms[:_SHOWN]) + (f" … ({len(self.norms)})" if more > 0 else "")


class Classification(Written, frozen=True, kw_only=True, eq=False):
    """One model, classified.

    Attributes:
        schema_version: version of this record's schema.
        tool_version: version of normsniff.
        calibration: which table of weights turned evidence into probability.
        path: the input as given, or None for bytes and arrays.
        format: of the container, such as safetensors or GGUF; "arrays" for what was in memory.
        format_version: the container's version, if it has one.
        architecture: what the file calls its architecture, if it does.
        file_size: bytes of all files of the model; None for arrays.
        header_sha256: SHA-256 of the header bytes that were parsed.
        label: the verdict on the main residual stream; ``mixed`` only if that stream itself mixes norms.
        confidence: probability that the label is right; None for ``undetermined``.
        probabilities: of LayerNorm and RMSNorm; None where neither applies.
        rewritten_from: ``LayerNorm`` if the main stream's writers were centred after training; else None.
        components: one verdict a tower.
        evidence: the reasons.
        contradictions: kinds of evidence that disagree strongly.
        findings: what is wrong with the norms, gravest first, as `normsniff check` tells it; None where their
            parameters were not all read for the label, and were not asked for.
        norms: every norm site.
        shadows: every matrix that was measured.
        d_model: width of the main residual stream.
        tensors: number of tensors.
        scales: number of stored scales; None where sites were not looked for (parameters alone).
        shifts: number of stored shifts, likewise.
        bytes_read: bytes read to answer; those that were read twice count once.
        requests: sent to answer, for a model behind a URL; else None.
        matrices_left: matrices of the plan that were not read, since the verdict was certain without them; None
            where kernel evidence was not asked for.
        seconds: wall-clock time to answer.
        account: how much of the file was understood; None where names and operators were not looked at.
        next_steps: what would help, where the label is ``undetermined``.
        warnings: oddities and limits of this answer.
    """

    _shown: ClassVar = ("path", "label", "confidence", "format")

    schema_version: str = SCHEMA_VERSION
    tool_version: str
    calibration: str
    path: str | None
    format: str
    format_version: str | None
    architecture: str | None
    file_size: int | None
    header_sha256: str | None
    label: Label
    confidence: float | None
    probabilities: dict[str, float] | None
    rewritten_from: Label | None = None
    components: list[Component]
    evidence: list[Evidence]
    contradictions: list[Contradiction]
    findings: list[Finding] | None = None
    norms: list[NormSite]
    shadows: list[Shadow]
    d_model: int | None
    tensors: int
    scales: int | None
    shifts: int | None
    bytes_read: int | None
    requests: int | None = None
    seconds: float | None
    matrices_left: int | None = None
    account: Account | None = None
    next_steps: list[str] = []
    warnings: list[str]

    def count(self, severity: Severity) -> int:
        """Return how many findings are of one severity."""
        return sum(one.severity == severity for one in self.findings or ())


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Why an input could not be answered.

    Attributes:
        type: name of the exception class (FormatError, LimitExceeded, SourceError, MissingExtra, WorkerError).
        code: stable slug of a FormatError, or ``timeout``, ``memory`` or ``crashed`` of a WorkerError; else None.
        message: what is wrong, with the file and the byte or key at fault.
        hint: what to do about it, or "".
    """

    type: str
    code: str | None
    message: str
    hint: str

    @classmethod
    def of(cls, error: Exception) -> ErrorDetail:
        """Describe an exception."""
        code = getattr(error, "code", None)
        return cls(
            type=type(error).__name__,
            code=code if isinstance(code, str) else None,  # other packages' exceptions come here too
            message=writable(str(error)),
            hint=getattr(error, "hint", ""),
        )


class Failure(Written, frozen=True, kw_only=True, eq=False):
    """The record of an input that could not be answered.

    Attributes:
        schema_version: version of this record's schema.
        tool_version: version of normsniff.
        path: the input as given.
        error: why.
    """

    _shown: ClassVar = ("path", "error")

    schema_version: str = SCHEMA_VERSION
    tool_version: str
    path: str
    error: ErrorDetail

    @classmethod
    def of(cls, path: object, error: Exception) -> Failure:
        """Describe an exception as the answer to the input at `path`."""
        name, detail = spelled(path), ErrorDetail.of(error)
        if isinstance(error, WorkerError):  # a lost process tells nothing: only here is it known what it read
            detail = msgspec.structs.replace(detail, message=f"{name}: {detail.message}")
        return cls(tool_version=__version__, path=name, error=detail)


class Duplicate(Written, frozen=True, kw_only=True, eq=False):
    """The record of an input that has the content of another one and was not answered again.

    Attributes:
        schema_version: version of this record's schema.
        tool_version: version of normsniff.
        path: the input as given.
        duplicate_of: the path under which the answer is.
        content_id: what both have in common, hexadecimal; see `normsniff.batch.content`.
    """

    _shown: ClassVar = ("path", "duplicate_of")

    schema_version: str = SCHEMA_VERSION
    tool_version: str = __version__
    path: str
    duplicate_of: str
    content_id: str


Answer = Classification | Failure | Duplicate
"""What a scan gives for an input; a JSON line is one of these."""


def sound(record: Classification) -> Classification:
    """Return a record that encodes, and that decodes strictly as what it is: the last fence behind all readers.

    Text of a file that is no UTF-8 is spelled as its escape.

    Raises:
        msgspec.ValidationError: a field holds what the schema does not allow, a number that is not finite, say.
    """
    try:
        line = record.to_json()
    except UnicodeEncodeError:
        record = msgspec.convert(writable(msgspec.to_builtins(record)), Classification)
        line = record.to_json()
    msgspec.json.decode(line, type=Classification)
    return record


def spelled(path: object) -> str:
    """Return a path as text that can be written anywhere: what is not UTF-8 as escapes, a URL without credentials.

    Args:
        path: text, or any kind of place whose `str` is the path or URL; the record knows none of them.
    """
    text = stored_bytes(path).decode("utf-8", "backslashreplace")
    return redact_url(text) if _URL.match(text) else redact(text)


def stored_bytes(path: object) -> bytes:
    """Return the bytes that a path or a URL is; text that stands for no bytes (half a surrogate pair) as its own."""
    try:
        return os.fsencode(str(path))
    except UnicodeEncodeError:
        return str(path).encode("utf-8", "surrogatepass")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of one output line: a `Classification`, a `Failure` or a `Duplicate`."""
    branches, definitions = msgspec.json.schema_components(get_args(Answer), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"normsniff record {SCHEMA_VERSION}",
        "anyOf": list(branches),
        "$defs": definitions,
    }
