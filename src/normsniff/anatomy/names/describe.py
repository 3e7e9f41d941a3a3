"""Anatomy from names and shapes: which tensors are norms, which matrices surround them, which tower is whose.

Nothing here says whether a norm is LayerNorm or RMSNorm: names do not tell, and what they suggest is for
the evidence to weigh.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import msgspec

from ... import families, meter
from ...checkpoint import Checkpoint, TensorInfo
from ...dtypes import COMPLEX, INTEGERS
from ..parts import SERVING_TOWERS, Anatomy, NormRole, Site
from . import conventions as c
from . import hints
from .account import account
from .dialects import kind_of
from .matrices import Wiring
from .patterns import Name, Namer, Path, holds, module_name

_NO_WEIGHTS = INTEGERS | COMPLEX.keys()
_SITE = 40  # steps a norm: a dozen searches in its path, and what is asked of it later
_NAME = 20  # steps a tensor: its name is taken apart, sorted, and looked at again where it is a norm or a matrix
_FEWEST_MATRICES = 3  # along a stream, before vectors without a norm's name count as its norms
_BETA = re.compile(r"beta\W*$", re.IGNORECASE)  # ends a name, in whatever quotes or brackets
_BESIDE = frozenset(["projector", "qformer", "tokenizer"])  # components that are not towers of their own


class _Module(msgspec.Struct):
    """A module that may be a norm."""

    name: Name
    scale: TensorInfo | None = None
    shift: TensorInfo | None = None
    strange: list[TensorInfo] = []
    unnamed: bool = False
    mistakable: bool = False

    @property
    def affine(self) -> bool:
        """Whether the words are those of ResMLP's affine maps, alpha and beta, which scale and shift alone.

        With a bias beside it, alpha is the scale of a norm: children of the annotated transformer.
        """
        return (
            self.name.path.parameter == "alpha" and self.shift is not None and _BETA.search(self.shift.name) is not None
        )

    @property
    def width(self) -> int:
        tensor = self.scale or self.shift
        return max(tensor.shape) if tensor is not None else 0


class _Sorted(msgspec.Struct):
    """All tensors of a file, sorted by what they may be."""

    norms: dict[str, _Module] = {}
    unnamed: dict[str, _Module] = {}
    matrices: list[Name] = []
    vectors: list[tuple[TensorInfo, Name | None]] = []
    other_norms: set[str] = set()
    batch_norms: set[str] = set()
    scaled: set[str] = set()
    sided: set[str] = set()
    group_towers: Counter[str] = msgspec.field(default_factory=Counter)
    texts: Counter[str] = msgspec.field(default_factory=Counter)
    others: Counter[str] = msgspec.field(default_factory=Counter)

    def add_other(self, kind: str, name: Name) -> None:
        """Count a norm that is neither LayerNorm nor RMSNorm."""
        self.others[kind] += 1
        self.other_norms.add(name.module)
        if kind == "GroupNorm":
            self.group_towers[name.path.tower] += 1


def describe(checkpoint: Checkpoint) -> Anatomy:
    """Find norm sites and the matrices around them by the names of tensors.

    Returns:
        The anatomy; without sites if no name follows a known convention.
    """
    found = _sort(checkpoint.tensors.values())
    fact = families.fact_of(checkpoint.metadata, checkpoint.config)
    norms = _true_norms(found)
    if (fact is None or fact.norm == "none") and any(holds(m.name.path.text, c.AFFINE_ONLY) for m in norms):
        found.others["affine map without normalisation (MobileBERT)"] = len(norms)
        found.other_norms.update(module.name.module for module in norms)
        norms = []
    component = _components([module.name for module in norms], found.matrices)
    widths = _widths(norms, found.matrices, component)
    parts = {n.path.inside.partition(".")[0] for n in found.matrices if n.path.block > 0 and "." in n.path.inside}
    sites = _without_foreign([module.name for module in norms], _sites(norms, component, widths), parts)
    sites = [_with_offset(site, module.name, fact) for site, module in zip(sites, norms, strict=True)]
    wiring = Wiring([module.name for module in norms], sites, widths, checkpoint, bool(found.others["GroupNorm"]))
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
        notes.append(f"{len(found.scaled):,} matrices left out: quantised with block scales stored beside them")
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
        holds(text, c.BARE_NORM) or holds(text, c.SELF_ATTENTION) or (not old and _attends(text)) for text in texts
    )


def _attends(text: str) -> bool:
    return c.reader(text.rpartition(".")[2]) in ("attention", "cross") or holds(text, c.ATTENTION)


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


# --- sorting ---------------------------------------------------------------------------------------------------


def _sort(tensors: Iterable[TensorInfo]) -> _Sorted:
    namer, found = Namer(), _Sorted()
    for tensor in meter.counted(tensors, "reading names", _NAME):
        name, vector = namer.parse(tensor), _is_vector(tensor.shape)
        if vector and tensor.dtype not in INTEGERS:
            found.vectors.append((tensor, name))
        if name is None:
            continue
        path = name.path
        if path.parameter in c.BATCH_STATISTICS:
            found.batch_norms.add(name.module)
        elif path.ignored:
            found.sided.add(name.module.partition(".parametrizations")[0])
            found.texts[path.text] += 1
            if path.parameter.startswith("weight_scale") and tensor.size > 1:
                found.scaled.add(name.module)
        elif tensor.dtype in _NO_WEIGHTS and tensor.affine is None:
            continue
        elif vector or (path.norm and _is_scale_per_head(path.leaf, tensor.shape)):
            if path.norm:
                _put(found.norms, name)
            elif path.parameter and not holds(path.leaf, c.NOT_UNNAMED):
                _put(found.unnamed, name)
        elif _is_matrix(tensor.shape) and (path.parameter in c.MATRICES or not path.parameter):
            found.matrices.append(name)
            found.texts[path.text] += 1
    return found


@lru_cache(maxsize=4096)  # layers repeat their shapes
def _is_vector(shape: tuple[int, ...]) -> bool:
    """(d), (1, d), (1, 1, d), (d, 1, 1): one axis longer than 1."""
    if len(shape) == 1:
        return shape[0] > 1
    return 1 < len(shape) <= 4 and max(shape) > 1 and math.prod(shape) == max(shape)


@lru_cache(maxsize=4096)
def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Two axes longer than 1."""
    return (len(shape) > 1 and min(shape) > 1) or sum(n > 1 for n in shape) >= 2


