"""A model in a few numbers that can be followed through training: ρ by role, the scales, what the kernel says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, median, stdev

import msgspec

from ..record import Classification, Evidence

_ROLES = {
    "writer": "writers",
    "reader": "readers",
    "embedding": "embeddings",
    "unembedding": "unembeddings",
    "position": "positions",
    "unknown": "unknown",
}
_LEAST_RHO = 1e-12  # below what float32 products resolve; a centred matrix can be exactly zero along v


class MeanRho(msgspec.Struct, frozen=True, kw_only=True):
    """ρ of the matrices of one role.

    Attributes:
        rho: geometric mean.
        error: its standard error: from the scatter of ln ρ between the matrices, or from the vectors sampled of
            each, whichever is larger; None for one matrix whose sampling error is not known.
        matrices: how many were measured.
    """

    rho: float
    error: float | None
    matrices: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The main component of a model.

    Attributes:
        rho: by role: ``writers``, ``readers``, ``embeddings``, ``unembeddings``, ``positions``, and ``unknown``
            where no names tell the roles; a role without measured matrices is absent.
        scale_spread: median over the norms of the stream of std/|mean| of γ: 0 at initialisation, grows with training.
        scale_mean: mean of γ over all of them.
        p_layernorm: probability of LayerNorm by the kernel's evidence alone; None where it abstains.
        learned: by role (writers, readers, unknown), ρ of what was learned by all of its matrices together; a role in
            which nothing rises above the noise of the initialisation is absent.
    """

    rho: Mapping[str, MeanRho]
    scale_spread: float | None
    scale_mean: float | None
    p_layernorm: float | None
    learned: Mapping[str, float] = {}


def of_record(record: Classification) -> Summary:
    """Summarise the main component of a record."""
    main = record.components[0].name
    return summarise(
        ((s.role, s.rho, s.relative_error) for s in record.shadows if s.component == main),
        ((n.scale.mean, n.scale.std) for n in record.norms if n.scale and n.role == "stream" and n.component == main),
        (e for e in record.evidence if e.component == main),
    )


def summarise(
    shadows: Iterable[tuple[str, float, float | None]],
    scales: Iterable[tuple[float, float]],
    evidence: Iterable[Evidence],
) -> Summary:
    """Summarise one component.

    Args:
        shadows: of every measured matrix its role, ρ and the relative standard error of ρ.
        scales: mean and standard deviation of the scale of every norm of the stream.
        evidence: of any kind; the kernel's counts.
    """
    samples: dict[str, list[tuple[float, float | None]]] = {}
    for role, rho, error in shadows:
        samples.setdefault(_ROLES[role], []).append((rho, error))
    known = list(scales)
    spreads = [std / abs(mean) for mean, std in known if mean]
    kernel = [e for e in evidence if e.kind == "kernel"]
    odds = [e.log_odds for e in kernel if e.log_odds]  # exactly 0 where it abstains
    learned = {_ROLES[role]: pool["rho"] for e in kernel for role, pool in e.details.get("learned", {}).items()}
    return Summary(
        rho={role: mean_rho(samples[role]) for role in _ROLES.values() if role in samples},
        scale_spread=median(spreads) if spreads else None,
        scale_mean=fmean(mean for mean, _ in known) if known else None,
        p_layernorm=1 / (1 + math.exp(-math.fsum(odds))) if odds else None,
        learned=learned,
    )


def mean_rho(samples: Iterable[tuple[float, float | None]]) -> MeanRho:
    """Return the geometric mean of ρ over one or more matrices, each a pair of ρ and its relative standard error."""
    pairs = list(samples)
    logs = [math.log(max(rho, _LEAST_RHO)) for rho, _ in pairs]
    n, rho = len(pairs), math.exp(fmean(logs))
    errors = [error for _, error in pairs if error is not None]
    relative = [math.hypot(*errors) / n] if len(errors) == n else []
    if n > 1:
        relative.append(stdev(logs) / math.sqrt(n))
    return MeanRho(rho=rho, error=rho * max(relative) if relative else None, matrices=n)
