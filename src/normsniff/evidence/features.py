"""The numbers that the calibrated kernel test is fitted on and evaluated with: the same code in both places.

All are made from the shadows of one component and the spread of its scales. Each has one line in `DESCRIPTIONS`.

Under the null, ρ of a matrix whose energy lies in few independent directions scatters like χ²/ν with ν = 2/s², where s
is the spread of the sign flips. Its logarithm then has a mean of about -s²/2 - s⁴/12 and a variance of about s² + s⁴/2,
so that a matrix of nearly one direction shows a deep "shadow" by chance. Both are taken into account.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from types import MappingProxyType
from typing import NamedTuple

from ..kernel.learned import LearnedShadow
from ..measure.ties import TIED
from . import ratios
from .ratios import Pools

_LOWEST, _HIGHEST = -4.0, 1.5
"""Clips of ln ρ for one matrix: beyond them a deeper shadow proves no more, and one odd matrix must not decide."""

_SCATTER = 0.1
"""Variance of ln ρ between matrices of one model beyond chance: ln ρ scatters by 0.04 to 0.4."""

_CLEAR_Z, _CLEAR_RHO = -2.5, 0.7
"""A matrix clearly lacks energy if its ρ is below 0.7 and 2.5 spreads of the null away from 1."""


class MatrixFact(NamedTuple):
    """What one measured matrix says: of `kernel.ShadowEnergy`, the relative spread of the flips, and what it learned.

    Without names also its tie to the scales; of a writer (Σb)²/‖b‖² of its bias, if it has one; how far apart the
    norms of its vectors lie, 1 by chance; and the shape of the whole tensor.
    """

    role: str
    rho: float
    spread: float
    dispersion: float
    alignment: float
    d: int
    learned: LearnedShadow | None = None
    tie: float | None = None
    bias: float | None = None
    evenness: float | None = None
    shape: tuple[int, ...] = ()


_MIDDLE = 0.5
"""Where the slope of the log-odds may change: ln ρ of LayerNorm models of a few hundred steps lies above -0.5."""

_TRAINED_DISPERSION, _TRAINED_EXCESS = (0.07, 0.5), (0.1, 4.0)
"""From the largest value at initialisation to one that no short training reaches; on a logarithmic scale."""

_DOUBT = 0.3
"""A mean of ln ρ with this standard error counts half."""

_DIVIDED = 0.2
"""A share of clear deficits that no RMSNorm run of the corpus reached."""

_ONE_SIDED = 1 / 3
"""How much of the cap a lack of shadows may reach that writers or readers alone show: a graph network whose linear
layers stand before its LayerNorms, and whose stream is read past them, has none either."""

_SURPLUS = 1e-3
"""Under this chance, a surplus is no sign of RMSNorm: a shift that leaks into the readers of a LayerNorm gives one, too
(readers of MiniLM: ρ_L = 3.1)."""

_TIED, _FEWEST_TIED = 0.6, 4
"""Matrices without names speak if their tie to the scales is at least this, if so many are left; else all do. On the
runs that choices may see thresholds of 0.5 to 0.85 gave 4 to 6 points more answers than none; from 0.7 on a Fourier
network of which few matrices are left is wrong and sure."""

_LONGEST_KERNEL, _KERNELS = 31, 0.2
"""A last axis of at most that length is one of positions in a kernel; and the share of such weights that makes a file
one of convolutions, of which a transformer's front end takes less."""
_AMONG_MATRICES, _BESIDE_KERNELS = (0.25, 1.0), (0.5, TIED)
"""The share of weights that must follow a scale, and how closely, in units of chance, for a lack of shadows to count.
Of the runs of the corpus that choices may see 28 of 33 RMSNorm answers from shapes pass the first, and the one wrong
answer on a LayerNorm network does not. In a VITS voice 19 of 72 matrices are tied; readers and writers of mature models
are in 96 %."""

_KEPT = -1.0
"""Log-likelihood ratio of the pools from which on what was learned shows training and an undiminished mean at once."""

_EVEN = 0.25
"""Below, vectors are of one length: those of nGPT, which divides activations and weights by their length and has no
norm with a scale, are at 0.15 at most (pruned to 70 %, at two bits, disturbed by 30 %), those of the RMSNorm runs that
choices may see at 0.44 at least."""