def _is_scale_per_head(leaf: str, shape: tuple[int, ...]) -> bool:
    """(heads, size): query and key norms of StableLM and Chameleon."""
    return len(shape) == 2 and min(shape) > 1 and c.QUERY_KEY.match(leaf) is not None


def _put(modules: dict[str, _Module], name: Name) -> None:
    parameter = name.path.parameter
    module = modules.setdefault(name.module, _Module(name))
    if parameter in c.SHIFTS or parameter == "vars1":
        module.shift = module.shift or name.tensor
    elif parameter in c.SCALES or parameter in ("", "vars0"):
        module.scale = module.scale or name.tensor
        module.name = name
    elif holds(parameter, c.SHIFT_WORD):
        module.shift = module.shift or name.tensor
    else:
        module.strange.append(name.tensor)


def _gather(modules: dict[str, _Module]) -> None:
    """Put vectors together whose names are a norm's and one more word: `ln_1_foo` beside `ln_1.weight`.

    Two such vectors alone, `ln_1_foo` and `ln_1_bar`, may be scale and shift of one norm as well as two norms: they are
    taken out, and stay unexplained.
    """
    alone: dict[str, list[str]] = {}
    for key, module in modules.items():
        stem, _, word = key.rpartition("_")
        direct = not module.name.path.parameter and module.scale is not None and not word.isdecimal()
        if direct and c.NORM.search(stem.rpartition(".")[2]) and not c.QUERY_KEY.match(module.name.path.leaf):
            alone.setdefault(stem, []).append(key)
    for stem, keys in alone.items():
        owner = modules.get(stem)
        if owner is None and len(keys) == 1:
            continue  # `ln_f`
        for key in keys:
            tensor = modules.pop(key).scale
            if owner is not None and tensor is not None:
                owner.strange.append(tensor)


def _told(module: _Module) -> _Module:
    """Give the vectors of a norm whose words nobody knows their places; which of two is the scale their values tell."""
    left = [tensor for tensor in module.strange if module.scale is None or tensor.shape == module.scale.shape]
    if module.scale is None and left and len(left) <= 2:
        module.mistakable = len(left) == 2 or module.shift is not None
        module.scale = left.pop(0)
    if module.shift is None and len(left) == 1:
        module.mistakable = True
        module.shift = left[0]
    return module


