"""Records as a CycloneDX 1.6 ML-BOM: one machine-learning-model component a record."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from .._version import __version__
from ..record import Classification, Failure


def bom(answers: Sequence[Classification | Failure]) -> dict[str, Any]:
    """Return one bill of materials. A file that could not be read is a component whose property says why."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "tools": {"components": [{"type": "application", "name": "normsniff", "version": __version__}]},
        },
        "components": [_component(number, answer) for number, answer in enumerate(answers)],
    }


def _component(number: int, answer: Classification | Failure) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model-{number}",
        "name": PurePath(answer.path).name if answer.path else "(in memory)",
        "properties": [{"name": f"normsniff:{name}", "value": str(value)} for name, value in _properties(answer)],
    }
    if isinstance(answer, Classification) and answer.architecture:
        component["modelCard"] = {"modelParameters": {"modelArchitecture": answer.architecture}}
    return component


def _properties(answer: Classification | Failure) -> Iterator[tuple[str, Any]]:
    """Yield the questions that a reader of a bill asks; what was not computed is left out."""
    if answer.path:
        yield "path", answer.path
    if isinstance(answer, Failure):
        yield "error", answer.error.message
        return
    yield "normalisation", answer.label
    facts = {
        "confidence": answer.confidence,
        "rewritten_from": answer.rewritten_from,
        "format": answer.format,
        "d_model": answer.d_model,
        "header_sha256": answer.header_sha256,
        "calibration": answer.calibration,
    }
    yield from ((name, value) for name, value in facts.items() if value is not None)
    if len(answer.components) > 1:
        for part in answer.components:
            yield f"normalisation:{part.name}", part.label
    for contradiction in answer.contradictions:
        yield "contradiction", contradiction.statement
