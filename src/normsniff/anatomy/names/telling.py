"""Which modules are norms of our kinds: no BatchNorm, no GroupNorm, no affine map, no other vector that looks alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ... import meter
from . import conventions as c
from .candidates import Module, Sorted
from .patterns import Name, above, attends, holds

_SITE = 40  # steps a norm: a dozen searches in its path, and what is asked of it later
_FEWEST_MATRICES = 3  # along a stream, before vectors without a norm's name count as its norms


def true_norms(found: Sorted) -> list[Module]:
    """Norms in the order of the file, without BatchNorm, GroupNorm and look-alikes."""
    meter.charge(_SITE * len(found.norms), "telling norms apart")
    _gather(found.norms)
    with_matrix = {name.module for name in found.matrices}
    conv_norms = sum(holds(module.name.path.text, c.FIRST_CONV_NORM) for module in found.norms.values())
    found.others["BatchNorm"] = len(found.batch_norms)
    kernels = _kernels(found.matrices)
    norms: list[Module] = []
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


def _gather(modules: dict[str, Module]) -> None:
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


def _told(module: Module) -> Module:
    """Give the vectors of a norm whose words nobody knows their places; which of two is the scale their values tell."""
    left = [tensor for tensor in module.strange if module.scale is None or tensor.shape == module.scale.shape]
    if module.scale is None and left and len(left) <= 2:
        module.mistakable = len(left) == 2 or module.shift is not None
        module.scale = left.pop(0)
    if module.shift is None and len(left) == 1:
        module.mistakable = True
        module.shift = left[0]
    return module


def _kernels(matrices: Sequence[Name]) -> dict[str, int]:
    """Return by module the channels that convolutions put out, but for those that have their place beside attention.

    These are depthwise kernels of a block, and pairs of pointwise ones that are the MLP behind an attention (Informer).
    """
    attending = {path for n in matrices if attends(n.path.text) for path in above(n.module)}
    return {
        name.module: name.tensor.shape[0]
        for name in matrices
        if len(name.tensor.shape) > 2 and (name.tensor.shape[1] > 1 or not name.block)
        and not (math.prod(name.tensor.shape[2:]) == 1 and name.module.rpartition(".")[0] in attending)
    }  # fmt: skip


def _unnamed_norms(modules: list[Module], norms: list[Module], found: Sorted) -> list[Module]:
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


def _has_both(module: Module) -> bool:
    return module.scale is not None and module.shift is not None and module.scale.shape == module.shift.shape


def _normalises_channels(norm: Module, kernels: Mapping[str, int]) -> bool:
    """`norm2` beside a `conv2` with as many channels: GroupNorm or its like, which always have a shift."""
    parent, _, leaf = norm.name.module.rpartition(".")
    paired = leaf[:4] == "norm" and leaf[4:].isdecimal() and norm.shift is not None
    return paired and kernels.get(f"{parent}.conv{leaf[4:]}".strip(".")) == norm.width


def _is_group_norm(text: str, leaf: str) -> bool:
    if holds(leaf, c.GROUP_NORM):
        return not holds(text.rpartition(".")[0], c.ATTENTION)  # DiffLlama calls an RMSNorm inside attention so
    return holds(text, c.GROUP_NORM_PATH)