def _true_norms(found: _Sorted) -> list[_Module]:
    """Norms in the order of the file, without BatchNorm, GroupNorm and look-alikes."""
    meter.charge(_SITE * len(found.norms), "telling norms apart")
    _gather(found.norms)
    with_matrix = {name.module for name in found.matrices}
    conv_norms = sum(holds(module.name.path.text, c.FIRST_CONV_NORM) for module in found.norms.values())
    found.others["BatchNorm"] = len(found.batch_norms)
    kernels = _kernels(found.matrices)
    norms: list[_Module] = []
    for key, module in found.norms.items():
        path = _told(module).name.path
        if key in found.batch_norms or key in with_matrix:
            continue
        if (other := _other_kind(path.leaf)) is not None:
            found.add_other(other, module.name)
        elif (
            _normalises_channels(module, kernels)
            or _is_group_norm(path.text, path.leaf)
            or (holds(path.text, c.FIRST_CONV_NORM) and conv_norms == 1)
        ):
            found.add_other("GroupNorm", module.name)
        elif module.scale is not None and not module.affine:  # a shift alone may be that of an affine map
            norms.append(module)
    for key, module in found.unnamed.items():
        if key in with_matrix or key in found.batch_norms or not _has_both(module):
            continue
        if holds(module.name.path.text, c.GROUP_NORM_PATH):
            found.add_other("GroupNorm", module.name)
        elif (other := _other_kind(module.name.path.leaf)) is not None:
            found.add_other(other, module.name)
    elsewhere = with_matrix | found.batch_norms | found.other_norms
    unnamed = [
        module for key, module in found.unnamed.items()
        if key not in elsewhere and module.scale is not None
        and len(module.scale.shape) == 1  # (1, d) is a linear layer with one output
    ]  # fmt: skip
    norms += _unnamed_norms(unnamed, norms, found)
    found.others = +found.others
    return norms


def _kernels(matrices: Sequence[Name]) -> dict[str, int]:
    """Return by module the channels that convolutions put out, but for those that have their place beside attention.

    These are depthwise kernels of a block, and pairs of pointwise ones that are the MLP behind an attention (Informer).
    """
    attending = {n.module[:at] for n in matrices if _attends(n.path.text) for at in _dots(n.module)}
    return {
        name.module: name.tensor.shape[0]
        for name in matrices
        if len(name.tensor.shape) > 2 and (name.tensor.shape[1] > 1 or not name.block)
        and not (math.prod(name.tensor.shape[2:]) == 1 and name.module.rpartition(".")[0] in attending)
    }  # fmt: skip


def _dots(module: str) -> list[int]:
    return [at for at, character in enumerate(module) if character == "."]


def _unnamed_norms(modules: list[_Module], norms: list[_Module], found: _Sorted) -> list[_Module]:
    """Modules whose only tensors are one or two vectors, under a name that does not say so."""
    if norms:  # nn.Sequential(LayerNorm, Linear): a number for a name
        widths = {module.width for module in norms}
        return [
            module for module in modules
            if module.width in widths and module.name.path.numbered
            and (_has_both(module) or module.name.path.block > 0)
        ]  # fmt: skip
    if not modules or found.others.total():
        return []
    width = Counter(module.width for module in modules).most_common(1)[0][0]
    along = sum(width in name.tensor.shape for name in found.matrices)
    for module in modules:
        module.unnamed = True
    return [module for module in modules if module.width == width] if along >= _FEWEST_MATRICES else []


def _other_kind(leaf: str) -> str | None:
    """Return which norm that is neither LayerNorm nor RMSNorm a word means."""
    return next((kind for kind, word in c.NOT_OURS if holds(leaf, word)), None)


def _has_both(module: _Module) -> bool:
    return module.scale is not None and module.shift is not None and module.scale.shape == module.shift.shape


def _normalises_channels(norm: _Module, kernels: Mapping[str, int]) -> bool:
    """`norm2` beside a `conv2` with as many channels: GroupNorm or its like, which always have a shift."""
    parent, _, leaf = norm.name.module.rpartition(".")
    paired = leaf[:4] == "norm" and leaf[4:].isdecimal() and norm.shift is not None
    return paired and kernels.get(f"{parent}.conv{leaf[4:]}".strip(".")) == norm.width


def _is_group_norm(text: str, leaf: str) -> bool:
    if holds(leaf, c.GROUP_NORM):
        return not holds(text.rpartition(".")[0], c.ATTENTION)  # DiffLlama calls an RMSNorm inside attention so
    return holds(text, c.GROUP_NORM_PATH)


# --- towers, widths, roles ------------------------------------------------------------------------------------------


def _components(norms: list[Name], matrices: list[Name]) -> Mapping[str, str]:
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


def _of_queries(path: Path) -> bool:
    return c.QUERY_KEY.match(path.leaf) is not None or holds(path.text, c.QUERY_KEY_EACH)


def _named_role(module: _Module) -> NormRole:
    path = module.name.path
    if kind_of(path) is not None:
        return "stream"
    if holds(path.text, c.OTHER_NORM) or path.tower in ("projector", "tokenizer") or not (path.norm or module.unnamed):
        return "other"
    if _of_queries(path):
        return "query-key" if path.block else "other"
    return "stream"


def _widths(norms: list[_Module], matrices: list[Name], component: Mapping[str, str]) -> dict[str, int]:
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


def _sites(norms: list[_Module], component: Mapping[str, str], widths: Mapping[str, int]) -> list[Site]:
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
