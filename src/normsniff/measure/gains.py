"""What norms multiply by: γ as stored, or one more where values around zero say that γ - 1 is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..anatomy.parts import Site

Float64 = NDArray[np.float64]

NEGATIVE = 0.05
"""Share of negative values of a component's scales above which they are γ - 1: 53 of 54 copies of trained models stored
so are above it; trained γ of clean language models change their sign in 0.8 % of the values, single sites of theirs in
up to 47 % (which is why sites are pooled)."""


def gains(sites: Sequence[Site], scales: Mapping[int, Float64]) -> Mapping[int, Float64]:
    """Return by site index what each norm multiplies by.

    Only for the direction that readers are tested along: where a family or an operator tells what is stored, that
    stands, and the record of a norm shows what a file stores. With γ - 1 taken for γ a reader would be tested along a
    direction of the few coordinates that lie next to zero.

    Args:
        sites: of the anatomy.
        scales: effective γ by site index, as far as families tell, each of shape (d,).
    """
    open_ones: dict[str, list[int]] = defaultdict(list)
    for index in scales:
        site = sites[index]
        if not site.offset and not site.why and site.kind is None:
            open_ones[site.component].append(index)
    found = dict(scales)
    for indices in open_ones.values():
        values = np.concatenate([scales[index].ravel() for index in indices])
        if values.size and float((values < 0).mean()) > NEGATIVE:
            found |= {index: scales[index] + 1.0 for index in indices}
    return found
