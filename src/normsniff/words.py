"""Numbers in sentences: one norm, two norms."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 100  # characters of a name in a sentence


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


def among(n: int, total: int, one: str, many: str | None = None) -> str:
    """Return some of several with their noun; the only one there is bears no number.

    >>> among(1, 1, "norm"), among(1, 5, "norm"), among(5, 5, "norm")
    ('the only norm', '1 of the 5 norms', '5 of the 5 norms')
    """
    return f"the only {one}" if n == total == 1 else f"{n:,} of the {amount(total, one, many)}"


def have(n: int) -> str:
    """Return the verb that goes with a number of things."""
    return "has" if n == 1 else "have"


def are(n: int) -> str:
    """Return the other verb that goes with a number of things."""
    return "is" if n == 1 else "are"


def every(n: int, one: str, many: str | None = None) -> str:
    """Return all of some things with their noun.

    >>> every(1, "block"), every(12, "block")
    ('the only block', 'all 12 blocks')
    """
    return f"the only {one}" if n == 1 else f"all {amount(n, one, many)}"


def first(names: Sequence[str], most: int = 5, longest: int = _LONGEST) -> str:
    """Return the first of some names out of a file, each up to so many characters.

    >>> first(["a", "b", "c"], 2)
    'a, b ...'
    """
    return ", ".join(name[:longest] for name in names[:most]) + (" ..." if len(names) > most else "")
