"""Anatomy from names and shapes: which tensors are norms, which matrices surround them, which tower is whose.

Nothing here says whether a norm is LayerNorm or RMSNorm: names do not tell, and what they suggest is for
the evidence to weigh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from ... import families
from ...checkpoint import Checkpoint
from ...words import amount
from ..parts import SERVING_TOWERS, Anatomy, Site
from . import conventions as c
from . import hints
from .account import account
from .candidates import sort
from .matrices import Wiring
from .patterns import Name, attends, holds
from .readings import Readings
from .telling import true_norms
from .towers import components, sites_of, widths_of


def describe(checkpoint: Checkpoint) -> Anatomy:
    """Find norm sites and the matrices around them by the names of tensors.

    Returns:
        The anatomy; without sites if no name follows a known convention.
    """
    found = sort(checkpoint.tensors.values())
    fact = families.fact_of(checkpoint.metadata, checkpoint.config)
    norms = true_norms(found)
    if (fact is None or fact.norm == "none") and any(holds(m.name.path.text, c.AFFINE_ONLY) for m in norms):
        found.others["affine map without normalisation (MobileBERT)"] = len(norms)
        found.other_norms.update(module.name.module for module in norms)
        norms = []
    component = components([module.name for module in norms], found.matrices)
    widths = widths_of(norms, found.matrices, component)
    parts = {n.path.inside.partition(".")[0] for n in found.matrices if n.path.block > 0 and "." in n.path.inside}
    sites = _without_foreign([module.name for module in norms], sites_of(norms, component, widths), parts)
    sites = [_with_offset(site, module.name, fact) for site, module in zip(sites, norms, strict=True)]
    readings = Readings([module.name for module in norms], sites, widths, checkpoint, bool(found.others["GroupNorm"]))
    wiring = Wiring(readings, sites, widths, checkpoint.format)
    usable = [name for name in found.matrices if name.module not in found.scaled]
    matrices = wiring.matrices(usable, component)
    biased = ((component[m.name.path.tower], m.name) for m in found.unnamed.values() if m.shift is not None)
    fused = {component[name.path.tower] for name in usable if name.path.leaf == "wqkv"}
    gated = {component[tower] for tower in hints.gated(usable)}
    numbered = {component[n.path.tower] for n in usable if not n.path.block and holds(n.path.text, c.LEARNED_POSITIONS)}
    modulated = {
        (component[n.path.tower], n.block) for n in found.matrices if n.block and holds(n.path.text, c.MODULATION)
    }
    structure = hints.find(
        [module.name for module in norms], sites, wiring.places(usable, component), biased, fused, gated, numbered,
        modulated, group_norm=bool(found.group_towers.keys() - SERVING_TOWERS),
    )  # fmt: skip
    notes = []
    if found.scaled:
        left_out = amount(len(found.scaled), "matrix", "matrices")
        notes.append(f"{left_out} left out: quantised with block scales stored beside")
    if fact is None and any(name.path.leaf == "pre_feedforward_layernorm" for name in (m.name for m in norms)):
        notes.append("no configuration: models with these names often store scale - 1")
    owners = {name.module for name in found.matrices}
    norms_of_others = found.batch_norms | found.other_norms
    told = account(found.vectors, sites, owners | norms_of_others | found.sided, owners | found.sided)
    return Anatomy(
        tuple(sites), tuple(matrices), widths, "names", tuple(notes), dict(found.others), hints=structure,
        group_norms=Counter(component[tower] for tower in found.group_towers.elements()),
        explained=told.explained, of_matrices=told.of_matrices, unexplained=told.unexplained,
        unreadable=_unreadable(found.texts), bare=_may_be_bare(found.texts),
        attending=frozenset(component[m.path.tower] for m in found.matrices if holds(m.path.text, c.ATTENDS)),
    )  # fmt: skip


def _may_be_bare(texts: Iterable[str]) -> bool:
    """Whether paths of matrices are those of a network that may normalise without parameters.

    Attention is a transformer's, unless there are recurrent cells: what these attend with came before transformers, as
    long as it is not called that of a transformer.
    """
    texts = list(texts)
    old = any(holds(text, c.RECURRENT) for text in texts)
    return any(
        holds(text, c.BARE_NORM) or holds(text, c.SELF_ATTENTION) or (not old and attends(text)) for text in texts
    )


def _unreadable(texts: Counter[str]) -> bool:
    """Whether most matrices, by the paths without their numbers, have words in these and none of them a layer's."""
    return 2 * sum(n for text, n in texts.items() if _is_strange(text)) > texts.total()


def _is_strange(text: str) -> bool:
    leaf = text.rpartition(".")[2]
    known = c.reader(leaf) is not None or leaf in c.WRITERS or holds(text, c.LAYER_WORD)
    return not known and any(map(str.isalpha, text))


def _without_foreign(names: Sequence[Name], sites: list[Site], parts: Collection[str]) -> list[Site]:
    """Norms of sub-modules that have a shift where those of the blocks themselves have none belong to the sub-modules.

    TimesFM's MLPs hold a LayerNorm in blocks of RMSNorm. Where nothing but underscores parts its words,
    ``mlp_layer_norm`` is that of ``mlp`` as well as one of its own.

    Args:
        names: one a site.
        sites: the norms.
        parts: modules that hold matrices in blocks.
    """
    nested = [
        site.role == "stream" and name.path.block > 0 and _is_nested(name.path.inside, parts)
        for name, site in zip(names, sites, strict=True)
    ]
    shifts: dict[tuple[str, bool], set[bool]] = {}
    for name, site, inner in zip(names, sites, nested, strict=True):
        if site.role == "stream" and name.path.block > 0:
            shifts.setdefault((site.component, inner), set()).add(site.shift is not None)
    foreign = {
        tower
        for tower, inner in shifts
        if inner and shifts[tower, True] == {True} and shifts.get((tower, False)) == {False}
    }
    return [
        replace(site, role="other") if inner and site.component in foreign else site
        for site, inner in zip(sites, nested, strict=True)
    ]


def _is_nested(inside: str, parts: Collection[str]) -> bool:
    return "." in inside or any(inside.startswith(f"{part}_") for part in parts)


def _with_offset(site: Site, name: Name, fact: families.Fact | None) -> Site:
    if fact is None:
        return site
    if fact.baked:
        return replace(site, why=f"{fact.name}: the file holds the full scale; its converter: {fact.baked}")
    path = name.path.text.replace(".#", ".N")
    kind = fact.inner_kind(path) if site.role != "stream" else None
    if kind in ("LayerNorm", "RMSNorm") and site.kind is None:
        site = replace(site, kind=kind)
    offset = fact.offset(path, site.component)
    if offset and site.scale is not None:
        return replace(site, offset=offset, why=f"{fact.name} stores its scale minus one ({fact.source})")
    return site
