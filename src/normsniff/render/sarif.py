"""Records and reports of checks as SARIF 2.1.0 logs, for code scanning.

The verdict is information, every finding a result, and its code a rule with its help.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._version import __version__
from ..checks.baseline import known_of
from ..checks.codes import codes
from ..checks.findings import Report
from ..checks.labels import CODES, of_record
from ..record import Classification, Failure, Finding

_LABEL = {"id": "label", "shortDescription": {"text": "Which normalisation the model uses"}}
_UNREADABLE = {"id": "unreadable", "shortDescription": {"text": "The model file could not be read"}}
_SITES = 100  # norms that a result lists


def log(answers: Sequence[Classification | Failure]) -> dict[str, Any]:
    """Return one SARIF log with a run over all answers.

    Every record gives a ``label`` result of kind *informational* and one result a finding; a file that could not be
    read is an error.
    """
    return _document([_LABEL, *_rules(), _UNREADABLE], [result for answer in answers for result in _results(answer)])


def check_log(answers: Sequence[Report | Failure]) -> dict[str, Any]:
    """Return one SARIF log with a run over all reports of checks."""
    results = [
        result
        for answer in answers
        for result in ([_unreadable(answer)] if isinstance(answer, Failure) else _found(answer.path, answer.findings))
    ]
    return _document([*_rules(), _UNREADABLE], results)


def _rules() -> list[dict[str, Any]]:
    return [
        {
            "id": row.code,
            "shortDescription": {"text": row.title},
            "help": {"text": f"{row.cause.strip()}\n\n{row.cure.strip()}", "markdown": row.page()},
            "defaultConfiguration": {"level": row.severity},
        }
        for row in codes().values()
    ]


def _document(rules: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, Any]:
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
        yield _unreadable(answer)
        return
    sure = f", {answer.confidence:.1%} sure" if answer.confidence is not None else ""
    verdict: dict[str, Any] = {"ruleId": "label", "level": "none", "message": {"text": f"{answer.label}{sure}"}}
    verdict |= _place(answer.path)
    if answer.header_sha256:
        verdict["partialFingerprints"] = {"headerSha256/v1": answer.header_sha256}
    verdict["kind"] = "informational"
    verdict["properties"] = {
        "label": answer.label,
        "confidence": answer.confidence,
        "format": answer.format,
        "architecture": answer.architecture,
        "components": {part.name: part.label for part in answer.components},
    }
    yield verdict
    yield from _found(answer.path, of_record(answer))  # also where nothing else was looked for
    yield from _found(answer.path, [one for one in answer.findings or () if one.code not in CODES])


def _found(path: str | None, findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    for one in findings:
        known = known_of(path or "", one)
        place = _place(path)
        if one.norms:
            sites = [{"fullyQualifiedName": name, "kind": "member"} for name in one.norms[:_SITES]]
            place = {"locations": [{**where, "logicalLocations": sites} for where in place.get("locations", [{}])]}
        yield {
            "ruleId": one.code,
            "level": one.severity,
            "message": {"text": f"{one.reason}. {one.cure}"},
            **place,
            "partialFingerprints": {"finding/v1": hashlib.sha256(repr(known).encode()).hexdigest()},
            "properties": {"component": one.component, "confidence": one.confidence, **one.details},
        }


def _unreadable(answer: Failure) -> dict[str, Any]:
    message = {"text": answer.error.message}
    return {"ruleId": "unreadable", "level": "error", "message": message, **_place(answer.path)}


def _place(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    return {"locations": [{"physicalLocation": {"artifactLocation": {"uri": uri_of(path)}}}]}


def uri_of(path: str) -> str:
    """Return a URI as SARIF wants it: URLs as they are, absolute paths as file URIs, others relative."""
    if "://" in path:
        return path
    local = Path(path)
    return local.as_uri() if local.is_absolute() else quote(local.as_posix())
