"""OpenAI's error bodies: `{error: {message, type, param, code}}`."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web
from pydantic import ValidationError

INVALID = "invalid_request_error"

# fault → status, type, code, message
REFUSALS = {
    "429": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests per min."),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "auth": (401, INVALID, "invalid_api_key", "Incorrect API key provided."),
    "invalid": (400, INVALID, "invalid_value", "Invalid request, by a fault on demand."),
}

# pydantic's name of a problem → message, code
PROBLEMS = {
    "missing": ("Missing required parameter: '{field}'.", "missing_required_parameter"),
    "extra_forbidden": ("Unknown parameter: '{field}'.", "unknown_parameter"),
}


def error(
    status: int,
    message: str,
    *,
    kind: str = INVALID,
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def refuse(name: str, value: float) -> web.Response:
    if name in REFUSALS:
        status, kind, code, message = REFUSALS[name]
    else:
        status, code, message = int(name), None, phrase(int(name))
        kind = "server_error" if status >= 500 else INVALID
    headers = None
    if name in {"429", "503"}:
        headers = {"retry-after": f"{value:g}", "retry-after-ms": f"{value * 1000:g}"}
    return error(status, message, kind=kind, code=code, headers=headers)


def phrase(status: int) -> str:
    known = {item.value for item in HTTPStatus}
    return HTTPStatus(status).phrase if status in known else f"Status {status}"


def unauthorized(key: str) -> web.Response:
    if not key:
        return error(401, "You didn't provide an API key in an Authorization header.")
    return error(401, f"Incorrect API key provided: {key}.", code="invalid_api_key")


def not_json() -> web.Response:
    return error(400, "We could not parse the JSON body of your request.")


def no_such_model(model: str) -> web.Response:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return error(404, message, code="model_not_found", param="model")


def no_such_path(method: str, path: str) -> web.Response:
    return error(404, f"Invalid URL ({method} {path})")


def validation_error(problem: ValidationError) -> web.Response:
    """The first problem, in the vendor's words where it is one of the common ones."""
    first = problem.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    otherwise = (
        "Invalid '{field}': " + first["msg"].replace("{", "").replace("}", ""),
        "invalid_value",
    )
    message, code = PROBLEMS.get(first["type"], otherwise)
    return error(400, message.format(field=field), code=code, param=field)
