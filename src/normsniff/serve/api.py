"""The JSON API: a body or a name comes in, a document goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..errors import NormsniffError, SourceError, printable
from ..measure.samples import DEFAULT_BUDGET
from ..record import EVIDENCE_KINDS, EvidenceKind
from .calls import Options, Reply, answer
from .problems import Problem, problem_of
from .service import Service
from .spool import timely
from .subjects import Behind, Below, Upload, Wanted

_ASKED = 1 << 16  # bytes of a JSON body: a URL has a few hundred
_NAME = 255  # characters of a name that is shown
CLOSED = 499
"""What nginx notes where the client did not wait; nobody reads it."""

_T = TypeVar("_T")


class Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is looked at: the query of a request whose body is the file.

    Attributes:
        name: what to call the file; nothing is opened by it.
        evidence: kinds of evidence to use, by commas.
        budget: bytes of matrices to read at most.
        deep: whether a check reads matrices, too.
    """

    name: str = "upload"
    evidence: str = ",".join(EVIDENCE_KINDS)
    budget: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_BUDGET
    deep: bool = False


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that is somewhere else; one of `url` and `path`.

    Attributes:
        url: of a file or directory, on an allowed host.
        path: of a file or directory, relative to the root of the service.
        evidence: kinds of evidence to use.
        budget: bytes of matrices to read at most.
        deep: whether a check reads matrices, too.
    """

    url: str | None = None
    path: str | None = None
    evidence: tuple[EvidenceKind, ...] = EVIDENCE_KINDS
    budget: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_BUDGET
    deep: bool = False


def answering(verb: str, media_type: str, headers: dict[str, str]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a verb.

    Args:
        verb: a key of `ANSWERS`.
        media_type: of its documents.
        headers: of its answers.
    """

    async def endpoint(request: Request) -> Response:
        service: Service = request.state.service
        try:
            async with service.gate.admitted() as ticket, _about(request, service) as (subject, options):
                found: Reply | None = await _unless_gone(request, ticket.call(answer, verb, subject, options))
        except NormsniffError as error:
            raise problem_of(error) from error
        if found is None:
            return Response(status_code=CLOSED)
        if found.label:
            service.metrics.labels.labels(found.label).inc()
        service.metrics.read.inc(found.read)
        return Response(found.body, media_type=media_type, headers=headers)

    return endpoint


@asynccontextmanager
async def _about(request: Request, service: Service) -> AsyncIterator[tuple[Wanted, Options]]:
    """Return what a request is about, for as long as it is looked at."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "multipart", "the body is the file itself, not a form",
            hint="curl --data-binary @model.gguf URL",
        )  # fmt: skip
    if kind == "application/json":
        asked = _decoded(await _short(request))
        yield subject_of(service, url=asked.url, path=asked.path), options_of(asked)
        return
    look = _converted(dict(request.query_params), Look)
    evidence = tuple(part for part in look.evidence.split(",") if part)
    options = _converted({"evidence": evidence, "budget": look.budget, "deep": look.deep}, Asked)
    length = request.headers.get("content-length", "")
    body = request.stream()
    async with service.spool.holding(body, int(length) if length.isdecimal() else None) as file:
        size = file.stat().st_size
        if not size:
            raise Problem(HTTPStatus.BAD_REQUEST, "empty", "the body is empty", hint="send the bytes of a model file")
        service.metrics.uploaded.inc(size)
        yield Upload(file, _shown(look.name)), options_of(options)


def subject_of(service: Service, *, url: str | None, path: str | None) -> Wanted:
    """Return the model that a request names.

    Raises:
        Problem: it names none, or two, or one that may not be looked at.
    """
    if (url is None) == (path is None):
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-request", "name a model by one of url and path")
    if url is not None:
        try:
            service.guard.check_url(url)
        except SourceError as error:
            raise Problem(HTTPStatus.FORBIDDEN, "url-not-allowed", str(error), hint="--allow-host adds one") from error
        return Behind(url, service.guard)
    assert path is not None
    if service.settings.root is None:
        detail = "this service reads no files by their path"
        raise Problem(HTTPStatus.FORBIDDEN, "no-root", detail, hint="start it with --root DIRECTORY")
    return Below(service.settings.root.resolve(), path)


def options_of(asked: Asked) -> Options:
    """Return how a worker is to look.

    Raises:
        Problem: no kind of evidence is named.
    """
    if not asked.evidence:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-request", f"evidence names none of {', '.join(EVIDENCE_KINDS)}")
    kinds = tuple(kind for kind in EVIDENCE_KINDS if kind in asked.evidence)
    return Options(evidence=kinds, budget=asked.budget, deep=asked.deep)


def _shown(name: str) -> str:
    """Return the last part of a name, as it is shown."""
    return printable(name.replace("\\", "/").rpartition("/")[2][:_NAME]) or "upload"


async def _short(request: Request) -> bytes:
    data = bytearray()
    async for piece in timely(request.stream()):
        data += piece
        if len(data) > _ASKED:
            detail = f"a request in JSON may have {_ASKED:,} bytes"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail)
    return bytes(data)


def _decoded(data: bytes) -> Asked:
    try:
        return msgspec.json.decode(data, type=Asked)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-request", str(error)) from None


def _converted(given: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-request", str(error)) from None


async def _unless_gone(request: Request, call: Awaitable[_T]) -> _T | None:
    """Return what a call gives, or None once nobody waits for it any more."""
    work, gone = asyncio.ensure_future(call), asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        gone.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
