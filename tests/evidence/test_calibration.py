"""The shipped numbers are those that the committed table gives, and the tool computes with them what the fit does."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import sys
from importlib import resources
from typing import Any

import pytest

from normsniff.evidence import features
from normsniff.evidence.features import MatrixFact
from normsniff.kernel import LearnedShadow
from tests.helpers.manifest import ROOT

TABLE = ROOT / "calibration/corpus.csv.gz"
ARCHIVE = ROOT / "calibration/spectra.jsonl.xz"
SHIPPED: dict[str, Any] = json.loads(resources.files("normsniff").joinpath("data/calibration-v1.json").read_text())
VIEWS = ("roles", "shapes")
TOO_HIGH: float = SHIPPED["chosen"]["too_high"]["value"]

needs_table = pytest.mark.skipif(not TABLE.is_file(), reason="the corpus is not shipped")


def facts(role: str, rho: float, *, n: int = 8, dispersion: float = 0.4, spread: float = 0.15) -> list[MatrixFact]:
    return [MatrixFact(role, rho, spread, dispersion, 0.05, 128)] * n


def pools(**rho: float) -> dict[str, LearnedShadow]:
    return {role: LearnedShadow(value, 8.0, 0.95, 20.0, 0.5, (4.0,), (value,)) for role, value in rho.items()}


def odds(view: str, found: dict[str, float] | None) -> float:
    assert found is not None
    fit = SHIPPED[f"kernel_{view}"]
    return features.log_odds(view, found, fit["intercept"], fit["coefficients"], fit["cap"])


@needs_table
def test_the_shipped_numbers_name_the_committed_table() -> None:
    text = gzip.decompress(TABLE.read_bytes())
    assert SHIPPED["corpus"]["sha256"] == hashlib.sha256(text).hexdigest()
    assert SHIPPED["corpus"]["rows"] == text.count(b"\n") - 1
    assert TABLE.stat().st_size < 3_000_000
    assert ARCHIVE.stat().st_size < 10_000_000
    assert SHIPPED["version"] == "1"


@needs_table
def test_the_fit_gives_the_shipped_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "calibration", raising=False)
    from calibration.shipped import contents

    again = contents(TABLE)
    assert again["corpus"] == SHIPPED["corpus"]
    for view in VIEWS:
        ours, theirs = again[f"kernel_{view}"], SHIPPED[f"kernel_{view}"]
        assert list(ours["coefficients"]) == list(theirs["coefficients"])
        assert ours["coefficients"] == pytest.approx(theirs["coefficients"], abs=2e-2)
        assert ours["intercept"] == pytest.approx(theirs["intercept"], abs=2e-2)
        assert ours["cap"] == theirs["cap"]
        assert ours["answer_from"] == pytest.approx(theirs["answer_from"], abs=0.011)


@needs_table
def test_the_counts_give_the_shipped_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the shipped facts about families can tell; the other rules need the reference tables."""
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(ROOT))
    from calibration import counts

    again = counts.shipped()
    assert len(again) > 8
    assert {name: SHIPPED["rules"][name] for name in again} == again
    found = counts.derived(SHIPPED)
    assert SHIPPED["total_cap"]["value"] == found["total_cap"]
    assert SHIPPED["chosen"]["zero_shifts"]["value"] == found["zero_shifts"]
    assert SHIPPED["chosen"]["few_shifts"]["value"] == found["few_shifts"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_coefficient_has_its_term(view: str) -> None:
    make = features.with_roles if view == "roles" else features.from_shapes
    found = make([*facts("writer", 0.5), *facts("unknown", 0.5)], 0.1)
    assert found is not None
    assert set(found) <= set(features.DESCRIPTIONS)
    assert list(features.terms(view, found)) == list(SHIPPED[f"kernel_{view}"]["coefficients"])


class TestLogOdds:
    def test_a_deeper_shadow_never_speaks_less_for_layer_norm(self) -> None:
        both = [
            odds(
                "roles", features.with_roles([*facts("writer", r), *facts("reader", r)], 0.1, pools(writer=r, reader=r))
            )
            for r in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1, 0.05)
        ]
        assert both == sorted(both)
        assert both[0] < -2
        assert both[-1] > 3
        alone = [
            odds("shapes", features.from_shapes(facts("unknown", r), 0.1, pools(unknown=r)))
            for r in (1.0, 0.8, 0.6, 0.4, 0.2)
        ]
        assert alone == sorted(alone)

    def test_untrained_weights_and_no_scale_cannot_speak_for_rms_norm(self) -> None:
        flat = [f._replace(alignment=0.0) for f in facts("writer", 1.0, dispersion=0.0)]
        assert odds("roles", features.with_roles(flat, 0.3)) >= 0
        assert odds("shapes", features.from_shapes(facts("unknown", 1.0), None)) >= 0
        assert odds("shapes", features.from_shapes(facts("unknown", 1.0), 0.1, pools(unknown=1.0))) < -1

    def test_the_cap_holds(self) -> None:
        cap = SHIPPED["kernel_roles"]["cap"]
        assert cap == pytest.approx(math.log(SHIPPED["corpus"]["runs"]), abs=0.6)
        assert odds("roles", features.with_roles([*facts("writer", 1e-3), *facts("reader", 1e-3)], 0.1)) == cap

    def test_one_side_alone_denies_softly_and_affirms_fully(self) -> None:
        both = odds(
            "roles",
            features.with_roles([*facts("writer", 1.0), *facts("reader", 1.0)], 0.2, pools(writer=1.0, reader=1.0)),
        )
        writers = odds("roles", features.with_roles(facts("writer", 1.0), 0.2, pools(writer=1.0)))
        assert both < writers < -0.5
        assert writers >= -SHIPPED["kernel_roles"]["cap"] / 3
        assert odds("roles", features.with_roles(facts("writer", 1e-2), 0.2)) > 3

    def test_few_independent_directions_count_less(self) -> None:
        sharp = features.with_roles(facts("writer", 0.5, spread=0.1), 0.1)
        blunt = features.with_roles(facts("writer", 0.5, spread=1.2), 0.1)
        assert odds("roles", sharp) > odds("roles", blunt)


def test_silence() -> None:
    divided = features.from_shapes([*facts("unknown", 0.2, n=3), *facts("unknown", 1.0, n=7)], 0.1)
    lifted = features.from_shapes(facts("unknown", 3.0), 0.1)
    plain = features.from_shapes(facts("unknown", 0.3), 0.1)
    assert divided is not None
    assert lifted is not None
    assert plain is not None
    assert features.silence(divided, TOO_HIGH) is not None
    assert features.silence(lifted, TOO_HIGH) is not None
    assert features.silence(plain, TOO_HIGH) is None
    assert features.from_shapes([], 0.1) is None
    assert features.with_roles(facts("embedding", 0.1), 0.1) is None


def test_a_zero_matrix_or_a_single_direction_is_no_shadow() -> None:
    """ρ of a matrix of one direction is below a tenth by chance in one of four."""
    found = features.with_roles(facts("writer", 0.1, spread=1.4), 0.1)
    assert found is not None
    assert found["writers_error"] > 0.4
    assert math.isfinite(odds("roles", features.with_roles(facts("writer", 0.0), 0.1)))


def test_the_spread_that_reports_show_comes_from_the_table() -> None:
    from calibration.spread import OUT, spread

    assert json.loads(OUT.read_text()) == spread()
