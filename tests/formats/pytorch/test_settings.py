"""The settings beside the weights, out of a pickle that is never run."""

from __future__ import annotations

from typing import Any

from normsniff.formats.pytorch.pickle_notes import Call
from normsniff.formats.pytorch.settings import settings_of


def test_a_dict_of_settings_is_kept_as_plain_values() -> None:
    saved = {"model": {}, "model_args": {"bias": False, "n_layer": 2, "name": "x", "list": [1], "fn": Call("f")}}
    assert settings_of(saved) == {"bias": False, "n_layer": 2, "name": "x"}


def test_an_object_counts_by_its_state() -> None:
    namespace = Call("argparse.Namespace", (), {"norm_type": "rmsnorm", "deeper": Call("x", (), {"a": 1})})
    assert settings_of({"args": namespace}) == {"norm_type": "rmsnorm", "deeper": {"a": 1}}


def test_a_state_dict_has_none() -> None:
    assert settings_of({"a.weight": object()}) == {}
    assert settings_of(None) == {}


def test_a_dict_that_contains_itself_ends() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    assert settings_of({"config": loop})["a"] == 1


def test_a_large_one_is_cut() -> None:
    assert len(settings_of({"config": {f"k{n}": n for n in range(10_000)}})) <= 300
