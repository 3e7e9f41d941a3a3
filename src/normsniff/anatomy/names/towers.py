"""Towers of a network, their widths, and the role that each norm has in its tower."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..parts import NormRole, Site
from . import conventions as c
from .candidates import Module
from .dialects import kind_of
from .patterns import Name, Path, holds, module_name

_BESIDE = frozenset(["projector", "qformer", "tokenizer"])  # components that are not towers of their own


def components(norms: list[Name], matrices: list[Name]) -> Mapping[str, str]:
    """Tower by the words of a path -> component of the record."""
    in_blocks = {name.path.tower for name in norms if name.path.block} or {
        name.path.tower for name in matrices if name.path.block
    }
    towers = in_blocks - _BESIDE
    component = {tower: tower for tower in (*c.TOWERS.values(), "encoder", "decoder", "main")}
    sides = {"encoder", "decoder"} & towers
    if len(sides) == 1 and "main" not in towers:
        component |= {"encoder": "main", "decoder": "main"}
        towers = (towers - sides) | {"main"}
    if len(towers) == 1:
        component |= dict.fromkeys({*towers, "main"}, "main")
        if not sides:
            component |= {"encoder": "main", "decoder": "main"}
    elif "main" not in towers:  # embeddings and heads without a tower's word belong to the one that speaks
        component["main"] = next((t for t in ("text", "decoder", "talker") if t in towers), "main")
        if not sides:
            component |= dict.fromkeys(("encoder", "decoder"), component["main"])
    return component


def widths_of(norms: list[Module], matrices: list[Name], component: Mapping[str, str]) -> dict[str, int]:
    """d_model of every component: the commonest length of its stream's scales, else from its embedding."""
    lengths: dict[str, Counter[int]] = {}
    for module in norms:
        if _named_role(module) == "stream":
            lengths.setdefault(component[module.name.path.tower], Counter())[module.width] += 1
    if not lengths:  # lucidrains' models keep their only norms inside attention and MLP
        for module in norms:
            if module.name.path.norm and module.name.path.block and not _of_queries(module.name.path):
                lengths.setdefault(component[module.name.path.tower], Counter())[module.width] += 1
    widths = {tower: count.most_common(1)[0][0] for tower, count in lengths.items()}
    for name in matrices:  # OLMo-1 stores no scale
        if name.path.leaf in c.EMBEDDINGS and not name.path.block and len(name.tensor.shape) == 2:
            widths.setdefault(component[name.path.tower], name.tensor.shape[1])
    return widths


def _of_queries(path: Path) -> bool:
    return c.QUERY_KEY.match(path.leaf) is not None or holds(path.text, c.QUERY_KEY_EACH)


def _named_role(module: Module) -> NormRole:
    path = module.name.path
    if kind_of(path) is not None:
        return "stream"
    if holds(path.text, c.OTHER_NORM) or path.tower in ("projector", "tokenizer") or not (path.norm or module.unnamed):
        return "other"
    if _of_queries(path):
        return "query-key" if path.block else "other"
    return "stream"


def sites_of(norms: list[Module], component: Mapping[str, str], widths: Mapping[str, int]) -> list[Site]:
    """Return a site a norm: its tower, and the role that its name and its length say."""
    roles = [_named_role(module) for module in norms]
    streams = {component[m.name.path.tower] for m, role in zip(norms, roles, strict=True) if role == "stream"}
    sites = []
    for module, named in zip(norms, roles, strict=True):
        name, role = module.name, named
        tower = component[name.path.tower]
        if role == "other" and tower not in streams and name.path.norm and name.path.block and tower not in _BESIDE:
            role = "stream"
        staged = name.path.layer >= 0 and name.path.block > name.path.layer + 1  # Swin: every stage has its own width
        width = module.width
        if role == "query-key":
            width = (module.scale or module.shift).shape[-1]  # type: ignore[union-attr]  # one of the two is there
        elif role == "stream" and width != widths.get(tower) and not staged:
            role = "other"
        kind, why = kind_of(name.path) or (None, "")
        sites.append(
            Site(
                module_name(name),
                module.scale,
                module.shift,
                tower,
                name.layer,
                role,
                kind,
                why=why,
                by_name=kind is not None,
                width=width,
                named=name.path.norm or kind is not None,
                mistakable=module.mistakable,
                word=name.path.leaf,
            )
        )
    return sites
