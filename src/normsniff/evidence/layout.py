"""Evidence from what is stored: which norms have a shift, and which have none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from .. import families
from ..anatomy.parts import Anatomy, Hint, Site
from ..checkpoint import Checkpoint
from ..measure.shadows import Float64
from ..record import Evidence, Label
from ..words import among, amount, have
from . import gaps, substitutes
from .weights import MIXED_SHARE, Weights

SPATIAL_SHARE = 0.5
"""A network with more of its parameters than this in spatial kernels is convolutional, where a scale and a shift may as
well be GroupNorm's or an exported BatchNorm's."""


_CONVOLUTIONAL = 0.05
"""From this share on, GroupNorms beside the norms are those of a convolutional stream: a U-Net with much attention has
an eighth in its kernels, a transformer with depthwise ones less than a hundredth."""


def from_layout(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    shifts: Mapping[int, Float64],
    weights: Weights,
    fact: families.Fact | None,
) -> list[Evidence]:
    """Return layout evidence for every component that has stored norm parameters, or for the lack of any.

    Args:
        checkpoint: the tensors, for what lies beside the norms.
        anatomy: the norm sites.
        shifts: values of the shifts by site index, where they were read.
        weights: log-odds of a shift, and of the lack of one.
        fact: about the family that the file claims to belong to.
    """
    if not anatomy.sites:
        reason = _why_none(anatomy)
        if reason is None:
            return []
        sure = {"confidence": weights.confidence("layout none")}
        return [Evidence(kind="layout", component="main", label="none", log_odds=0.0, reason=reason, details=sure)]
    unlike = substitutes.find(checkpoint, anatomy)
    spatial = spatial_shares(checkpoint, anatomy)
    found = []
    for component in anatomy.widths or {"main": 0}:
        stream = [(i, s) for i, s in enumerate(anatomy.sites) if s.component == component and s.role == "stream"]
        stored = [(i, s) for i, s in stream if s.scale is not None or s.shift is not None]
        if not stored:
            continue
        hints = anatomy.hints.get(component, ())
        groups = anatomy.group_norms.get(component, 0)
        sites = [site for _, site in stored]
        silence = _silence(sites, spatial.get(component, 0.0), groups, hints, _about(fact, component, anatomy))
        if component in unlike:
            silence = f"single numbers lie beside {len(stored)} scales: no norms, but a dynamic tanh or its like", {}
        if silence is None:
            said = _weakened(_of_stream(component, stored, shifts, hints, weights), hints, weights)
            found.append(_weighed(said, gaps.of(anatomy, component, [site for _, site in stored])))
            continue
        reason, details = silence
        found.append(
            Evidence(
                kind="layout", component=component, label="undetermined", log_odds=0.0, reason=reason,
                details={"norms": len(stored), **details},
            )
        )  # fmt: skip
    return found


def _about(fact: families.Fact | None, component: str, anatomy: Anatomy) -> families.Fact | None:
    """Return the fact if it speaks of this component: what is known of a family's shifts is so of its main tower."""
    return fact if component == next(iter(anatomy.widths), "main") else None


def _silence(
    stored: Sequence[Site], spatial: float, groups: int, hints: Sequence[Hint], fact: families.Fact | None
) -> tuple[str, dict[str, float]] | None:
    """Return why shifts, or the lack of them, say nothing here, and the number behind it; None if they speak.

    A declared family that is known for what is exceptional (LayerNorm without a shift, RMSNorm with one) explains what
    is stored: it then says nothing beyond the declaration, and must not be held against it.
    """
    if spatial > SPATIAL_SHARE and all(site.kind is None for site in stored):
        reason = f"{spatial:.0%} of the parameters are spatial kernels: these may be GroupNorm or BatchNorm"
        return reason, {"spatial_share": round(spatial, 4)}
    many = groups >= MIXED_SHARE * (groups + len(stored))
    if many and spatial > _CONVOLUTIONAL and all(site.kind is None for site in stored):
        reason = f"{groups} GroupNorms normalise the stream of its convolutions, these {len(stored)} another one"
        return reason, {"group_norms": groups}
    if "outside" in hints:
        return "only norms outside of the blocks are stored: those inside may be of another kind", {}
    if "one-variable" in hints and not any(site.shift is not None for site in stored):
        return "norms with one variable, in a file that does not say whose: with or without a mean subtracted", {}
    if fact is None:
        return None
    shifted = any(site.shift is not None for site in stored)
    said = f"{amount(len(stored), 'norm')} of the stream {'with shifts' if shifted else 'without a shift'}"
    if fact.disputed is not None:
        return f"{said}: {fact.name[:60]!r} is stored so whichever norm is run", {}
    without = not shifted and fact.norm == "LayerNorm" and fact.shift in ("never", "sometimes")
    if without or (shifted and fact.norm == "RMSNorm" and fact.shift in ("always", "sometimes")):
        return f"{said}: {fact.name[:60]!r} is known to be {fact.norm} so", {}
    return None


