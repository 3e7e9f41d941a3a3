"""Files made to cost: each ends after work in proportion to the budget, counted in lines of Python that run."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from pathlib import Path

import pytest

from normsniff import sniff
from normsniff.errors import BudgetSpent, NormsniffError
from normsniff.limits import Limits
from tests.helpers.costly_files import FILES, copies, norms, ranks
from tests.helpers.lines import lines_run
from tests.helpers.manifest import FIXTURES

STEPS = 30_000
STEPS_OF = {"pooled_blocks": 300_000, "averaged_blocks": 300_000, "fused_chain": 100_000}
"""Of those that are read for more steps before the costly part begins."""
LINES_A_STEP = 12  # at most; a step is a microsecond, in which about ten lines run
BEFORE = 60_000  # lines that run whatever a file holds: tables are loaded, patterns compiled


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    sniff(FIXTURES / "gpt2-ln")  # what is imported and compiled once is not a file's doing
    for make in (ranks, norms, copies):
        with pytest.raises(BudgetSpent):
            sniff(make(), limits=Limits(steps=1_000))


@pytest.mark.parametrize("name", FILES)
def test_work_ends_with_the_budget(name: str) -> None:
    data, steps = FILES[name](), STEPS_OF.get(name, STEPS)
    answers: list[object] = []

    def work() -> None:
        try:
            answers.append(sniff(data, limits=Limits(steps=steps)))
        except NormsniffError as error:
            answers.append(error)

    assert lines_run(work) < BEFORE + LINES_A_STEP * steps, answers
    assert len(str(answers[0])) < 1_000_000


@pytest.mark.parametrize("name", FILES)
def test_by_default_every_one_is_answered_or_refused(name: str) -> None:
    with contextlib.suppress(NormsniffError):
        assert sniff(FILES[name]()).label in ("LayerNorm", "RMSNorm", "mixed", "none", "undetermined")


@pytest.mark.parametrize("name", FILES)
def test_memory_ends_with_the_budget(name: str) -> None:
    data = FILES[name]()
    tracemalloc.start()
    try:
        with contextlib.suppress(NormsniffError):
            sniff(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 150_000_000


def test_a_configuration_beside_the_file_counts(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(norms())
    (tmp_path / "config.json").write_text("[" * 40 + "[],{},0," * 1_800_000 + "0" + "]" * 40)
    with pytest.raises(BudgetSpent, match="decoding the configuration"):
        sniff(tmp_path)


def test_shards_that_are_not_there_count(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(norms())
    weight_map = {f"t{i}": f"b{i}.safetensors" for i in range(15_000)} | {"t": "a.safetensors"}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BudgetSpent, match="looking for shards"):
        sniff(tmp_path / "m.safetensors.index.json")
