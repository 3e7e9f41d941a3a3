"""Numbers in sentences."""

from __future__ import annotations

import pytest

from normsniff.words import among, amount, first, have


@pytest.mark.parametrize(
    ("n", "words"), [(0, "0 matrices"), (1, "1 matrix"), (2, "2 matrices"), (1234, "1,234 matrices")]
)
def test_a_noun_agrees_with_its_number(n: int, words: str) -> None:
    assert amount(n, "matrix", "matrices") == words


def test_the_plural_takes_an_s_unless_it_is_given() -> None:
    assert [amount(n, "norm") for n in (0, 1, 2)] == ["0 norms", "1 norm", "2 norms"]


def test_some_of_several() -> None:
    said = [f"{among(n, total, 'norm')} {have(n)}" for n, total in ((0, 5), (1, 1), (1, 5), (2, 2), (5, 5))]
    assert said == ["0 of the 5 norms have", "the only norm has", "1 of the 5 norms has", "2 of the 2 norms have",
                    "5 of the 5 norms have"]  # fmt: skip


def test_of_many_names_some_are_said_and_none_at_length() -> None:
    assert first(["a", "b"]) == "a, b"
    assert first(["x" * 999, *"bcdefg"]) == f"{'x' * 100}, b, c, d, e ..."
