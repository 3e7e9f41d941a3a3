"""SARIF and CycloneDX: valid by their published schemas, and holding what was found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import normsniff
from normsniff.cli import cli
from normsniff.record import Classification, ErrorDetail, Failure
from normsniff.render.cyclonedx import bom
from normsniff.render.sarif import log
from tests.helpers.manifest import FIXTURES

SARIF_SCHEMA = Path(__file__).parent / "schemas" / "sarif-2.1.0-rtm.5.json"
FAILURE = Failure(
    tool_version="0",
    path="/lake/a b.gguf",
    error=ErrorDetail(type="FormatError", code="truncated", message="the file ends at 7", hint=""),
)


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    """Return the record of a LayerNorm model whose configuration claims Llama."""
    model = tmp_path_factory.mktemp("liar")
    shutil.copy(FIXTURES / "gpt2-ln" / "model.safetensors", model)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "rms_norm_eps": 1e-5}))
    record = normsniff.sniff(model)
    assert record.contradictions
    return record


def findings(*answers: Classification | Failure) -> list[dict[str, Any]]:
    document = log(answers)
    jsonschema.Draft4Validator(json.loads(SARIF_SCHEMA.read_text())).validate(document)
    results: list[dict[str, Any]] = document["runs"][0]["results"]
    return results


def components(*answers: Classification | Failure) -> list[dict[str, Any]]:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    document = bom(answers)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    found: list[dict[str, Any]] = document["components"]
    return found


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("normsniff:"): one["value"] for one in component["properties"]}


class TestSarif:
    def test_a_contradiction_is_a_warning_with_its_words(self, liar: Classification) -> None:
        found = {one["ruleId"]: one for one in findings(liar)}
        assert found["contradiction"]["level"] == "warning"
        texts = [one["message"]["text"] for one in findings(liar) if one["ruleId"] == "contradiction"]
        assert len(texts) == len(liar.contradictions)
        assert all(text.startswith(one.statement) for text, one in zip(texts, liar.contradictions, strict=True))
        assert found["label"]["kind"] == "informational"
        assert found["label"]["properties"]["label"] == liar.label

    def test_a_plain_model_has_no_finding(self) -> None:
        (only,) = findings(normsniff.sniff(FIXTURES / "llama-rms.Q8_0.gguf"))
        assert only["message"]["text"].startswith("RMSNorm, 9")

    def test_what_forensics_found(self, liar: Classification) -> None:
        hidden = replace(liar.evidence[-1], details={"suspicious": True})
        parts = [replace(liar.components[0], rewritten_from="LayerNorm")]
        found = findings(replace(liar, rewritten_from="LayerNorm", components=parts, evidence=[hidden]))
        levels = {one["ruleId"]: one["level"] for one in found}
        assert levels["tampered"] == "warning"
        assert levels["rewritten"] == "note"

    def test_findings_are_results_with_their_norms(self) -> None:
        record = normsniff.sniff(FIXTURES / "random-ln")
        _, only = findings(record)
        assert (only["ruleId"], only["level"]) == ("untrained", "warning")
        sites = only["locations"][0]["logicalLocations"]
        assert [site["fullyQualifiedName"] for site in sites] == [norm.name for norm in record.norms]
        findings(replace(record, path=None))

    def test_an_unreadable_file_is_an_error_at_a_valid_uri(self) -> None:
        (only,) = findings(FAILURE)
        assert (only["ruleId"], only["level"]) == ("unreadable", "error")
        assert only["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///lake/a%20b.gguf"

    @pytest.mark.parametrize("path", ["s3://bucket/a.gguf", "models/ä #1.onnx", None])
    def test_any_path_gives_a_valid_document(self, liar: Classification, path: str | None) -> None:
        findings(replace(liar, path=path))


class TestCycloneDx:
    def test_the_label_is_a_property(self, liar: Classification) -> None:
        (component,) = components(liar)
        assert component["type"] == "machine-learning-model"
        assert properties(component)["normalisation"] == liar.label
        assert properties(component)["contradiction"] == liar.contradictions[-1].statement

    def test_towers_are_told_apart(self, liar: Classification) -> None:
        towers = [replace(liar.components[0], name=name, label="RMSNorm") for name in ("text", "vision")]
        (component,) = components(replace(liar, components=towers))
        assert properties(component)["normalisation:vision"] == "RMSNorm"

    def test_an_unreadable_file_says_why(self) -> None:
        (component,) = components(FAILURE)
        assert properties(component)["error"] == "the file ends at 7"


@pytest.mark.parametrize(("form", "key"), [("sarif", "runs"), ("cyclonedx", "components")])
def test_the_command_prints_one_document_for_all_inputs(form: str, key: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    good = str(FIXTURES / "llama-rms.Q8_0.gguf")
    result = CliRunner().invoke(cli, ["--format", form, good, str(broken), good])
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    rows = document["runs"][0]["results"] if form == "sarif" else document[key]
    assert len(rows) == 3
