"""Errors as Google's APIs tell them: `{error: {code, message, status, details}}`."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from jobs.sandbox.vendors.openai_errors import phrase

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
NO_SUCH_KEY = "API key not valid. Please pass a valid API key."
NO_KEY = "Method doesn't allow unregistered callers. Please use API Key to call this API."
EXHAUSTED = "You exceeded your current quota, please check your plan and billing details."
PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"


def error(status: int, message: str, *details: dict[str, Any]) -> web.Response:
    otherwise = "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"
    body: dict[str, Any] = {
        "code": status,
        "message": message,
        "status": STATUSES.get(status, otherwise),
    }
    if details:
        body["details"] = list(details)
    return web.json_response({"error": body}, status=status)


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def refuse(name: str, value: float) -> web.Response:
    """A wait is told in the body, never in a header."""
    match name:
        case "429":
            return exhausted(PER_MINUTE, value)
        case "quota":
            return exhausted(PER_DAY, value)
        case "auth":
            return unauthorized("?")
        case "invalid":
            return error(400, "Request contains an invalid argument.")
        case status:
            return error(int(status), phrase(int(status)))


def exhausted(quota: str, seconds: float) -> web.Response:
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
        "quotaId": quota,
    }
    return error(
        429,
        EXHAUSTED,
        detail("QuotaFailure", violations=[violation]),
        detail("RetryInfo", retryDelay=f"{seconds:g}s"),
    )


def unauthorized(key: str) -> web.Response:
    if not key:
        return error(403, NO_KEY)
    service = {"service": "generativelanguage.googleapis.com"}
    info = detail("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com", metadata=service)
    return error(400, NO_SUCH_KEY, info)


def not_json() -> web.Response:
    return error(400, "Invalid JSON payload received. Parsing terminated before end of input.")


def validation_error(problem: ValidationError) -> web.Response:
    """The first problem, as the vendor words unknown fields and bad values."""
    first = problem.errors()[0]
    *path, last = [str(part) for part in first["loc"]] or [""]
    field, where = ".".join([*path, last]), ".".join(path)
    if first["type"] == "extra_forbidden":
        at = f" at '{where}'" if where else ""
        message = f'Invalid JSON payload received. Unknown name "{last}"{at}: Cannot find field.'
    else:
        message = f"Invalid value at '{field}': {first['msg']}"
    violation = {"field": where or field, "description": message}
    return error(400, message, detail("BadRequest", fieldViolations=[violation]))


def no_such_model(model: str, version: str) -> web.Response:
    return error(
        404,
        f"models/{model} is not found for API version {version}, or is not supported for "
        "generateContent.",
    )
