"""What the shadows of what was learned are worth together: log-likelihood ratios by role.

Matrices of one role write or read along the same few directions of the stream, so that their ratios must not simply add
up. Two ways are taken: the ratio of all of them as one (`measure.pools`), and the sum of their own, down-weighted by
how many independent directions the pool has of all that its members count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..kernel.learned import Kind, LearnedShadow, log_ratio, upper_tail, whole_ratio

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
    """Return the sum of the ratios of the matrices of a role, down-weighted by what they share and where they disagree.

    Of ratios that add up to P for one norm and to N for the other, P - N is worth |P - N|/(P + N) of itself: a stream
    that is normalised in part only shows both, and then neither sum is the answer.
    """
    found = [one for one in members if one.nu > 0]
    ratios = [log_ratio(one.rho, one.nu, one.share, KINDS[role]) for one in found]
    clipped = [min(max(ratio, -_OWN), _OWN) for ratio in ratios]
    total, most = math.fsum(clipped), math.fsum(abs(ratio) for ratio in clipped)
    if most == 0:
        return 0.0
    independent = pools[role].nu if role in pools else 0.0
    return total * abs(total) / most * min(1.0, independent / math.fsum(one.nu for one in found))


def whole(members: Sequence[tuple[float, float, float]], role: str) -> float:
    """Return the mean of what the deficits of whole matrices say for LayerNorm (`whole_ratio`); 0 without any.

    Args:
        members: of every matrix ρ, the relative spread of its sign flips, and the part of it that is taken for noise.
        role: of the matrices.
    """
    ratios = [min(whole_ratio(rho, spread, noise, KINDS[role]), _OWN) for rho, spread, noise in members]
    return math.fsum(ratios) / len(ratios) if ratios else 0.0


def biases(kept: Sequence[float]) -> float:
    """Return what the biases of writers say for LayerNorm, 0 or more.

    A bias that starts at zero is all learned, and under LayerNorm its mean has no energy, as a writer's vectors have
    none. Under RMSNorm (Σb)²/‖b‖² is 1 on average, and the mean of n of them χ² of some n/2 degrees of freedom, for
    those of a stream are alike. Where layers start with random biases a mean proves nothing: none speaks for RMSNorm.

    Args:
        kept: (Σb)²/‖b‖² of every bias.
    """
    if not kept:
        return 0.0
    return max(log_ratio(math.fsum(kept) / len(kept), len(kept) / 2, 1.0, "bias"), 0.0)


def embeddings(members: Sequence[LearnedShadow]) -> float:
    """Return the mean of the ratios of embeddings and unembeddings; 0 without any."""
    ratios = [log_ratio(one.rho, one.nu, one.share, "embedding") for one in members]
    return math.fsum(ratios) / len(ratios) if ratios else 0.0


def surplus(pools: Pools) -> float:
    """Return how likely chance gives a pool as much energy along v as the one that has most of it."""
    tails = (upper_tail(one.rho / _ALLOWED, one.nu) for one in pools.values() if one.rho is not None)
    return min(tails, default=1.0)
