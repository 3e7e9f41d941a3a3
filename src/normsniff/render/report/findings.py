"""What is wrong with the norms of a model, on the page."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ...record import SEVERITIES, Classification, Finding
from ...words import amount
from .elements import element


def findings_of(findings: Sequence[Finding] | None) -> Element | None:
    """Return a section with all findings, gravest first; None where they were not looked for."""
    if findings is None:
        return None
    head = element("h3", "What is wrong with the norms")
    if not findings:
        return element("section", head, element("p", "Nothing was found.", class_="facts"), class_="findings")
    items = (
        element(
            "li",
            element("span", one.severity, class_=f"chip {one.severity}"),
            " ",
            element("strong", one.code),
            f": {one.reason}.",
            element("p", f"At {one.where}", class_="facts") if one.norms else None,
            element("p", f"What to do: {one.cure}.", class_="facts"),
        )
        for one in findings
    )
    return element("section", head, element("ul", *items), class_="findings")


def counts_of(record: Classification) -> str:
    """Return in words how many errors and warnings there are, behind a comma; "" for none."""
    counts = ((record.count(severity), severity) for severity in SEVERITIES if severity != "note")
    return "".join(f", {amount(n, severity)}" for n, severity in counts if n)
