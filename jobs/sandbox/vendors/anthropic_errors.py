"""Anthropic's error bodies: `{type: "error", error: {type, message}, request_id}`."""

from __future__ import annotations

import secrets
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from jobs.sandbox.vendors.openai_errors import phrase

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

# fault → status, message
REFUSALS = {
    "429": (429, "This request would exceed your organization's rate limit."),
    "529": (529, "Overloaded"),
    "quota": (402, "There is a problem with your billing or payment information."),
    "auth": (401, "invalid x-api-key"),
    "invalid": (400, "messages: refused by a fault on demand"),
}


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    otherwise = "api_error" if status >= 500 else "invalid_request_error"
    request_id = new_request_id()
    body: dict[str, Any] = {
        "type": "error",
        "error": {"type": TYPES.get(status, otherwise), "message": message},
        "request_id": request_id,
    }
    return web.json_response(
        body, status=status, headers={"request-id": request_id, **(headers or {})}
    )


def refuse(name: str, value: float) -> web.Response:
    status, message = REFUSALS.get(name) or (int(name), phrase(int(name)))
    headers = {"retry-after": f"{value:g}"} if status in {429, 503, 529} else None
    return error(status, message, headers)


def unauthorized(key: str) -> web.Response:
    return error(401, "invalid x-api-key" if key else "x-api-key header is required")


def not_json() -> web.Response:
    return error(400, "The request body is not valid JSON.")


def validation_error(problem: ValidationError) -> web.Response:
    """The first problem: where it is, and what."""
    first = problem.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return error(400, f"{field}: {first['msg']}")
