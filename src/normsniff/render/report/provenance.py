"""Where a page comes from: date, program, command, and the hashes of what it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from ...record import Classification, Failure
from .elements import element


@dataclass(frozen=True)
class Provenance:
    """What a page says about its own making.

    Attributes:
        made: date and time, as ISO 8601 with its zone; "" leaves it out.
        command: the command line; "" leaves it out.
        digests: SHA-256 of whole files by path, in hexadecimal.
        remark: why digests are missing, if some are.
    """

    made: str = ""
    command: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""


def foot(answers: Sequence[Classification | Failure], made: Provenance, version: str) -> Element:
    """Return the foot of a page: the chain from the verdict back to bytes and program."""
    calibrations = sorted({one.calibration for one in answers if isinstance(one, Classification)})
    facts = [("Program", f"normsniff {version}"), ("Calibration", ", ".join(calibrations))]
    facts += [("Made", made.made), ("Command", made.command), ("Remark", made.remark)]
    rows = [_fact(name, value) for name, value in facts if value]
    rows += [_fact("SHA-256 of", path, digest) for path, digest in made.digests.items()]
    rows += [
        _fact("SHA-256 of the header of", one.path or "model in memory", one.header_sha256)
        for one in answers
        if isinstance(one, Classification) and one.header_sha256
    ]
    return element("footer", element("h2", "Where this page comes from"), element("dl", *rows))


def _fact(name: str, value: str, digest: str = "") -> Element:
    code = element("code", digest) if digest else None
    return element("div", element("dt", name), element("dd", value, " " if digest else None, code))
