"""The order in which people count."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"([0-9]+)")


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key that puts ``dense_2`` before ``dense_10``; digits are never converted, however many there are.

    >>> sorted(["step-10", "step-9", "step"], key=natural)
    ['step', 'step-9', 'step-10']
    """
    return [(len(part.lstrip("0")) + 1 if i % 2 else 0, part) for i, part in enumerate(_DIGITS.split(text))]
