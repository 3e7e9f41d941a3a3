"""Evidence from what the file says of itself: its operators, its layer classes, its architecture, its configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .. import families
from ..anatomy.parts import SERVING_TOWERS, Anatomy, Site
from ..checkpoint import Checkpoint
from ..record import Evidence, Label
from ..words import amount
from .contents import Content
from .epsilons import EPSILON_KEY, LARGEST_EPSILON
from .layout import SPATIAL_SHARE, spatial_shares
from .weights import MIXED_SHARE, Weights, probability


def family_of(checkpoint: Checkpoint) -> families.Fact | None:
    """Return what is known of the family that the file claims to belong to."""
    return families.fact_of(checkpoint.metadata, checkpoint.config)


def from_declarations(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    weights: Weights,
    fact: families.Fact | None,
    content: Content | None = None,
) -> list[Evidence]:
    """Return what operators, classes, architecture names and configuration keys say, for every component.

    Args:
        checkpoint: what the file says of itself.
        anatomy: the norm sites, with what the file says of each.
        weights: log-odds of what is said.
        fact: of `family_of`.
        content: what the file holds in place of a network, of `contents.of`.
    """
    computed = _from_sites(anatomy, weights)
    if computed:
        # The graph is what runs; the name of a family adds nothing to it but the risk of being wrong.
        return computed
    if content is not None and content.none and (fact is None or checkpoint.config is None):
        return [_nothing(content.reason, weights, "content none")]
    if checkpoint.graph is not None:
        return [_from_graph_without(anatomy, weights)]
    understood = bool(anatomy.others) and not anatomy.sites and not anatomy.unexplained
    if checkpoint.layers and checkpoint.config is not None and understood:
        return [_computes_none(f"no layer of its configuration is a LayerNorm or RMSNorm{_others(anatomy)}", weights)]
    if fact is not None and (fact.norm != "undetermined" or set(fact.components) & set(anatomy.widths)):
        return _from_fact(checkpoint, anatomy, fact, weights, content)
    return _from_epsilon_keys(checkpoint, anatomy, weights)


def architecture_of(checkpoint: Checkpoint) -> str | None:
    """Return what the file calls its architecture, shortened if it is absurdly long."""
    config = checkpoint.config or {}
    listed = config.get("architectures")
    for name in (
        checkpoint.metadata.get("general.architecture"),
        config.get("model_type"),
        listed[0] if isinstance(listed, list) and listed else None,
        config.get("registered_name") or config.get("class_name"),
    ):
        if isinstance(name, str) and name:
            return name[:100]
    return None


def _from_sites(anatomy: Anatomy, weights: Weights) -> list[Evidence]:
    found = []
    for component in anatomy.widths or {"main": 0}:
        sites = [s for s in anatomy.sites if s.component == component and s.role == "stream" and s.kind]
        kinds = Counter(str(s.kind) for s in sites)
        total = kinds.total()
        if not total:
            continue
        said = " and ".join(f"{kind} at {n}" for kind, n in kinds.most_common())
        named = sum(s.by_name for s in sites)
        verb = "computes" if not named else "names" if named == total else "computes or names"
        reason = f"the file itself {verb} {said} of {amount(total, 'norm')} of the stream"
        label: Label = "LayerNorm" if kinds.most_common(1)[0][0] == "LayerNorm" else "RMSNorm"
        certain, doubt = _certainty(sites, anatomy, weights)
        odds = certain if label == "LayerNorm" else -certain
        ways = Counter(s.why for s in anatomy.sites if s.component == component and s.kind)
        details: dict[str, Any] = {"sites": dict(kinds), "how": dict(ways.most_common(5))}
        if len(kinds) > 1 and min(kinds.values()) / total >= MIXED_SHARE:
            label, odds = "mixed", 0.0
            details["confidence"] = min(weights.confidence("computed mixed"), probability(certain))
        if not certain:
            label = "undetermined"
        found.append(
            Evidence(
                kind="declared", component=component, label=label, log_odds=odds, reason=reason + doubt, details=details
            )
        )  # fmt: skip
    return found


_HALF = 0.5
"""Share of what was not understood among what may be norms: above, what was recognised does not speak for the rest."""


def _certainty(sites: Sequence[Site], anatomy: Anatomy, weights: Weights) -> tuple[float, str]:
    """Return how much the recognised norms of a stream say, in log-odds, and the reason where it is less than all.

    A name of an operator that nobody defines is worth what the name of an architecture is; so is arithmetic beside
    things that were not understood, which may be further norms.
    """
    certain = weights.chosen.operators.value
    unknown = sum(thing.what in ("operator", "region") for thing in anatomy.unexplained)
    share = unknown / (unknown + len(sites))
    less = min(certain, weights.rules["architecture"].log_odds)
    if share > _HALF:
        return 0.0, f"; but more things were not understood: {_not_understood(anatomy)}"
    if share >= MIXED_SHARE:
        return less, f"; not understood: {_not_understood(anatomy)}"
    if sum(s.by_name for s in sites) * 2 >= len(sites):
        return less, ""
    return certain, ""


def _from_graph_without(anatomy: Anatomy, weights: Weights) -> Evidence:
    """Return what a graph says that has no norm on its stream: nothing, unless all of it was understood."""
    if not anatomy.unexplained and not anatomy.sites:
        return _computes_none(f"the graph computes neither LayerNorm nor RMSNorm{_others(anatomy)}", weights)
    reason = "no norm was recognised on the stream of the graph"
    if anatomy.sites:
        kinds = Counter(str(s.kind) for s in anatomy.sites)
        reason += f", only {', '.join(f'{n} {kind}' for kind, n in kinds.items())} beside it"
    if anatomy.unexplained:
        reason += f"; not understood: {_not_understood(anatomy)}"
    details = {"unexplained": len(anatomy.unexplained)}
    return Evidence(
        kind="declared", component="main", label="undetermined", log_odds=0.0, reason=reason, details=details
    )


_LISTED = 3  # things that are named in a sentence; there may be one in every block


def _not_understood(anatomy: Anatomy) -> str:
    reasons = Counter(thing.why for thing in anatomy.unexplained if thing.why)
    said = [f"{why} ({n} times)" if n > 1 else why for why, n in reasons.most_common(_LISTED)]
    return "; ".join(said + [f"{len(reasons) - _LISTED} other things"] * (len(reasons) > _LISTED))


def _from_fact(
    checkpoint: Checkpoint, anatomy: Anatomy, fact: families.Fact, weights: Weights, content: Content | None
) -> list[Evidence]:
    found = []
    for component in list(anatomy.widths) or ["main"]:
        alone = component == "main" and len(anatomy.widths) <= 1
        label = fact.norm if alone else fact.label(component)
        foreign = fact.language_only and component == "main" and "text" in anatomy.widths
        if label == "undetermined" or foreign:
            continue
        disputed = f"; disputed: {fact.note}" if fact.disputed is not None else ""
        named = "architecture" if "general.architecture" in checkpoint.metadata else "model type"
        reason = f"{named} {fact.name[:60]!r} uses {label}{_epsilon_words(checkpoint)}{disputed}"
        reason += f"; {content.reason}" if content is not None else ""
        details: dict[str, Any] = {"family": fact.name[:100], "source": fact.source, "date": fact.date}
        if fact.note:
            details["note"] = fact.note
        if (
            content is None
            and component == next(iter(anatomy.widths), "main")
            and (unlike := _unlike(checkpoint, anatomy, fact))
        ):
            found.append(
                Evidence(
                    kind="declared",
                    component=component,
                    label="undetermined",
                    log_odds=0.0,
                    reason=f"{reason}; {unlike}",
                    details={**details, "unlike": True},
                )
            )
            continue
        certain = weights.rules["architecture"].log_odds
        odds = {"LayerNorm": certain, "RMSNorm": -certain}.get(label, 0.0)
        if label in ("mixed", "none"):
            details["confidence"] = probability(certain)
        if fact.disputed is not None and component == (next(iter(anatomy.widths), "main")):
            odds /= 2  # what the file's own runtime does, where another implementation differs
            details["disputed"] = fact.disputed
        found.append(
            Evidence(kind="declared", component=component, label=label, log_odds=odds, reason=reason, details=details)
        )
    return found


def _unlike(checkpoint: Checkpoint, anatomy: Anatomy, fact: families.Fact | None) -> str:
    """Say why a file is not what the family's name promises, or "".

    SliceGPT and its kin fold the scales into the matrices and leave a norm without parameters, of another kind.
    """
    if anatomy.sites:
        return ""
    if fact is not None and (fact.parametric is False or fact.norm not in ("LayerNorm", "RMSNorm")):
        return ""
    if fact is not None and fact.shift == "unknown" and checkpoint.format == "GGUF":
        return ""  # llama.cpp reserves the name and loads no such file: what one stores is not known
    if not any(len(tensor.shape) > 1 for tensor in checkpoint.tensors.values()):
        return ""  # a vocabulary, or nothing but a header
    if anatomy.unexplained:
        return "but none of its norms was recognised: renamed, folded into the matrices, or sliced off"
    return "but this file stores none of its norms: they were folded into the matrices, or sliced off with another norm"


def _from_epsilon_keys(checkpoint: Checkpoint, anatomy: Anatomy, weights: Weights) -> list[Evidence]:
    keys = _epsilons(checkpoint)
    names = {key: EPSILON_KEY.search(key) for key in keys}
    said_by = {m.group(1) for m in names.values() if m}  # a key of several towers is one convention
    odds = sum(weights.rules[f"epsilon {key}"].log_odds for key in said_by if f"epsilon {key}" in weights.rules)
    if not keys or (anatomy.others and not anatomy.sites):
        return []  # MobileNetV2's configuration has a layer_norm_eps, too
    most = weights.rules["architecture"].log_odds  # no key says more than the name that it goes with
    odds = max(min(odds, most), -most)
    label: Label = "LayerNorm" if odds >= 1 else "RMSNorm" if odds <= -1 else "undetermined"
    said = ", ".join(f"{key} = {value:g}" for key, value in keys.items())
    towers = [name for name in anatomy.widths if name not in SERVING_TOWERS] or list(anatomy.widths)[:1] or ["main"]
    if unlike := _unlike(checkpoint, anatomy, None):
        label, odds, said = "undetermined", 0.0, f"{said}; {unlike}"
    spatial = spatial_shares(checkpoint, anatomy)  # MobileViT v2 has a layer_norm_eps and GroupNorm
    found = []
    for component in towers:
        if spatial.get(component, 0.0) > SPATIAL_SHARE:
            continue
        reason = f"no known architecture; its configuration has {said}"
        speaks = odds >= 0 or _SHIFTLESS not in said_by or not _all_shifted(anatomy, component)
        found.append(
            Evidence(
                kind="declared", component=component, label=label if speaks else "undetermined",
                log_odds=round(odds, 4) if speaks else 0.0, details={"epsilon_keys": dict(keys)},
                reason=reason if speaks else f"{reason}, which says nothing of norms that all store a shift",
            )
        )  # fmt: skip
    return found


_SHIFTLESS = "rms_norm_eps"
"""A key that speaks of norms without a shift: 72 of the 74 model types of the table that have it store none, and the
other two (PhiMoE, the vision tower of ERNIE 4.5) have LayerNorm."""


def _all_shifted(anatomy: Anatomy, component: str) -> bool:
    stored = [s for s in anatomy.sites if s.component == component and s.role == "stream" and s.scale is not None]
    return bool(stored) and all(site.shift is not None for site in stored)


def _epsilons(checkpoint: Checkpoint) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for source in (checkpoint.metadata, checkpoint.config or {}):
        for key, value in source.items():
            if (
                isinstance(value, float | int)
                and not isinstance(value, bool)
                and abs(value) < LARGEST_EPSILON
                and EPSILON_KEY.search(key)
                and not (".vision." in key or ".audio." in key)
                and len(key) < 100
            ):
                found[key] = float(value)
    return found


def _epsilon_words(checkpoint: Checkpoint) -> str:
    return "".join(f"; {key} = {value:.3g}" for key, value in list(_epsilons(checkpoint).items())[:2])


def _others(anatomy: Anatomy) -> str:
    if not anatomy.others:
        return ""
    return " (" + ", ".join(f"{n} {kind}" for kind, n in anatomy.others.items()) + ")"


def _computes_none(reason: str, weights: Weights) -> Evidence:
    return _nothing(reason, weights, "computed none")


def _nothing(reason: str, weights: Weights, rule: str) -> Evidence:
    details = {"confidence": weights.confidence(rule)}
    return Evidence(kind="declared", component="main", label="none", log_odds=0.0, reason=reason, details=details)
