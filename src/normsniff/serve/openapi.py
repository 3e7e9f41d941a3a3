"""The description of the API (OpenAPI 3.1), its schemas made from the types that are encoded."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from .._version import __version__
from ..checks.findings import Report
from ..measure.plan import Plan
from ..record import Classification
from .api import Asked, Look
from .problems import MEDIA_TYPE, ProblemRecord

_VERBS: dict[str, tuple[str, str, type | None]] = {
    "sniff": ("Label a model: LayerNorm or RMSNorm, how sure, and why.", "The record.", Classification),
    "check": ("Find what is wrong with the norms of a model.", "All findings.", Report),
    "plan": ("Say what a label would read of a model.", "Byte ranges, in order.", Plan),
    "report": ("Show the evidence as a page of HTML.", "A page that needs nothing from outside.", None),
}
_PROBLEMS = {
    "400": "The request is not one.",
    "403": "The URL or path may not be looked at, or a page of somebody else asks.",
    "408": "The body comes too slowly.",
    "413": "The body is too large.",
    "415": "The body is a form.",
    "422": "The file is no model that can be read, or asks for more than an answer may cost.",
    "429": "All places are taken; Retry-After says when to come again.",
    "500": "A fault, or a worker that was lost.",
    "501": "An optional package is not installed here.",
    "507": "No room for the body.",
}
_PAGES = {
    "/healthz": ("Whether the service runs.", "application/json"),
    "/readyz": ("Whether it takes one more request; 503 if not.", "application/json"),
    "/metrics": ("Counters for Prometheus.", "text/plain"),
}


@cache
def description() -> dict[str, Any]:
    """Return the document."""
    kinds = [Classification, Report, Plan, ProblemRecord, Asked, Look]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    look = schemas.pop("Look")
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in look["properties"].items()
    ]
    paths = {f"/v1/{verb}": {"post": _operation(verb, parameters)} for verb in _VERBS}
    paths |= {path: {"get": _page(path)} for path in _PAGES}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "normsniff",
            "version": __version__,
            "summary": "LayerNorm or RMSNorm? Read from the model file alone.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(verb: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    summary, said, kind = _VERBS[verb]
    content: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    if kind is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemRecord"}}}
    failures = {status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()}
    failures["429"]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return {
        "operationId": verb,
        "summary": summary,
        "description": "The body is the file, or JSON that names it. The parameters are for a file; JSON has its own.",
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {},
                "application/json": {"schema": {"$ref": "#/components/schemas/Asked"}},
            },
        },
        "responses": {"200": {"description": said, "content": content}, **failures},
    }


def _page(path: str) -> dict[str, Any]:
    summary, media_type = _PAGES[path]
    return {
        "operationId": path.strip("/"),
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media_type: {}}}},
    }
