"""ElevenLabs' error bodies: `{detail: {type, code, message, status, request_id}}`.

`status` is the older name of `code`; both are sent, so that readers of either are served. A field
that its validator refuses comes as a list of problems instead, as FastAPI writes it.
"""

from __future__ import annotations

import secrets

from aiohttp import web
from pydantic import ValidationError

from jobs.sandbox.vendors.openai_errors import phrase

# fault → status, type, code, message
REFUSALS = {
    "429": (429, "rate_limit_error", "system_busy", "The system is busy, please try again later."),
    "quota": (
        401,
        "payment_required",
        "quota_exceeded",
        "This request exceeds your quota. You have 0 credits remaining.",
    ),
    "auth": (401, "authentication_error", "invalid_api_key", "Invalid API key"),
    "invalid": (400, "validation_error", "invalid_parameters", "Refused by a fault on demand."),
    "policy": (
        403,
        "authorization_error",
        "content_against_policy",
        "The text may violate the terms of service and was blocked.",
    ),
}


def error(
    status: int, code: str, message: str, *, kind: str, headers: dict[str, str] | None = None
) -> web.Response:
    detail = {
        "type": kind,
        "code": code,
        "message": message,
        "status": code,
        "request_id": secrets.token_hex(10),
    }
    return web.json_response({"detail": detail}, status=status, headers=headers)


def refuse(name: str, value: float) -> web.Response:
    """A status without a code of its own has bare words, as a framework in front would answer."""
    if name in REFUSALS:
        status, kind, code, message = REFUSALS[name]
        headers = {"retry-after": f"{value:g}"} if status == 429 else None
        return error(status, code, message, kind=kind, headers=headers)
    headers = {"retry-after": f"{value:g}"} if name == "503" else None
    return web.json_response({"detail": phrase(int(name))}, status=int(name), headers=headers)


def no_such_voice(voice: str) -> web.Response:
    message = f"A voice with the voice_id {voice} was not found."
    return error(404, "voice_not_found", message, kind="not_found")


def no_such_model(model: str) -> web.Response:
    message = f"A model with model ID {model} does not exist."
    return error(400, "model_not_found", message, kind="validation_error")


def no_such_path() -> web.Response:
    return web.json_response({"detail": "Not Found"}, status=404)


def validation_error(problem: ValidationError) -> web.Response:
    found = [
        {"type": item["type"], "loc": ["body", *item["loc"]], "msg": item["msg"]}
        for item in problem.errors()
    ]
    return web.json_response({"detail": found}, status=422)
