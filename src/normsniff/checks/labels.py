"""contradiction, rewritten, tampered: what the verdict knows already, with codes."""

from __future__ import annotations

from collections.abc import Iterator

from ..record import Classification, Finding

CODES = ("contradiction", "rewritten", "tampered")


def of_record(record: Classification) -> Iterator[Finding]:
    """Yield what a record says of disagreements, rewriting and hidden shadows."""
    for one in record.contradictions:
        yield Finding(
            code="contradiction",
            severity="warning",
            component=one.component,
            norms=(),
            reason=one.statement,
            cure="find out which is wrong: the declared architecture, a stored shift, or the weights",
            details={"between": list(one.between), "strength": one.strength},
        )
    for part in record.components:
        if part.rewritten_from is not None:
            yield Finding(
                code="rewritten",
                severity="note",
                component=part.name,
                norms=(),
                reason="what writes into the stream has no mean along it, as in a"
                f" {part.rewritten_from} model that was centred after training",
                cure="none, if it was meant: as RMSNorm the model computes the same",
            )
    for evidence in record.evidence:
        if evidence.details.get("suspicious"):
            yield Finding(
                code="tampered",
                severity="warning",
                component=evidence.component,
                norms=(),
                reason=evidence.reason,
                cure="do not trust the label of this file; compare with the original",
            )
