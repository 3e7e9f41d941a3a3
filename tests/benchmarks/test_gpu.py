"""The benchmark of a GPU with the CPU in its place: that it runs, and that it notices a difference."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu, synthetic


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthetic.LLAMAS, "8 GB", (2, 128, 256, 500))


def test_it_runs_and_agrees_with_itself() -> None:
    found = gpu.run("8 GB", stand_in=True)
    assert found["agrees"]
    assert found["stand_in"]
    assert found["whole"]["matrices"] > 4
    assert json.loads(json.dumps(found)) == found


def test_a_wrong_number_on_the_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "_namespaces", lambda _: [("off", lambda array: 1.01 * torch.asarray(array) ** 1.01)])
    monkeypatch.setattr(gpu, "_REAL", ())
    assert not gpu.run("8 GB", stand_in=True)["agrees"]


def test_a_step_that_the_time_left_would_not_carry_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_LIMIT", 40.0)
    monkeypatch.setattr(gpu, "_REAL", ())
    assert "left out" in gpu.run("8 GB", stand_in=True)["whole"]
