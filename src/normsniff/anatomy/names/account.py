"""The account of a file's vectors: which are explained, and which may be a norm that nobody recognised.

Whoever says "no norm has a shift" or "there is no norm" says it of all vectors of the file. A vector is explained if it
belongs to a norm that was found, to a matrix beside it, or bears a word that says what else it is. The others may be
scales or shifts under unknown names, so that the fewer there are of them, the more a statement of absence is worth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ...checkpoint import TensorInfo
from ..parts import Site, Unexplained
from . import conventions as c
from .patterns import Name


class Accounted(NamedTuple):
    """How many vectors are explained, how many of these by a matrix, and those that are not.

    Attributes:
        explained: how many are explained.
        of_matrices: how many of these are a matrix's: its bias, its only row, the slopes of the activation behind it,
            or what its weight norm or its quantisation stores beside it.
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
    around = {module[:at] for module in explained for at in _dots(module)}
    known = of_matrices = 0
    rest: list[Unexplained] = []
    for tensor, name in vectors:
        if tensor.name in taken or (name is not None and _is_explained(name, explained, around)):
            known += 1
            of_matrices += name is not None and _is_of_matrix(name, matrices)
        else:
            why = "its name follows no known convention" if name is None else "its name says neither scale nor shift"
            named = name is not None and name.path.norm
            rest.append(Unexplained("vector", tensor.name[:200], why, max(tensor.shape), named))
    return Accounted(known, of_matrices, tuple(rest))


def _is_of_matrix(name: Name, matrices: Collection[str]) -> bool:
    """Whether a vector is no norm's scale for sure: a bias says so itself, and what is stored beside a matrix.

    A matrix with one row (a linear layer with one output) has the shape of a vector; the name of the layer tells.
    """
    path = name.path
    if c.ACTIVATION.search(path.leaf):
        return True
    if path.parameter in c.SHIFTS or path.ignored:
        return name.module in matrices
    if len(name.tensor.shape) > 1 and path.parameter in c.MATRICES:
        return c.OTHER_VECTOR.search(path.leaf) is not None
    if path.parameter:
        return False
    return c.SHIFT_WORD.search(path.leaf) is not None or name.module.rpartition(".")[0] in matrices


def _dots(module: str) -> list[int]:
    return [at for at, character in enumerate(module) if character == "."]


def _is_explained(name: Name, modules: Collection[str], around: Collection[str]) -> bool:
    path = name.path
    if path.ignored or name.module in modules:
        return True
    if path.norm:
        return False
    if (
        path.parameter in c.SHIFTS
    ):  # `q_bias` beside `query.weight`: named after a matrix, not after a module of its own
        return name.module.rpartition(".")[0] in around
    owner = "" if path.parameter else path.text.rpartition(".")[0].rpartition(".")[2]  # `gate` of `gate.value`
    return c.OTHER_VECTOR.search(path.leaf) is not None or c.OTHER_VECTOR.search(owner) is not None