DESCRIPTIONS: dict[str, str] = {
    "writers": "mean of ln ρ over the matrices that write into the stream, each corrected for the null's mean, clipped "
    "to [-4, 1.5] and weighed by its precision; 0 without any",
    "writers_error": "standard error of that mean; large if the matrices have few independent directions",
    "readers": "the same mean over the matrices that read a norm, along γ⁻¹",
    "readers_error": "its standard error",
    "embeddings": "the same mean over embeddings and unembeddings",
    "embeddings_error": "its standard error",
    "middle": "median of ln ρ (corrected, clipped) over the matrices of unknown role",
    "middle_error": "standard error of their mean",
    "upper": "upper quartile of the same: some run along the stream, others only look so",
    "writers_learned": "ln of the likelihood ratio of what the writers learned, as one: LayerNorm against RMSNorm",
    "writers_each": "sum of the ratios of single writers, clipped to ±3, down-weighted by what they share and by "
    "how far they disagree",
    "writers_whole": "mean of what the deficits of whole writers say for LayerNorm, whatever part of them was learned",
    "writers_biases": "what the biases of writers say for LayerNorm; 0 without any",
    "readers_learned": "the ratio of the readers as one, along γ⁻¹",
    "readers_each": "sum of those of single readers",
    "readers_whole": "the mean of those of whole readers",
    "embeddings_learned": "mean ratio of embeddings and unembeddings",
    "middle_learned": "the ratio of the matrices of unknown role as one",
    "middle_each": "sum of those of single matrices",
    "middle_whole": "the mean of those of whole matrices",
    "following": "share of the weights of unknown role that follow a scale, over the share that has to "
    "(docs/kernel.md, section 6), at most 1",
    "surplus": "how likely chance gives a pool so much energy along the direction",
    "directions": "degrees of freedom behind the pools",
    "clear": "share of the matrices that clearly lack energy along the direction (ρ < 0.7 and z < -2.5)",
    "spread": "median of the relative spread of the sign flips: what is shared by all matrices does not average out",
    "dispersion": "median relative spread of the vectors' squared norms; 0 at initialisation, grows with training",
    "excess": "median of d times the mean squared cosine between the vectors, minus 1; 0 at initialisation for any d",
    "evenness": "median over the matrices of cv²·d/2 of their vectors' squared norms: 1 at initialisation, 0 where all "
    "vectors have one length",
    "scale_spread": "median std/|mean| of the scales; 0 at initialisation, and where none is stored",
    "has_scales": "1 if any stored vector can be a norm's scale, else 0",
    "matrices": "how many matrices speak",
    "width": "d of the matrices",
}


def with_roles(
    facts: Sequence[MatrixFact],
    scale_spread: float | None,
    pools: Pools = MappingProxyType({}),
    *,
    normed: bool = False,
) -> dict[str, float] | None:
    """Return the features of a component whose writers or readers are known; None if neither is.

    Args:
        facts: of its matrices.
        scale_spread: median std/|mean| of the scales, None without any.
        pools: by role, what its matrices learned as one.
        normed: whether a norm of its stream is known to be there. Scales near 0 (γ = 1 + w) have no spread that tells.
    """
    speaking = [f for f in facts if f.role in ("writer", "reader")]
    if not speaking:
        return None
    writers, writers_error = _mean([f for f in speaking if f.role == "writer"])
    readers, readers_error = _mean([f for f in speaking if f.role == "reader"])
    embeddings, embeddings_error = _mean([f for f in facts if f.role in ("embedding", "unembedding")])
    common = _common(speaking, scale_spread, pools)
    return {
        "writers": writers,
        "writers_error": writers_error,
        "readers": readers,
        "readers_error": readers_error,
        "embeddings": embeddings,
        "embeddings_error": embeddings_error,
        "writers_learned": ratios.pooled(pools, "writer"),
        "writers_each": ratios.summed(_learned(facts, "writer"), pools, "writer"),
        "writers_whole": ratios.whole(_wholes(facts, "writer"), "writer"),
        "writers_biases": ratios.biases([f.bias for f in facts if f.role == "writer" and f.bias is not None]),
        "readers_learned": ratios.pooled(pools, "reader"),
        "readers_each": ratios.summed(_learned(facts, "reader"), pools, "reader"),
        "readers_whole": ratios.whole(_wholes(facts, "reader"), "reader"),
        "embeddings_learned": ratios.embeddings(_learned(facts, "embedding", "unembedding")),
        **common,
        "has_scales": max(common["has_scales"], float(normed)),
    }


