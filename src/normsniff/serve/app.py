"""The application: routes, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute

from .api import CLOSED, answering
from .doors import Doors, response_of
from .front import ASSETS, asset
from .openapi import description
from .problems import Problem
from .service import Service, running
from .session import session
from .settings import Settings

_REPORT_POLICY = "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

VERBS = {
    "sniff": ("application/json", {}),
    "check": ("application/json", {}),
    "plan": ("application/json", {}),
    "report": ("text/html", {"Content-Security-Policy": _REPORT_POLICY}),
}
"""What each verb answers with, and further headers."""


def application(settings: Settings) -> Starlette:
    """Return the service; its workers live as long as its lifespan."""
    routes = [
        *(Route(f"/v1/{verb}", answering(verb, *VERBS[verb]), methods=["POST"]) for verb in VERBS),
        Route("/healthz", _health),
        Route("/readyz", _readiness),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
        *(Route(path, asset) for path in ASSETS),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Service]]:
        async with running(settings) as service:
            yield {"service": service}

    paths = frozenset(route.path for route in routes)
    return Starlette(
        routes=[*routes, WebSocketRoute("/session", session)],
        lifespan=lifespan,
        middleware=[Middleware(Doors, names=settings.names, routes=paths)],
        exception_handlers={
            Problem: _problem,
            HTTPException: _http_problem,
            ClientDisconnect: _gone,
            Exception: _fault,
        },
    )


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _readiness(request: Request) -> Response:
    gate = request.state.service.gate
    full = gate.inside >= gate.limit
    return JSONResponse({"status": "full" if full else "ready", "inside": gate.inside}, 503 if full else 200)


async def _metrics(request: Request) -> Response:
    metrics = request.state.service.metrics
    return Response(metrics.text(), headers={"Content-Type": metrics.media_type})


async def _openapi(_: Request) -> Response:
    return JSONResponse(description())


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    request.state.service.metrics.problems.labels(error.slug).inc()
    return response_of(error)


async def _gone(_request: Request, _: Exception) -> Response:
    return Response(status_code=CLOSED)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {status.description or status.phrase}"
    problem = Problem(
        status, "http", detail, hint="/openapi.json says what there is", headers=dict(error.headers or {})
    )
    return await _problem(request, problem)


async def _fault(request: Request, _: Exception) -> Response:
    detail = "a fault of this service; its log says more"
    return await _problem(request, Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "fault", detail))
