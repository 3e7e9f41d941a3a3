"""missing and foreign: a norm, a scale or a shift that the sibling blocks or the family have, or have not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ..checkpoint import Checkpoint
from ..families import ends_in_norm
from ..record import Finding
from ..words import among, amount, every, have
from .subject import Group, Subject, by_layer

_FEWEST = 3  # blocks, before one that differs is the odd one
_MOST = 0.75  # of the blocks that have it, before the others lack it; hybrids have q and k norms in every fourth
_FEW = 0.1  # of the blocks, or two, may lack it by accident; hybrids of every sixth block lack more
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LANGUAGE = ("text_config", "llm_config", "language_config")
_SHARE = 0.5  # of the norms of the stream


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what the blocks do not share."""
    layers: dict[str, set[int]] = {}
    places: dict[str, set[frozenset[int]]] = {}
    for group in subject.groups:
        layers.setdefault(group.component, set()).update(by_layer(group))
        places.setdefault(group.component, set()).add(frozenset(by_layer(group)))
    for group in subject.groups:
        yield from _missing_norms(group, layers[group.component], places[group.component])
        yield from _odd_ones(group)
    yield from _against_family(subject)
    yield from _no_final_norm(subject)


def _no_final_norm(subject: Subject) -> Iterator[Finding]:
    """A family that ends in a norm, all of its blocks, and no norm outside of them."""
    checkpoint = subject.checkpoint
    rule = ends_in_norm(checkpoint.metadata, checkpoint.config)
    if rule is None or checkpoint.graph is not None:
        return
    norms = [one for one in subject.norms if one.site.role == "stream" and one.site.component in ("main", "text")]
    blocks = {one.site.layer for one in norms if one.site.layer is not None}
    ends = [one for one in norms if one.site.layer is None and "emb" not in one.name.lower()]
    if ends or len(blocks) != _declared_blocks(checkpoint):
        return
    yield Finding(
        code="missing",
        severity="error",
        component=norms[0].site.component,
        norms=(),
        reason=f"{every(len(blocks), 'block')} {have(len(blocks))} norms, and no norm follows them: networks"
        " of this family end in one",
        cure="convert again, and look for a key that was renamed or left out, or for a shard that is not there",
        details={"source": rule.source},
    )


def _declared_blocks(checkpoint: Checkpoint) -> int | None:
    config = checkpoint.config or {}
    parts = [config, *(part for key in _LANGUAGE if isinstance(part := config.get(key), Mapping))]
    found = [value for part in parts for key in _BLOCKS if isinstance(value := part.get(key), int)]
    found += [v for k, v in checkpoint.metadata.items() if k.endswith(".block_count") and isinstance(v, int)]
    return found[0] if found else None


def _missing_norms(group: Group, blocks: set[int], places: Collection[frozenset[int]]) -> Iterator[Finding]:
    found = by_layer(group)
    lacking = sorted(blocks - found.keys())
    if len(found) != len(group.norms) or not lacking or len(blocks) < _FEWEST or len(found) < _MOST * len(blocks):
        return
    if frozenset(lacking) in places or len(lacking) > max(2, _FEW * len(blocks)):
        return  # blocks of another kind, with norms of their own, or too many for an accident
    ends = lacking == [min(blocks)] or lacking == [max(blocks)]
    yield Finding(
        code="missing",
        severity="note" if ends else "error",
        component=group.component,
        norms=(group.place,),
        reason=f"{group.place} is in {len(found)} of {amount(len(blocks), 'block')}, and not in {_some(lacking)}",
        cure="none, if the network has none there (some start or end without one); else look for a key that was renamed"
        if ends
        else "convert again, and look for a key that was renamed or left out, or for a shard that is not there",
        details={"blocks": lacking[:1000]},
    )


def _odd_ones(group: Group) -> Iterator[Finding]:
    """A scale or a shift that all but a few norms of a group have, or that all but a few have not."""
    if len(group.norms) < _FEWEST or group.running:
        return
    for part in ("scale", "shift"):
        having = [one for one in group.norms if getattr(one.site, part) is not None]
        lacking = [one for one in group.norms if getattr(one.site, part) is None]
        if not having or not lacking:
            continue
        missing = len(having) >= len(lacking)
        odd = lacking if missing else having
        yield Finding(
            code="missing" if missing else "foreign",
            severity="error",
            component=group.component,
            norms=tuple(one.name for one in odd),
            reason=f"{among(len(odd), len(group.norms), 'norm')} at {group.place} {have(len(odd))}"
            f" {'no' if missing else 'a'} {part}, the others have {'one' if missing else 'none'}",
            cure="convert again, and look for keys that were renamed or left out"
            if missing
            else "look where this tensor comes from: the network does not know it in the other blocks",
        )


def _against_family(subject: Subject) -> Iterator[Finding]:
    fact = subject.fact
    if fact is None or subject.checkpoint.graph is not None or fact.components or fact.disputed is not None:
        return
    norms = [one for one in subject.norms if one.site.role == "stream" and one.site.component in ("main", "text")]
    shifted = [one for one in norms if one.site.shift is not None]
    bare = [one for one in norms if one.site.shift is None]
    if fact.shift == "always" and len(bare) > _SHARE * len(norms):
        yield Finding(
            code="missing",
            severity="error",
            component=bare[0].site.component,
            norms=tuple(one.name for one in bare),
            reason=f"{among(len(bare), len(norms), 'norm')} of the stream {have(len(bare))} no shift; all norms of"
            f" {fact.name[:60]} do",
            cure="convert again, and look for keys that were left out; or the architecture's name is wrong",
            details={"source": fact.source},
        )
    if fact.shift == "never" and len(shifted) > _SHARE * len(norms):
        yield Finding(
            code="foreign",
            severity="error",
            component=shifted[0].site.component,
            norms=tuple(one.name for one in shifted),
            reason=f"{among(len(shifted), len(norms), 'norm')} of the stream {have(len(shifted))} a shift;"
            f" those of {fact.name[:60]} have none",
            cure="the network leaves these tensors out; or the architecture's name is wrong",
            details={"source": fact.source},
        )


def _some(layers: list[int]) -> str:
    return ", ".join(map(str, layers[:5])) + (f" … ({len(layers)})" if len(layers) > 5 else "")
