"""What every request passes: the name it calls us by, the page it comes from, and the headers of its answer.

A page anywhere may have a browser send requests to a service on loopback. It can read no answer, unless a name of its
own leads to our address (DNS rebinding), and a WebSocket asks no leave at all. So a request calls us ``localhost``, by
address, or by a name that was given; and what a browser sends comes from a page of ours.
"""

from __future__ import annotations

import ipaddress
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import MEDIA_TYPE, Problem

POLICY = "default-src 'none'; frame-ancestors 'none'"
"""What an answer may load that is no page: nothing."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
}
_FORBIDDEN = 1008  # the code with which a WebSocket is closed for a reason of policy


class Doors:
    """Checks, counts and signs what comes and goes."""

    def __init__(self, app: ASGIApp, *, names: tuple[str, ...], routes: frozenset[str]) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            names: by which we may be called, beside ``localhost`` and addresses.
            routes: paths that are counted under their own name.
        """
        self._app = app
        self._names = frozenset(name.lower() for name in ("localhost", *names))
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        problem = self._objection(scope)
        if scope["type"] == "websocket":
            if problem is not None:
                await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": problem.slug})
                return
            await self._app(scope, receive, send)
            return
        answer = self._app if problem is None else response_of(problem)
        await answer(scope, receive, self._signing(scope, send))

    def _objection(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            detail = f"this service does not go by the name {host[:100]!r}"
            return Problem(HTTPStatus.MISDIRECTED_REQUEST, "unknown-name", detail, hint="start it with --server-name")
        origin = headers.get("origin")
        asks = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if asks and (origin is not None or scope["type"] == "websocket") and _authority(origin or "") != host.lower():
            return Problem(HTTPStatus.FORBIDDEN, "foreign-origin", "the request comes from a page of somebody else")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
            return name in self._names or ipaddress.ip_address(name) is not None
        except ValueError:
            return False

    def _signing(self, scope: Scope, send: Send) -> Send:
        """Return what adds our headers to an answer, and counts it."""
        begun = time.monotonic()
        route = scope["path"] if scope["path"] in self._routes else "other"
        metrics: Metrics = scope["state"]["service"].metrics

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                metrics.seconds.labels(route).observe(time.monotonic() - begun)

        return signed


def response_of(problem: Problem) -> Response:
    """Return the answer that a problem is."""
    return Response(problem.to_json(), problem.status.value, problem.headers, MEDIA_TYPE)


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
