"""Records always encode and decode, and no input loses its row, whatever its file says and however it is spelled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import normsniff
from normsniff import json_text
from normsniff.batch.identity import identity_of
from normsniff.cli import cli
from normsniff.record import Classification
from tests.helpers.manifest import FIXTURES

LN = FIXTURES / "gpt2-ln"
HALF = "\ud800"


def scanned(tmp_path: Path, *inputs: str) -> list[dict[str, Any]]:
    listed, output = tmp_path / "inputs.txt", tmp_path / "out.jsonl"
    listed.write_bytes(b"".join(os.fsencode(one) + b"\n" for one in inputs))
    CliRunner().invoke(cli, ["scan", str(listed), "-o", str(output), "-j", "1"], catch_exceptions=False)
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": HALF},
        {"architectures": [HALF]},
        {"text_config": {HALF: 1, "model_type": HALF}},
        {f"{HALF}_layer_norm_eps": 1e-5},
        {"model_type": 3},
        {"architectures": [{"a": 1}]},
        {"model_type": 10**30, "hidden_size": 10**30, "rms_norm_eps": 1e-5},
    ],
)
def test_a_configuration_poisons_no_record(config: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(LN, tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    record = normsniff.sniff(tmp_path / "model")
    assert msgspec.json.decode(record.to_json(), type=Classification) == record
    rows = scanned(tmp_path, str(tmp_path / "model"), str(FIXTURES / "llama-rms"))
    assert sorted(row.get("label", "") for row in rows) == sorted([record.label, "RMSNorm"])


def test_keras_metadata_poisons_no_record(tmp_path: Path) -> None:
    for name, attribute, value in (("a.h5", "keras_version", 3), ("b.h5", "model_config", json.dumps({HALF: HALF}))):
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs[attribute] = value
            file["layers/dense/vars/0"] = np.ones((4, 4), "f4")
    rows = scanned(tmp_path, *(str(tmp_path / name) for name in ("a.h5", "b.h5")), str(LN))
    assert len(rows) == 3
    assert sum("error" in row for row in rows) == 0
    CliRunner().invoke(cli, ["--json", str(tmp_path / "a.h5"), str(tmp_path / "b.h5")], catch_exceptions=False)


@given(st.recursive(st.none() | st.floats(allow_nan=False) | st.text(st.characters()), st.lists, max_leaves=8))
def test_json_of_files_can_always_be_written_again(value: Any) -> None:
    decoded = json_text.decode(json.dumps({"a": value, str(value): 1}), "a test")
    assert msgspec.json.encode(decoded)


def test_inputs_that_are_spelled_alike_have_a_row_each(tmp_path: Path) -> None:
    one, other = tmp_path / "\udcff.gguf", tmp_path / "\\xff.gguf"  # the byte 0xff, and its escape as a name
    shutil.copy(FIXTURES / "gpt2-ln.Q8_0.gguf", one)
    shutil.copy(FIXTURES / "llama-rms.Q8_0.gguf", other)
    rows = scanned(tmp_path, str(one), str(other), str(one))
    assert sorted(row["label"] for row in rows) == ["LayerNorm", "RMSNorm"]
    assert len({row["path"] for row in rows}) == 1


def test_urls_that_differ_in_their_query_have_a_row_each(tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:9/a.gguf?sig={n}" for n in (1, 2)]
    rows = scanned(tmp_path, *urls, urls[0])
    assert [row["path"] for row in rows] == ["http://127.0.0.1:9/a.gguf?sig=…"] * 2


def test_a_record_that_is_equal_is_not_unequal() -> None:
    record = normsniff.sniff(LN)
    again = msgspec.json.decode(record.to_json(), type=Classification)
    assert again == record
    assert not again != record  # noqa: SIM202 - the other operator is meant
    assert msgspec.structs.replace(record, label="none") != record


def test_an_identity_is_of_bytes() -> None:
    assert identity_of("a") == identity_of(Path("a"))
    spelled = [identity_of(one) for one in ("\udcff", "\\xff", HALF, "a?b=1")]
    assert len({one.key for one in spelled}) == 4
    assert all(one.spelling.encode() for one in spelled)