def _weakened(evidence: Evidence, hints: Sequence[Hint], weights: Weights) -> Evidence:
    """Take the structure of the blocks into account, where norms have no shift."""
    counted = [hint for hint in hints if hint in _WORDS and hint in weights.rules]
    if not counted or evidence.label != "RMSNorm":
        return evidence
    hint = min(counted, key=lambda hint: abs(weights.rules[hint].log_odds))
    odds = weights.rules[hint].log_odds
    label: Label = "LayerNorm" if odds >= 1 else "RMSNorm" if odds <= -1 else "undetermined"
    return replace(evidence, label=label, log_odds=odds, reason=f"{evidence.reason}, {_WORDS[hint]}")


def _weighed(evidence: Evidence, gap: gaps.Gap) -> Evidence:
    """Weigh what is said of all norms by how much of the file was understood."""
    shares = {"RMSNorm": gap.known_absence, "mixed": gap.known_mixture}
    share = shares.get(evidence.label, gap.known_shifts)
    if share == 1:
        return evidence
    odds = round(evidence.log_odds * share, 4)
    label: Label = evidence.label if abs(odds) >= 1 else "undetermined"
    details = {**evidence.details, "known_share": round(share, 4), "unexplained": gap.unexplained}
    details.pop("confidence", None)
    return replace(evidence, label=label, log_odds=odds, reason=f"{evidence.reason}, but {gap.reason}", details=details)


_WORDS: dict[Hint, str] = {
    "parallel": "but one norm serves attention and MLP of a block, as in Cohere's LayerNorm",
    "biased-mlp": "yet plain MLPs have biases",
    "layer-words": "yet it has names that go with LayerNorm",
    "group-norm": "yet a GroupNorm beside them has one",
    "positions": "yet positions are learned, as beside LayerNorm",
    "staged": "but its blocks stand in stages of different widths, as in CAFormer",
    "gamma": "yet their scales are called gamma",
}


def _why_none(anatomy: Anatomy) -> str | None:
    """Return why the account of the file leaves no room for a LayerNorm or an RMSNorm, or None if it does."""
    if anatomy.unexplained:
        return None  # one of them may be a norm's
    if anatomy.others:
        listed = ", ".join(f"{n} {kind}" for kind, n in anatomy.others.items())
        return f"it normalises with {listed}, and no tensor belongs to a LayerNorm or RMSNorm"
    if anatomy.basis == "graph" or any(m.role in ("reader", "writer") for m in anatomy.matrices):
        return None  # a transformer may normalise without parameters
    if anatomy.bare or (anatomy.unreadable and anatomy.widths):
        return None  # likewise, and so may a stream whose matrices nothing names
    if anatomy.of_matrices and anatomy.of_matrices == anatomy.explained:
        said = f"all {anatomy.explained} vectors are explained, most as biases of matrices"
        return f"{said}: none is left to be a norm's scale"
    return None


def spatial_shares(checkpoint: Checkpoint, anatomy: Anatomy) -> dict[str, float]:
    """Return by component the share of the file's parameters in spatial kernels, left out where it says nothing.

    Attention that reads norms makes them a transformer's, whatever convolutions are beside it; in a U-Net with
    GroupNorm it is the other way round.
    """
    share = _spatial_share(checkpoint)
    attending = {m.component for m in anatomy.matrices if m.site is not None and len(m.tensor.shape) == 2}
    attending &= anatomy.attending
    if (anatomy.others or {}).get("GroupNorm"):
        attending = set()
    return {name: share for name in (*anatomy.widths, "main") if name not in attending}


