"""Records go out and come back, compare by what they say, and show themselves in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import normsniff
from normsniff import Classification, Failure, Plan, Report
from normsniff.record import SCHEMA_VERSION, Duplicate, Written
from tests.helpers.manifest import FIXTURES

MODEL = FIXTURES / "gpt2-ln.Q8_0.gguf"


@pytest.fixture(scope="module")
def record() -> Classification:
    return normsniff.sniff(MODEL)


def all_kinds() -> list[Written]:
    return [
        normsniff.sniff(MODEL),
        normsniff.check(MODEL),
        normsniff.plan(MODEL),
        next(normsniff.track(MODEL)),
        Failure.of("a.gguf", ValueError("no")),
        Duplicate(path="a", duplicate_of="b", content_id="00"),
    ]


@pytest.mark.parametrize("one", all_kinds(), ids=lambda one: type(one).__name__)
def test_every_kind_comes_back_as_it_was(one: Written) -> None:
    line = one.to_json()
    assert type(one).from_json(line) == one
    assert type(one).from_json(line.decode()) == one
    assert one.to_dict() == json.loads(line)
    assert msgspec.convert(one.to_dict(), type(one)) == one
    assert "\n" not in repr(one)
    assert len(repr(one)) < 300
    assert repr(one).startswith(type(one).__name__ + "(path=")


def test_how_long_it_took_is_not_what_it_says(record: Classification) -> None:
    later = msgspec.structs.replace(record, seconds=99.0)
    assert later == record
    assert msgspec.structs.replace(record, label="RMSNorm") != record
    assert record != Failure.of("a", ValueError())
    assert record != "record"
    with pytest.raises(TypeError):
        hash(record)


def test_what_a_newer_version_adds_is_left_out(record: Classification) -> None:
    newer = record.to_dict() | {"schema_version": "1.99", "tool_version": "9.9", "mood": {"a": [1]}}
    found = Classification.from_json(json.dumps(newer))
    assert (found.label, found.tool_version) == (record.label, "9.9")


def test_what_an_older_version_did_not_write_is_unknown(record: Classification) -> None:
    older = {key: value for key, value in record.to_dict().items() if key not in ("findings", "account", "next_steps")}
    assert Classification.from_json(json.dumps(older | {"schema_version": "1.0"})).account is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema_version": "2.0"}, "a record of schema 2.0: this version reads 1.x"),
        ({"schema_version": "new"}, "a record of schema new"),
        ({"schema_version": 1}, "schema_version"),
        ({"label": "BatchNorm"}, "Invalid enum value 'BatchNorm'"),
        ({"label": "BatchNorm", "schema_version": "1.99", "tool_version": "9.9"}, "written by normsniff 9.9"),
        ({"norms": None}, "norms"),
    ],
)
def test_another_schema_is_refused_in_so_many_words(
    record: Classification, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Classification.from_json(json.dumps(record.to_dict() | changed))


@pytest.mark.parametrize("line", ["", "null", "[]", "{}", "{", b"\xff", "[" * 100_000, '{"path": "\\ud800"}'])
def test_what_is_no_record_is_a_value_error(line: str | bytes) -> None:
    with pytest.raises(ValueError, match="no Classification as JSON"):
        Classification.from_json(line)


def test_a_failure_is_no_classification() -> None:
    with pytest.raises(ValueError, match="no Classification as JSON"):
        Classification.from_json(Failure.of("a", ValueError("x")).to_json())


@pytest.mark.parametrize("line", [5, None, ["{}"], {}])
def test_what_is_no_text_is_a_type_error(line: Any) -> None:
    with pytest.raises(TypeError):
        Classification.from_json(line)


@given(st.text(max_size=30) | st.binary(max_size=30))
def test_any_text_is_a_record_or_a_value_error(line: str | bytes) -> None:
    with pytest.raises(ValueError, match="Duplicate"):
        Duplicate.from_json(line)


def test_a_report_names_its_codes_and_a_plan_its_cost(tmp_path: Path) -> None:
    assert "codes=[]" in repr(normsniff.check(MODEL))
    assert isinstance(normsniff.check(MODEL), Report)
    assert "least_bytes=" in repr(normsniff.plan(MODEL))
    assert isinstance(normsniff.plan(MODEL), Plan)
    assert SCHEMA_VERSION.startswith("1.")
