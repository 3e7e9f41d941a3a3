from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import normsniff
from calibration.scales import CORPUS, cases, corpus, held_out, likeliest, probabilities
from normsniff.checks.history import STEPS
from normsniff.checks.stored import explain, explanations, stored_as, weights
from normsniff.record import StoredScale
from normsniff.render.scale_words import stored, why
from tests.helpers.faults import CONFIG, llama, save

NOTHING = dict.fromkeys(STEPS, 0.0)


def told(state: dict[str, Any], config: Any, folder: Path) -> StoredScale:
    with normsniff.norms(save(state, config, folder / "model")) as norms:
        found = norms.stores()
    assert None not in found
    assert len({str(one) for one in found}) == 1, "all norms of a tower that have one convention are judged together"
    assert found[0] is not None
    return found[0]


def moved(number: int, kind: Any = np.float32) -> dict[str, Any]:
    return {
        key: (value.astype(kind) + kind(number)).astype(np.float32) if "norm" in key else value
        for key, value in llama(blocks=8).items()
    }


def test_a_sound_file_stores_what_its_family_does(tmp_path: Path) -> None:
    plain = told(llama(), CONFIG, tmp_path)
    assert (plain.expected, stored(plain, False), why(plain)) == ("scale", "γ", "")
    centred = told(moved(-1), {"model_type": "gemma3_text", "rms_norm_eps": 1e-6}, tmp_path)
    assert centred.expected == "scale-1"
    assert next(iter(centred.probabilities)) == "scale-1"


def test_an_addition_is_told_against_the_family(tmp_path: Path) -> None:
    found = told(moved(1), CONFIG, tmp_path)
    assert found.probabilities["scale+1"] > 0.99
    assert stored(found, False) == "γ + 1, not γ"
    assert "the family stores γ here" in why(found)


def test_where_the_values_cannot_tell_both_are_said(tmp_path: Path) -> None:
    found = told(llama(), {"model_type": "gemma3_text", "rms_norm_eps": 1e-6}, tmp_path)
    assert max(found.probabilities.values()) < 0.9, "trained from a scale of 1, or 1 added: the same values"
    assert stored(found, True) == "γ or γ − 1?"
    assert why(found).startswith("the values do not tell what is stored: γ ")


def test_a_graph_shows_what_it_multiplies_by() -> None:
    found = StoredScale(probabilities={"scale-1": 0.95, "scale": 0.05}, expected=None)
    assert (stored(found, None), why(found)) == ("γ − 1", "")
    assert stored(found, False) == "γ"
    assert why(found, False) == "the graph takes it for γ; the values are rather those of γ − 1 (95.0%)"
    unclear = StoredScale(probabilities={"scale": 0.6, "scale-1": 0.4}, expected=None)
    assert (stored(unclear, False), why(unclear, False)) == ("γ", "")


def test_nothing_is_said_of_scales_that_are_all_alike(tmp_path: Path) -> None:
    state = {key: np.ones_like(value) if "norm" in key else value for key, value in llama().items()}
    with normsniff.norms(save(state, CONFIG, tmp_path / "model")) as norms:
        assert norms.stores() == [None] * len(norms)
    assert (stored(None, True), stored(None, None), why(None)) == ("γ − 1", "γ?", "")


def test_a_record_has_it_for_every_norm(tmp_path: Path) -> None:
    record = normsniff.sniff(save(moved(1), CONFIG, tmp_path / "model"))
    assert {one.stores.expected for one in record.norms if one.stores is not None} == {"scale"}
    (found,) = [one for one in record.findings or () if one.code == "scale-offset"]
    assert found.confidence == pytest.approx(found.details["stores"]["scale+1"], abs=1e-3)
    cheap = normsniff.sniff(tmp_path / "model", evidence=("declared", "layout"))
    assert {one.stores for one in cheap.norms} == {None}


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), min_size=1, max_size=3),
    st.fixed_dictionaries({step: st.floats(-1e6, 1e6) for step in STEPS}),
    st.sampled_from([(0,), (-1,), (0, -1)]),
)
def test_probabilities_add_up(groups: list[list[float]], ratios: dict[int, float], natives: tuple[int, ...]) -> None:
    found = explain([np.array(one) for one in groups], ratios, natives)
    assert len(found) == len(explanations(natives))
    assert sum(one.probability for one in found) == pytest.approx(1)
    assert sum(stored_as(found, 0).probabilities.values()) == pytest.approx(1, abs=0.01)


def test_the_shipped_weights_hold_on_families_that_the_fit_did_not_see() -> None:
    table = weights()
    fitted = np.array([table.expected, *table.values, table.history])
    some = [one for one in corpus() if held_out(one.family)][::5]
    told = [likeliest(case, probabilities(case, fitted)) for case in cases(some)]
    said, right = (np.array([one[at] for one in told]) for at in (1, 2))
    assert right[said >= 0.99].mean() > 0.98
    assert abs(said.mean() - right.mean()) < 0.1
    assert CORPUS.stat().st_size < 300_000


def test_bfloat16_sums_of_small_values_are_not_claimed() -> None:
    small = np.random.default_rng(0).normal(0.02, 0.01, 4096).astype(ml_dtypes.bfloat16)
    summed = (small + ml_dtypes.bfloat16(1)).astype(np.float64)
    found = explain([summed], NOTHING, (0, -1))
    assert found[0].probability < 0.9
