"""Numbers in sentences."""

from __future__ import annotations

import pytest

from normsniff.words import amount


@pytest.mark.parametrize(
    ("n", "words"), [(0, "0 matrices"), (1, "1 matrix"), (2, "2 matrices"), (1234, "1,234 matrices")]
)
def test_a_noun_agrees_with_its_number(n: int, words: str) -> None:
    assert amount(n, "matrix", "matrices") == words


def test_the_plural_takes_an_s_unless_it_is_given() -> None:
    assert [amount(n, "norm") for n in (0, 1, 2)] == ["0 norms", "1 norm", "2 norms"]
