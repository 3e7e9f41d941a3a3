"""The budget of one answer: what is counted, when it ends, and that it is the same on every machine."""

from __future__ import annotations

import contextlib

import pytest

import normsniff
from normsniff import meter
from normsniff.errors import BudgetSpent, LimitExceeded
from normsniff.limits import Limits
from normsniff.meter import metered
from tests.helpers.manifest import FIXTURES


def test_work_beyond_the_budget_ends_with_what_was_being_done() -> None:
    with metered("a.gguf", Limits(steps=10)):
        meter.charge(10, "reading names")
        with pytest.raises(BudgetSpent, match=r"a\.gguf: steps of work \(reading names\) 11 is over the limit of 10"):
            meter.charge(1, "reading names")


def test_memory_is_counted_while_it_is_held() -> None:
    with metered("a", Limits(held_bytes=10)):
        for _ in range(3):
            meter.hold(8, "blocks")
            meter.hold(-8, "blocks")
        meter.hold(8, "vectors")
        with pytest.raises(LimitExceeded, match=r"bytes held in memory \(vectors\) 11 is over the limit of 10"):
            meter.hold(3, "vectors")


def test_memory_that_a_block_takes_is_given_back_even_if_it_was_too_much() -> None:
    with metered("a", Limits(held_bytes=10)) as one:
        for nbytes in (8, 8, 11, 8):
            with contextlib.suppress(BudgetSpent), meter.held(nbytes, "decoding"):
                assert one.held == nbytes == 8
        assert one.held == 0


def test_the_default_grows_with_the_files_up_to_a_cap() -> None:
    def most(size: int) -> int:
        with metered("a", Limits()):
            meter.grow(size)
            with pytest.raises(BudgetSpent) as caught:
                meter.charge(1 << 60, "")
        return caught.value.limit

    assert most(0) == 800_000
    assert most(4_000_000) == 1_800_000
    assert most(1 << 40) == 6_000_000


def test_what_the_caller_wants_read_is_paid_for_however_large_it_is() -> None:
    with metered("m", Limits()):
        meter.grow(10**12)
        meter.charge(6_000_000, "reading")
        meter.ask(10**9)
        meter.charge(10**8, "reading")
        with pytest.raises(BudgetSpent):
            meter.charge(1, "reading")


@pytest.mark.parametrize(("budget", "share"), [(None, 1), ("1GB", 1), ("33MB", 1), (32_000_000, 0), (1_000, 0)])
def test_whole_matrices_are_asked_for_by_the_size_of_the_file(
    budget: int | str | None, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(meter.Meter, "ask", lambda _self, size: asked.append(size))
    path = FIXTURES / "llama-rms.Q8_0.gguf"
    normsniff.sniff(path, budget=budget)
    assert asked == [path.stat().st_size] * share


def test_a_budget_of_the_caller_does_not_grow() -> None:
    with metered("a", Limits(steps=5)):
        meter.grow(1 << 40)
        with pytest.raises(BudgetSpent):
            meter.charge(6, "")


def test_blocks_inside_count_for_themselves_and_outside_nothing_counts() -> None:
    meter.charge(1 << 60, "")
    meter.hold(1 << 60, "")
    assert list(meter.counted(range(3), "")) == [0, 1, 2]
    with metered("a", Limits(steps=5)) as outer:
        meter.charge(3, "")
        with metered("b", Limits(steps=5)):
            meter.charge(5, "")
        assert outer.steps == 3
        meter.charge(2, "")


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1000])
def test_a_counted_loop_costs_its_turns(n: int) -> None:
    with metered("a", Limits()) as counts:
        assert len(list(meter.counted(range(n), "", 3))) == n
    assert counts.steps == 3 * n


def test_a_counted_loop_without_end_ends() -> None:
    with metered("a", Limits(steps=1000)), pytest.raises(BudgetSpent):
        for _ in meter.counted(iter(int, 1), "waiting"):
            pass
