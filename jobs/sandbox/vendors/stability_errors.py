"""Stability's error bodies: `{id, name, errors}`."""

from __future__ import annotations

import secrets

from aiohttp import web
from pydantic import ValidationError

from jobs.sandbox.vendors.openai_errors import phrase

# fault → status, name, what it says
REFUSALS = {
    "429": (429, "rate_limit_exceeded", "You have made too many requests in a short time."),
    "quota": (402, "payment_required", "You lack sufficient credits to make this request."),
    "auth": (401, "unauthorized", "authorization: missing or invalid API key"),
    "invalid": (400, "bad_request", "prompt: refused by a fault on demand"),
    "policy": (403, "content_moderation", "Your request was flagged by content moderation."),
    "404": (404, "not_found", "id: no such generation, or it was started with another key"),
}


def error(
    status: int, name: str, *errors: str, headers: dict[str, str] | None = None
) -> web.Response:
    body = {"id": secrets.token_hex(16), "name": name, "errors": list(errors)}
    return web.json_response(body, status=status, headers=headers)


def refuse(name: str, _value: float) -> web.Response:
    """Without Retry-After, as far as is known: a lock-out lasts a minute."""
    if name in REFUSALS:
        return error(*REFUSALS[name])
    words = phrase(int(name))
    return error(int(name), words.lower().replace(" ", "_"), words)


def bad_request(*errors: str) -> web.Response:
    return error(400, "bad_request", *errors)


def validation_error(problem: ValidationError) -> web.Response:
    return bad_request(
        *(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problem.errors())
    )
