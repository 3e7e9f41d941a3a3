"""What the shadows of what was learned are worth together: log-likelihood ratios by role.

Matrices of one role write or read along the same few directions of the stream, so that their ratios must not simply add
up. Two ways are taken: the ratio of all of them as one (`measure.pools`), and the sum of their own, down-weighted by
how many independent directions the pool has of all that its members count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..kernel.learned import Kind, LearnedShadow, log_ratio, upper_tail

Pools = Mapping[str, LearnedShadow]
"""What the matrices of a role learned, as one."""

_OWN = 3.0
"""Clip of one matrix's own ratio: one odd matrix must not decide."""

_ALLOWED = 1.5
"""A pooled ρ_L up to this is a matter of course under RMSNorm, where ln τ spreads by 0.35."""

KINDS: Mapping[str, Kind] = {
    "writer": "writer", "reader": "reader", "embedding": "embedding", "unembedding": "embedding", "unknown": "unknown",
}  # fmt: skip


def pooled(pools: Pools, role: str) -> float:
    """Return the ratio of the matrices of a role as one; 0 without any."""
    one = pools.get(role)
    return 0.0 if one is None else log_ratio(one.rho, one.nu, one.share, KINDS[role])


def summed(members: Sequence[LearnedShadow], pools: Pools, role: str) -> float:
    """Return the sum of the ratios of the matrices of a role, down-weighted by what they share."""
    found = [one for one in members if one.nu > 0]
    ratios = (log_ratio(one.rho, one.nu, one.share, KINDS[role]) for one in found)
    total = math.fsum(min(max(ratio, -_OWN), _OWN) for ratio in ratios)
    independent = pools[role].nu if role in pools else 0.0
    return total * min(1.0, independent / math.fsum(one.nu for one in found)) if found else 0.0


def embeddings(members: Sequence[LearnedShadow]) -> float:
    """Return the mean of the ratios of embeddings and unembeddings; 0 without any."""
    ratios = [log_ratio(one.rho, one.nu, one.share, "embedding") for one in members]
    return math.fsum(ratios) / len(ratios) if ratios else 0.0


def surplus(pools: Pools) -> float:
    """Return how likely chance gives a pool as much energy along v as the one that has most of it."""
    tails = (upper_tail(one.rho / _ALLOWED, one.nu) for one in pools.values() if one.rho is not None)
    return min(tails, default=1.0)
