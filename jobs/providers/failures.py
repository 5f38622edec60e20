"""From an HTTP error to a `Failure`: what all providers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.contract import Accepted, Failure, FailureKind
from jobs.providers.adapter import Op, Response
from jobs.providers.errors import Garbled
from jobs.providers.pace import retry_after, used_up

LONG_WAIT = 60.0
"""For a server that says "don't retry": not at once, whatever the status suggests."""

MAX_MESSAGE = 500

KIND_BY_STATUS: Mapping[int, FailureKind] = {
    400: FailureKind.INVALID,
    401: FailureKind.AUTH,
    402: FailureKind.QUOTA,
    403: FailureKind.AUTH,
    404: FailureKind.GONE,
    405: FailureKind.INVALID,
    408: FailureKind.TRANSIENT,
    409: FailureKind.TRANSIENT,
    410: FailureKind.GONE,
    413: FailureKind.INVALID,
    415: FailureKind.INVALID,
    422: FailureKind.INVALID,
    425: FailureKind.TRANSIENT,
    429: FailureKind.RATE_LIMIT,
}
WAITS = (FailureKind.RATE_LIMIT, FailureKind.TRANSIENT)


def failure_of(
    op: Op,
    response: Response,
    *,
    provider: str,
    kind: FailureKind | None,
    code: str,
    message: str,
) -> Failure:
    """`kind` is what the body's code means, if the adapter knows it."""
    wait = retry_after(response)
    advice = response.headers.get("x-should-retry", "").lower()
    if kind is None:
        kind = _kind_by_status(op, response.status)
        if advice == "true" and kind not in WAITS:
            kind = FailureKind.TRANSIENT
    if kind is FailureKind.RATE_LIMIT and wait is None:
        wait = used_up(response)
    if advice == "false" and kind in WAITS:
        wait = max(wait or 0.0, LONG_WAIT)
    text = message.strip() or f"{provider} answered {response.status}"
    return Failure(
        kind,
        text[:MAX_MESSAGE],
        code or f"http_{response.status}",
        provider,
        wait,
        _accepted(op, response.status),
    )


def _kind_by_status(op: Op, status: int) -> FailureKind:
    if op == "submit" and status in (404, 410):
        return FailureKind.INVALID  # no such model; there is no task yet that could be gone
    if status >= 500:
        return FailureKind.TRANSIENT
    return KIND_BY_STATUS.get(status, FailureKind.UNKNOWN)


def _accepted(op: Op, status: int) -> Accepted:
    """A gateway's 5xx, or its 408, may come after the provider took the request."""
    if op == "submit" and (status >= 500 or status == 408):
        return "unknown"
    return "no"


def error_in(response: Response) -> Mapping[str, Any]:
    """The object many vendors put under `error`, Google now and then in a list of one.

    A proxy's body has none.
    """
    try:
        body = response.json()
    except Garbled:
        body = None
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return error
    return {"message": error if isinstance(error, str) else ""}
