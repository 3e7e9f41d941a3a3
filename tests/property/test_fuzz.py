"""The harnesses of ``python -m fuzz`` reach both ends, answers and refusals, and a seed gives the same file again."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fuzz.__main__ import HARNESSES, corpus, trouble


@pytest.mark.parametrize("name", HARNESSES)
def test_a_harness_reaches_answers_and_refusals(name: str) -> None:
    if name == "pytorch":
        pytest.importorskip("torch")
    seeds, ends = corpus(name), Counter[str]()
    assert all(trouble(data, ends) is None for data in seeds[:3])
    assert ends["answered"] == len(seeds[:3])
    rng, again = random.Random(1), random.Random(1)  # noqa: S311 - no secret
    for _ in range(40):
        mutation = rng.choice(HARNESSES[name].mutations)
        assert again.choice(HARNESSES[name].mutations) is mutation
        data = mutation(seeds[0], rng)[:1_000_000]
        assert data == mutation(seeds[0], again)[:1_000_000], "a seed gives the same file again"
        assert trouble(data, ends) is None
    assert ends["refused"] > 0
