"""What stands in a norm's place and stores a scale as a norm does: the dynamic tanh, tanh(αx)·γ + β.

Its weights may keep their energy along every direction, as under RMSNorm, or lose some along **1**, as under LayerNorm;
the kernel must take it for neither. What gives it away is α: one number for every norm (Zhu et al., "Transformers
without Normalization", arXiv 2503.10622).
"""

from __future__ import annotations

import math
from collections import Counter

from ..anatomy.parts import Anatomy
from ..checkpoint import Checkpoint
from ..dtypes import FLOATS

_RECURRING = 3
"""A single number is a temperature or a logit scale; one that recurs goes with the blocks."""
_SHARE = 0.5


def find(checkpoint: Checkpoint, anatomy: Anatomy) -> frozenset[str]:
    """Return the components whose norms seem to be none, because single numbers are stored with them.

    With names, a number counts that lies beside a scale. Without, every number counts, unless the file holds a graph
    or packed weights, which are full of constants and scales.
    """
    if checkpoint.graph is not None:
        return frozenset()
    single = {shape for shape in {t.shape for t in checkpoint.tensors.values()} if math.prod(shape) == 1}
    numbers = [name for name, t in checkpoint.tensors.items() if t.shape in single and t.dtype in FLOATS]
    if len(numbers) < _RECURRING:
        return frozenset()
    if anatomy.basis == "shapes":
        plain = all(t.dtype in FLOATS for t in checkpoint.tensors.values() if len(t.shape) > 1)
        return frozenset(anatomy.widths) if plain else frozenset()
    owners = {name.rpartition(".")[0] for name in numbers}
    stream = [site for site in anatomy.sites if site.role == "stream" and site.kind is None]
    beside = Counter(site.component for site in stream if site.name in owners)
    total = Counter(site.component for site in stream)
    return frozenset(name for name, n in beside.items() if n >= max(_SHARE * total[name], _RECURRING))
