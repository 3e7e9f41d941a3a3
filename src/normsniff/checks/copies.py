"""repeated: two norms with the same values that should differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np

from ..record import Finding
from ..words import amount, are
from .subject import Float64, ReadNorm, Subject

_CHANCE = 1e-9
"""Chance of two scales of a tower that are alike without a reason. It is counted from the scale's own values: two
values drawn from them are alike with probability q = Σ p², a scale of n values with q to the n. So 16 values of which
ten differ are told, and none that are nearly all still where training began."""


def find(subject: Subject) -> Iterator[Finding]:
    """Yield one finding for every set of norms that are equal to the bit."""
    equal: dict[tuple[str, bytes], list[ReadNorm]] = {}
    for one in subject.norms:
        if one.stored is not None and one.stored.size:
            equal.setdefault((one.site.component, one.stored.tobytes()), []).append(one)
    pairs = math.comb(len(subject.norms), 2)
    alike = [
        found
        for found in equal.values()
        if len(found) > 1
        and pairs * _alike(found[0].stored) <= _CHANCE
        # one tensor that several sites share is one parameter
        and len({one.site.scale.name for one in found if one.site.scale is not None}) > 1
    ]
    copies = _copies(alike)
    yield from (_copy(heads, sets) for heads, sets in copies.items())
    copied = {id(found) for sets in copies.values() for found in sets}
    for found in alike:
        if id(found) in copied:
            continue
        layers = {one.site.layer for one in found}
        size = 0 if found[0].stored is None else found[0].stored.size
        within = len(layers) < len(found) and None not in layers
        yield Finding(
            code="repeated",
            severity="error" if within else "warning",
            component=found[0].site.component,
            norms=tuple(one.name for one in found),
            reason=f"{amount(len(found), 'scale')} of {amount(size, 'value')} are equal to the bit"
            f"{', two of them in one block' if within else ''};"
            " training leaves no two alike",
            cure="compare with the original: a key was mapped twice"
            if within
            else "none, if blocks were repeated on purpose (up-scaling, merges); else compare with the original",
        )


def _copies(alike: Sequence[list[ReadNorm]]) -> dict[tuple[str, ...], list[list[ReadNorm]]]:
    """Return the sets of equal norms whose names differ in words before their blocks only, by these words.

    Checkpoints of training hold a network twice or thrice: the weights, their average, a teacher.
    """
    found: dict[tuple[str, ...], list[list[ReadNorm]]] = {}
    sure = set()
    for norms in alike:
        names = [one.name.split(".") for one in norms]
        ends = zip(*(reversed(name) for name in names), strict=False)
        shared = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, ends))
        heads = tuple(".".join(name[: len(name) - shared]) for name in names)
        if shared and len(set(heads)) == len(heads) and not any(map(_counts, heads)):
            found.setdefault(heads, []).append(norms)
            if _counts(".".join(names[0][-shared:])):
                sure.add(heads)
    return {heads: sets for heads, sets in found.items() if heads in sure}


def _counts(name: str) -> bool:
    """Whether a word of a name is a number."""
    return any(word.isdecimal() for word in name.split("."))


def _copy(heads: tuple[str, ...], sets: Sequence[list[ReadNorm]]) -> Finding:
    first, *others = (head or "no prefix" for head in heads)
    return Finding(
        code="repeated",
        severity="note",
        component=sets[0][0].site.component,
        norms=tuple(one.name for norms in sets for one in norms),
        reason=f"{amount(len(sets), 'scale')} under {', '.join(others)[:60]} {are(len(sets))} equal to the bit to"
        f" {'that' if len(sets) == 1 else 'those'} under {first[:60]}: the network is there more than once",
        cure="none, if that is meant (an average of weights that has not moved, a teacher); else leave the copy out",
    )


def _alike(values: Float64 | None) -> float:
    """Return the probability that another scale with values as frequent as these is the same."""
    if values is None:
        return 1.0
    shares = np.unique(values, return_counts=True)[1] / values.size
    return float(np.sum(shares**2) ** values.size)
