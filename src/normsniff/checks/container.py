"""disguised, dangerous-pickle: what the file itself is, whatever its norms are."""

from __future__ import annotations

from collections.abc import Iterator

from ..record import Finding
from .subject import Subject

_CURES = {
    "disguised": "name it by its content, and ask who named it otherwise",
    "dangerous-pickle": "do not load it; take a safetensors copy from somebody you trust",
}


def find(subject: Subject) -> Iterator[Finding]:
    """Yield the alarms of the reader."""
    component = next(iter(subject.anatomy.widths), "main")
    for alarm in subject.checkpoint.alarms:
        yield Finding(
            code=alarm.code,
            severity="error" if alarm.grave else "warning",
            component=component,
            norms=(),
            reason=alarm.what,
            cure=_CURES[alarm.code],
        )
