"""What goes wrong, as ``application/problem+json`` (RFC 9457): a status, words for people, a code for programs."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from ..errors import FormatError, LimitExceeded, MissingExtra, NormsniffError, SourceError, WorkerError
from ..json_text import writable

MEDIA_TYPE = "application/problem+json"

_KINDS: dict[type[NormsniffError], tuple[HTTPStatus, str]] = {
    FormatError: (HTTPStatus.UNPROCESSABLE_ENTITY, "format"),
    LimitExceeded: (HTTPStatus.UNPROCESSABLE_ENTITY, "limit"),
    SourceError: (HTTPStatus.UNPROCESSABLE_ENTITY, "source"),
    MissingExtra: (HTTPStatus.NOT_IMPLEMENTED, "missing-extra"),
}
_FAULT = (HTTPStatus.INTERNAL_SERVER_ERROR, "fault")
_ENDINGS = {"timeout": HTTPStatus.UNPROCESSABLE_ENTITY, "memory": HTTPStatus.UNPROCESSABLE_ENTITY}
"""A file that takes too much is the file's fault, as one over `Limits` is: to send it again would not help."""


class ProblemRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer that is none.

    Attributes:
        type: ``urn:normsniff:`` and a stable slug.
        title: of the kind of problem.
        status: of HTTP.
        detail: what is wrong, with the file and the byte or key at fault.
        hint: what to do about it, or "".
    """

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """A request that is not answered; it ends as a `ProblemRecord`."""

    def __init__(
        self, status: HTTPStatus, slug: str, detail: str, *, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}
        self.slug = slug
        self.record = ProblemRecord(
            type=f"urn:normsniff:{slug}", title=status.phrase, status=status.value, detail=writable(detail), hint=hint
        )

    def to_json(self) -> bytes:
        """Encode the body."""
        return msgspec.json.encode(self.record)


def problem_of(error: NormsniffError) -> Problem:
    """Return what an error of the library is over HTTP."""
    if isinstance(error, WorkerError):
        status = _ENDINGS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
        return Problem(status, error.code, f"the work on this input was ended: {error}", hint=error.hint)
    status, slug = next((row for kind, row in _KINDS.items() if isinstance(error, kind)), _FAULT)
    return Problem(status, error.code if isinstance(error, FormatError) else slug, str(error), hint=error.hint)
