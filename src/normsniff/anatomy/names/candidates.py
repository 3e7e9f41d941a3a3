"""Every tensor of a file, sorted by its name and shape: what may be a norm, what is a matrix, what is neither.

What may be a norm is a module with a vector or two; `telling` says which of them are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from ... import meter
from ...checkpoint import TensorInfo
from ...dtypes import COMPLEX, INTEGERS
from . import conventions as c
from .patterns import Name, Namer, holds

_NO_WEIGHTS = INTEGERS | COMPLEX.keys()
_NAME = 20  # steps a tensor: its name is taken apart, sorted, and looked at again where it is a norm or a matrix
_BETA = re.compile(r"beta\W*$", re.IGNORECASE)  # ends a name, in whatever quotes or brackets


class Module(msgspec.Struct):
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
        """Length of its vectors."""
        tensor = self.scale or self.shift
        return max(tensor.shape) if tensor is not None else 0


class Sorted(msgspec.Struct):
    """All tensors of a file, sorted by what they may be."""

    norms: dict[str, Module] = {}
    unnamed: dict[str, Module] = {}
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


def sort(tensors: Iterable[TensorInfo]) -> Sorted:
    """Sort the tensors of a file by their names and shapes."""
    namer, found = Namer(), Sorted()
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


def _put(modules: dict[str, Module], name: Name) -> None:
    parameter = name.path.parameter
    module = modules.setdefault(name.module, Module(name))
    if parameter in c.SHIFTS or parameter == "vars1":
        module.shift = module.shift or name.tensor
    elif parameter in c.SCALES or parameter in ("", "vars0"):
        module.scale = module.scale or name.tensor
        module.name = name
    elif holds(parameter, c.SHIFT_WORD):
        module.shift = module.shift or name.tensor
    else:
        module.strange.append(name.tensor)
