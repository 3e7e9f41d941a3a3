"""Numbers in sentences: one norm, two norms."""

from __future__ import annotations


def amount(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Args:
        n: how many.
        one: the noun for one of them.
        many: the noun for none, or for several; with an s at the end of `one` unless given.

    >>> amount(1, "norm"), amount(2, "norm"), amount(1000, "matrix", "matrices")
    ('1 norm', '2 norms', '1,000 matrices')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
