"""The account of a file's vectors: which are explained, and which may be a norm that nobody recognised.

Whoever says "no norm has a shift" or "there is no norm" says it of all vectors of the file. A vector is explained if it
belongs to a norm that was found, to a matrix beside it, or bears a word that says what else it is. The others may be
scales or shifts under unknown names, so that the fewer there are of them, the more a statement of absence is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import NamedTuple

from ...checkpoint import TensorInfo
from ..parts import Site, Unexplained
from . import conventions as c
from .patterns import Name, above, holds


class Accounted(NamedTuple):
    """How many vectors are explained, how many of these by a matrix, and those that are not.

    Attributes:
        explained: how many are explained.
        of_matrices: how many of these are no norm's for sure, most because they are a matrix's: its bias, its only row,
            the slopes of the activation behind it, or what its weight norm or its quantisation stores beside it.
        unexplained: the others.
    """

    explained: int
    of_matrices: int
    unexplained: tuple[Unexplained, ...]


def account(
    vectors: Iterable[tuple[TensorInfo, Name | None]],
    sites: Iterable[Site],
    explained: Collection[str],
    matrices: Collection[str],
) -> Accounted:
    """Explain vectors.

    Args:
        vectors: all vectors of numbers that the file holds, with their names taken apart; None for a name that is
            nobody's convention.
        sites: the norms that were found.
        explained: modules that are explained: they hold a matrix, or normalise in another way.
        matrices: those of them that hold a matrix, as it is or taken apart.
    """
    taken = {one.name for site in sites for one in (site.scale, site.shift) if one is not None}

    @cache
    def around() -> set[str]:
        return {path for module in explained for path in above(module)}

    known = of_matrices = 0
    rest: list[Unexplained] = []
    vectors = list(vectors)
    shifted = {name.module for tensor, name in vectors if name and _is_broadcast_shift(name)}
    for tensor, name in vectors:
        thin = name is not None and _is_thin_matrix(name, matrices) and name.module not in shifted
        if tensor.name in taken or thin or (name is not None and _is_explained(name, explained, around)):
            known += 1
            of_matrices += thin or (name is not None and _is_of_matrix(name, matrices))
        else:
            why = "its name follows no known convention" if name is None else "its name says neither scale nor shift"
            named = name is not None and name.path.norm
            rest.append(Unexplained("vector", tensor.name[:200], why, max(tensor.shape), named))
    return Accounted(known, of_matrices, tuple(rest))


def _is_broadcast_shift(name: Name) -> bool:
    """Whether a vector is a shift with further axes, as only a norm written by hand has them: (1, d), (1, d, 1, 1)."""
    return len(name.tensor.shape) > 1 and name.path.parameter in c.SHIFTS


def _is_thin_matrix(name: Name, matrices: Collection[str]) -> bool:
    """Whether a vector is a matrix with one row or one column, for the axes that it is stored with.

    A weight with more than one axis is that of a layer with one output or one input, unless its module is called a
    norm: of the code bases of the seen half five have such weights, and in none of them, nor in any model type of
    transformers, is one a norm's (norms with further axes call their scale g, gamma or alpha). A column of a name of
    its own beside the matrix of the same module is multiplied with what that matrix gives: the attention of GAT.
    """
    path, shape = name.path, name.tensor.shape
    if len(shape) < 2 or path.norm:
        return False
    if path.parameter in c.MATRICES:
        return path.parameter in c.THIN_MATRICES
    return not path.parameter and shape[-1] == 1 and name.module.rpartition(".")[0] in matrices


def _is_of_matrix(name: Name, matrices: Collection[str]) -> bool:
    """Whether a vector is no norm's scale for sure: a bias says so itself, and what is stored beside a matrix."""
    path = name.path
    if holds(path.leaf, c.ACTIVATION) or (not path.parameter and holds(path.leaf, c.NEVER_SCALE)):
        return True
    if path.ignored:
        return name.module.partition(".parametrizations")[0] in matrices
    if path.parameter in c.SHIFTS or path.parameter in c.FURTHER_VARIABLES:
        return name.module in matrices
    if path.parameter:
        return False
    return holds(path.leaf, c.SHIFT_WORD) or name.module.rpartition(".")[0] in matrices


def _is_explained(name: Name, modules: Collection[str], around: Callable[[], Collection[str]]) -> bool:
    path = name.path
    if path.ignored or name.module in modules:
        return True
    if path.norm:
        return False
    if (
        path.parameter in c.SHIFTS
    ):  # `q_bias` beside `query.weight`: named after a matrix, not after a module of its own
        return name.module.rpartition(".")[0] in around()
    owner = "" if path.parameter else path.text.rpartition(".")[0].rpartition(".")[2]  # `gate` of `gate.value`
    return holds(path.leaf, c.OTHER_VECTOR) or holds(owner, c.OTHER_VECTOR)