def _spatial_share(checkpoint: Checkpoint) -> float:
    """Return the share of the parameters that are in kernels with a spatial extent."""
    last = checkpoint.format == "Keras"  # kernels are (..., in, out) there, (out, in, ...) elsewhere
    total = spatial = 0
    for tensor in checkpoint.tensors.values():
        shape = tensor.shape
        if len(shape) < 2:
            continue
        size = tensor.size
        total += size
        if len(shape) == 2:
            continue
        extent = shape[:-2] if last else shape[2:]
        pointwise = len(extent) == 2 and math.prod(extent) == 1  # a linear layer as a convolution over an image
        if math.prod(extent) <= 1024 and max(extent) <= 31 and (math.prod(extent) > 1 or pointwise):
            spatial += size
    return spatial / total if total else 0.0


def _bare(
    component: str, stored: Sequence[Site], details: dict[str, int], hints: Sequence[Hint], weights: Weights
) -> Evidence:
    """Return what norms without a shift say: RMSNorm, the surer the more often their names are RMSNorm's.

    Beside gated MLPs their names matter less: these came into use together with RMSNorm.
    """
    odds = weights.bare([site.word for site in stored])
    none = "the only norm of the stream has no shift"
    reason = none if len(stored) == 1 else f"none of the {len(stored)} norms of the stream has a shift"
    if "gated-mlp" in hints and "gated-mlp" in weights.rules:
        gated = max(weights.rules["gated-mlp"].log_odds, weights.rules["shift absent"].log_odds)
        if gated < odds:
            odds, reason = gated, f"{reason}, and MLPs are gated"
    if odds > weights.answer_odds:
        reason += f", but names such as {stored[0].name[:60]!r} are not known to be RMSNorm's"
    label: Label = "RMSNorm" if odds <= -1 else "undetermined"
    return Evidence(kind="layout", component=component, label=label, log_odds=odds, reason=reason, details=details)


def _of_stream(
    component: str,
    stored: Sequence[tuple[int, Site]],
    shifts: Mapping[int, Float64],
    hints: Sequence[Hint],
    weights: Weights,
) -> Evidence:
    shifted = [(i, s) for i, s in stored if s.shift is not None]
    details = {"norms": len(stored), "with_shift": len(shifted)}
    if not shifted:
        return _bare(component, [site for _, site in stored], details, hints, weights)
    share = min(len(shifted), len(stored) - len(shifted)) / len(stored)
    if share >= MIXED_SHARE:
        return Evidence(
            kind="layout", component=component, label="mixed", log_odds=0.0,
            details={**details, "confidence": weights.confidence("layout mixed")},
            reason=f"{among(len(shifted), len(stored), 'norm')} of one stream {have(len(shifted))} a shift, not all",
        )  # fmt: skip
    if len(shifted) * 2 < len(stored):
        odds = weights.chosen.few_shifts.value
        return Evidence(
            kind="layout", component=component, label="RMSNorm", log_odds=odds, details=details,
            reason=f"only {among(len(shifted), len(stored), 'norm')} of the stream {have(len(shifted))} a shift",
        )  # fmt: skip
    read = [shifts[i] for i, _ in shifted if i in shifts]
    if read and not any(values.any() for values in read):
        return Evidence(
            kind="layout", component=component, label="LayerNorm", log_odds=weights.chosen.zero_shifts.value,
            reason=f"{amount(len(shifted), 'norm')} of the stream {have(len(shifted))} a shift, all exactly zero:"
            " untrained, or added later",
            details={**details, "all_zero": True},
        )  # fmt: skip
    odds = weights.rules["shift present"].log_odds
    return Evidence(
        kind="layout", component=component, label="LayerNorm", log_odds=odds, details=details,
        reason=f"{among(len(shifted), len(stored), 'norm')} of the stream {have(len(shifted))} a shift",
    )  # fmt: skip
