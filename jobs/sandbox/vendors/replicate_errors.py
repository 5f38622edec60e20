"""Replicate's error bodies: `{detail, title, status}`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from jobs.sandbox.vendors.openai_errors import phrase

NOT_FOUND = "The requested resource could not be found."

# fault → status, title, detail
REFUSALS = {
    "429": (429, "Too many requests", "Request was throttled."),
    "quota": (
        402,
        "Insufficient credit",
        "You have insufficient credit to run this model. Go to your billing page to buy credit.",
    ),
    "auth": (401, "Unauthenticated", "You did not pass a valid authentication token"),
    "invalid": (422, "Input validation failed", "- input: refused by a fault on demand\n"),
    "404": (404, "Not found", NOT_FOUND),
}


def error(
    status: int, detail: str, *, title: str | None = None, headers: dict[str, str] | None = None,
    **more: Any,
) -> web.Response:  # fmt: skip
    body = {"detail": detail, "title": title or phrase(status), "status": status} | more
    return web.json_response(
        body, status=status, headers=headers, content_type="application/problem+json"
    )


def input_error(field: str, description: str) -> web.Response:
    return error(
        422,
        f"- {description}\n",
        title="Input validation failed",
        invalid_fields=[{"type": "invalid", "field": field, "description": description}],
    )


def refuse(name: str, value: float) -> web.Response:
    status, title, detail = REFUSALS.get(name) or (int(name), phrase(int(name)), phrase(int(name)))
    headers = {"retry-after": f"{value:g}"} if status in {429, 503} else None
    return error(status, detail, title=title, headers=headers)
