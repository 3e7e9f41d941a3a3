"""Records as a SARIF 2.1.0 log, for code scanning: the verdict as information, what to look into as findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._version import __version__
from ..record import Classification, Failure

_RULES = {
    "label": "Which normalisation the model uses",
    "contradiction": "Two kinds of evidence about the normalisation disagree",
    "rewritten": "A LayerNorm model was rewritten into RMSNorm form",
    "suspicious": "Weights look as if the trace of LayerNorm had been hidden",
    "unreadable": "The model file could not be read",
}


def log(answers: Sequence[Classification | Failure]) -> dict[str, Any]:
    """Return one SARIF log with a run over all answers.

    Every record gives a ``label`` result of kind *informational*; contradictions and suspicious weights are warnings,
    a rewritten model a note, a file that could not be read an error.
    """
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.items()]
    return document(rules, [result for answer in answers for result in _results(answer)])


def document(rules: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a SARIF log with one run of normsniff."""
    return {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "normsniff",
                        "semanticVersion": __version__,
                        "informationUri": "https://github.com/normsniff/normsniff",
                        "rules": rules,
                    }
                },
                "results": results,
            }
        ],
    }


def _results(answer: Classification | Failure) -> Iterator[dict[str, Any]]:
    if isinstance(answer, Failure):
        yield _result(answer, "unreadable", "error", answer.error.message)
        return
    sure = f", {answer.confidence:.1%} sure" if answer.confidence is not None else ""
    verdict = _result(answer, "label", "none", f"{answer.label}{sure}")
    verdict["kind"] = "informational"
    verdict["properties"] = {
        "label": answer.label,
        "confidence": answer.confidence,
        "format": answer.format,
        "architecture": answer.architecture,
        "components": {part.name: part.label for part in answer.components},
    }
    yield verdict
    for contradiction in answer.contradictions:
        found = _result(answer, "contradiction", "warning", contradiction.statement)
        found["properties"] = {"between": list(contradiction.between), "strength": contradiction.strength}
        yield found
    for one in answer.evidence:
        if one.details.get("suspicious"):
            yield _result(answer, "suspicious", "warning", one.reason)
    if answer.rewritten_from:
        yield _result(answer, "rewritten", "note", f"the writers of a {answer.rewritten_from} model were centred")


def _result(answer: Classification | Failure, rule: str, level: str, text: str) -> dict[str, Any]:
    result: dict[str, Any] = {"ruleId": rule, "level": level, "message": {"text": text}}
    if answer.path is not None:
        result["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": uri_of(answer.path)}}}]
    if isinstance(answer, Classification) and answer.header_sha256:
        result["partialFingerprints"] = {"headerSha256/v1": answer.header_sha256}
    return result


def uri_of(path: str) -> str:
    """Return a URI as SARIF wants it: URLs as they are, absolute paths as file URIs, others relative."""
    if "://" in path:
        return path
    local = Path(path)
    return local.as_uri() if local.is_absolute() else quote(local.as_posix())