def from_shapes(
    facts: Sequence[MatrixFact], scale_spread: float | None, pools: Pools = MappingProxyType({})
) -> dict[str, float] | None:
    """Return the features of a component of which only the shapes are known; None without matrices.

    Arguments as for `with_roles`.
    """
    unknown = [f for f in facts if f.role == "unknown"]
    tied = [f for f in unknown if f.tie is not None and f.tie >= _TIED]
    speaking = tied if len(tied) >= _FEWEST_TIED else unknown
    if not speaking:
        return None
    _, error = _mean(speaking)
    logs = sorted(_log(f) for f in speaking)
    return {
        "middle": median(logs),
        "middle_error": error,
        "upper": logs[(3 * len(logs)) // 4],
        "middle_learned": ratios.pooled(pools, "unknown"),
        "middle_each": ratios.summed(_learned(speaking, "unknown"), pools, "unknown"),
        "middle_whole": ratios.whole(_wholes(speaking, "unknown"), "unknown"),
        "following": _following(unknown),
        "embeddings_learned": ratios.embeddings(_learned(facts, "embedding", "unembedding")),
        **_common(speaking, scale_spread, pools),
    }


def terms(view: str, features: Mapping[str, float]) -> dict[str, float]:
    """Return the terms of the log-odds, which are linear in them.

    Args:
        view: ``"roles"`` or ``"shapes"``.
        features: of `with_roles` or `from_shapes`.
    """
    if view == "roles":
        means = {name: (features[name], features[f"{name}_error"]) for name in ("writers", "readers", "embeddings")}
    else:
        means = {"middle": (features["middle"], features["middle_error"])}
    groups = ("writers", "readers") if view == "roles" else ("middle",)
    found = {f"{name}: learned": (features[f"{name}_learned"] + features[f"{name}_each"]) / 2 for name in groups}
    found["embeddings: learned"] = features["embeddings_learned"]
    found |= {f"{name}: whole": features[f"{name}_whole"] for name in groups}
    if view == "roles":
        found["writers: biases"] = features["writers_biases"]
    weights = {}
    for name, (mean, error) in means.items():
        # The directions of the stream are the same for all matrices: their mean does not make up for few of them.
        doubt = error**2 + features["spread"] ** 2
        weight = weights[name] = 0.0 if error >= 1 else 1 / (1 + doubt / _DOUBT**2)
        found[f"{name}: deficit"] = weight * min(max(-mean, 0.0), _MIDDLE)
        found[f"{name}: deep deficit"] = weight * min(max(-mean - _MIDDLE, 0.0), 2.0)
    found["trained"] = trained(features) * fmean(weights[name] for name in groups)
    return found


def silence(features: Mapping[str, float], too_high: float) -> str | None:
    """Return why a component can have no answer whatever the fit says, or None.

    Args:
        features: of `with_roles` or `from_shapes`.
        too_high: mean of ln ρ above which neither norm explains it.
    """
    if max(features.get("writers", 0.0), features.get("middle", 0.0)) > too_high:
        return "more energy along the dead direction than chance, which neither norm explains"
    if features["clear"] >= _DIVIDED and features.get("upper", -math.inf) > -0.1:
        return "some matrices clearly lack energy there and others do not: no one answer"
    return None


def log_odds(
    view: str, features: Mapping[str, float], intercept: float, coefficients: Mapping[str, float], cap: float
) -> float:
    """Return the log-odds of LayerNorm against RMSNorm, within ±`cap`.

    Energy along the direction speaks for RMSNorm only where `deniable` allows it, and softly where writers or readers
    alone are known.
    """
    odds = leaning(view, features, intercept, coefficients)
    if odds >= 0:
        return min(odds, cap)
    if deniable(features) is not None:
        return 0.0
    one_sided = max(features.get("writers_error", 0.0), features.get("readers_error", 0.0)) >= 1  # 1: there are none
    return max(odds, -cap * _ONE_SIDED if one_sided else -cap)


def leaning(view: str, features: Mapping[str, float], intercept: float, coefficients: Mapping[str, float]) -> float:
    """Return the linear sum: below 0 no mean seems to be subtracted, which need not mean RMSNorm."""
    found = terms(view, features)
    return intercept + math.fsum(c * found[name] for name, c in coefficients.items())


def deniable(features: Mapping[str, float]) -> str | None:
    """Return why the weights cannot speak for RMSNorm, or None if they can.

    They can in weights that look trained, or whose learned part itself keeps its energy; not without stored scales,
    because there may be no norm at all, nor where the weights themselves are normalised or follow no scale; and not
    where there is more energy than chance gives.
    """
    kept = math.fsum(features.get(name, 0.0) for name in ("writers_learned", "readers_learned", "middle_learned"))
    if trained(features) <= 0 and kept > _KEPT:
        return "the weights look untrained"
    if features["evenness"] < _EVEN:
        return (
            "the vectors along the stream are all of one length, so the weights themselves are normalised; whether "
            "there is a norm is not visible from parameters alone"
        )
    if not features["has_scales"]:
        return "no mean is subtracted; whether there is a norm is not visible from parameters alone"
    if features.get("following", 1.0) < 1:
        return "few of these weights follow a scale, so that most may have no norm near them"
    if features["surplus"] < _SURPLUS:
        return "what was learned has more energy along the dead direction than chance gives"
    return None


def trained(features: Mapping[str, float]) -> float:
    """Return how far the matrices look from any initialisation, from 0 to 1."""
    return max(
        _ramp(features["dispersion"], *_TRAINED_DISPERSION),
        _ramp(features["excess"], *_TRAINED_EXCESS),
    )


def _following(facts: Sequence[MatrixFact]) -> float:
    """Return the share of weights that follow a scale over the share that has to, 1 where there is none to follow.

    What no norm feeds or follows has no shadow either: the flow and the vocoder of a voice keep their energy, whatever
    normalises in its text encoder.
    """
    tied = [(math.prod(f.shape), f) for f in facts if f.tie is not None]
    total = sum(size for size, _ in tied)
    if not total:
        return 1.0
    kernels = sum(size for size, f in tied if len(f.shape) == 3 and f.shape[2] <= _LONGEST_KERNEL)
    least, enough = _BESIDE_KERNELS if kernels > _KERNELS * total else _AMONG_MATRICES
    return min(sum(size for size, f in tied if (f.tie or 0.0) >= enough) / (total * least), 1.0)


def _ramp(value: float, start: float, end: float) -> float:
    return min(max(math.log(max(value, 1e-3) / start) / math.log(end / start), 0.0), 1.0)


def _learned(facts: Sequence[MatrixFact], *roles: str) -> list[LearnedShadow]:
    return [f.learned for f in facts if f.role in roles and f.learned is not None]


def _wholes(facts: Sequence[MatrixFact], role: str) -> list[tuple[float, float, float]]:
    """Return ρ, the spread of its sign flips and the part of noise, all where no spectrum was looked at."""
    return [(f.rho, f.spread, 1.0 if f.learned is None else f.learned.noise) for f in facts if f.role == role]


def _common(speaking: Sequence[MatrixFact], scale_spread: float | None, pools: Pools) -> dict[str, float]:
    return {
        "surplus": ratios.surplus(pools),
        "directions": math.fsum(one.nu for one in pools.values()),
        "clear": fmean(f.rho - 1 < _CLEAR_Z * f.spread and f.rho < _CLEAR_RHO for f in speaking),
        "spread": median(f.spread for f in speaking),
        "dispersion": median(f.dispersion for f in speaking),
        "excess": median(f.alignment * f.d for f in speaking),
        "evenness": median(1.0 if f.evenness is None else f.evenness for f in speaking),
        "scale_spread": scale_spread or 0.0,
        "has_scales": 0.0 if scale_spread is None else 1.0,
        "matrices": float(len(speaking)),
        "width": float(speaking[0].d),
    }


def _log(fact: MatrixFact) -> float:
    """Return ln ρ less its mean under the null, clipped."""
    s2 = min(fact.spread, 1.4) ** 2
    return min(max(math.log(max(fact.rho, 1e-12)) + s2 / 2 + s2 * s2 / 12, _LOWEST), _HIGHEST)


def _mean(facts: Sequence[MatrixFact]) -> tuple[float, float]:
    """Return the mean of ln ρ, weighed by precision, and its standard error; (0, 1) of nothing."""
    if not facts:
        return 0.0, 1.0
    weights = [1 / (_SCATTER + f.spread**2 + f.spread**4 / 2) for f in facts]
    total = math.fsum(weights)
    return math.fsum(w * _log(f) for w, f in zip(weights, facts, strict=True)) / total, total**-0.5
