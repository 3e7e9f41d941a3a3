"""The page on which files are dropped, and what it is made of; all of it comes from here."""

from __future__ import annotations

from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from anywhere else, and nothing inline."""

ASSETS = {
    "/": ("normsniff.serve", "assets/index.html", "text/html"),
    "/app.css": ("normsniff.serve", "assets/app.css", "text/css"),
    "/app.js": ("normsniff.serve", "assets/app.js", "text/javascript"),
    "/icon.svg": ("normsniff.serve", "assets/icon.svg", "image/svg+xml"),
    "/report.css": ("normsniff.render.report", "page.css", "text/css"),
    "/report.js": ("normsniff.render.report", "page.js", "text/javascript"),
}
"""Route of each part: package, file and type. The report's own style and script are those of `normsniff report`."""


async def asset(request: Request) -> Response:
    """Return one part of the page."""
    package, name, media_type = ASSETS[request.url.path]
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return Response(_read(package, name), media_type=media_type, headers=headers)


@cache
def _read(package: str, name: str) -> bytes:
    return resources.files(package).joinpath(name).read_bytes()
