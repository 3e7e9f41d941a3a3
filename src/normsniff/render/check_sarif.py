"""Reports of checks as a SARIF 2.1.0 log: every code a rule with its help, every finding a result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from ..checks.baseline import known_of
from ..checks.codes import codes
from ..checks.findings import Report
from ..record import Failure
from .sarif import document, uri_of

_UNREADABLE = {"id": "unreadable", "shortDescription": {"text": "The model file could not be read"}}


def check_log(answers: Sequence[Report | Failure]) -> dict[str, Any]:
    """Return one SARIF log with a run over all answers."""
    rules = [
        {
            "id": row.code,
            "shortDescription": {"text": row.title},
            "help": {"text": f"{row.cause.strip()}\n\n{row.cure.strip()}", "markdown": row.page()},
            "defaultConfiguration": {"level": row.severity},
        }
        for row in codes().values()
    ]
    return document([*rules, _UNREADABLE], [result for answer in answers for result in _results(answer)])


def _results(answer: Report | Failure) -> Iterator[dict[str, Any]]:
    place = {"physicalLocation": {"artifactLocation": {"uri": uri_of(answer.path)}}}
    if isinstance(answer, Failure):
        yield {
            "ruleId": "unreadable", "level": "error", "message": {"text": answer.error.message}, "locations": [place]
        }  # fmt: skip
        return
    for one in answer.findings:
        known = known_of(answer, one)
        sites = [{"fullyQualifiedName": name, "kind": "member"} for name in one.norms[:100]]
        yield {
            "ruleId": one.code,
            "level": one.severity,
            "message": {"text": f"{one.reason}. {one.cure}"},
            "locations": [{**place, **({"logicalLocations": sites} if sites else {})}],
            "partialFingerprints": {"finding/v1": hashlib.sha256(repr(known).encode()).hexdigest()},
            "properties": {"component": one.component, "confidence": one.confidence, **one.details},
        }
