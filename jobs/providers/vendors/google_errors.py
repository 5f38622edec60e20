"""Errors as Google's APIs tell them: `{error: {code, message, status, details}}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from jobs.contract import Failure, FailureKind
from jobs.providers.adapter import Op, Response
from jobs.providers.failures import error_in, failure_of

KIND_BY_REASON: Mapping[str, FailureKind] = {
    "API_KEY_INVALID": FailureKind.AUTH,  # comes as a 400 INVALID_ARGUMENT
    "ACCOUNT_STATE_INVALID": FailureKind.AUTH,
    "BILLING_DISABLED": FailureKind.QUOTA,
}
KIND_BY_STATUS: Mapping[str, FailureKind] = {
    "INVALID_ARGUMENT": FailureKind.INVALID,
    "OUT_OF_RANGE": FailureKind.INVALID,
    "UNAUTHENTICATED": FailureKind.AUTH,
    "PERMISSION_DENIED": FailureKind.AUTH,
    # "Enable billing", or a country that isn't served: the plan's matter, not the request's.
    "FAILED_PRECONDITION": FailureKind.QUOTA,
    "RESOURCE_EXHAUSTED": FailureKind.RATE_LIMIT,
    "UNAVAILABLE": FailureKind.TRANSIENT,
    "INTERNAL": FailureKind.TRANSIENT,
    "DEADLINE_EXCEEDED": FailureKind.TRANSIENT,
}
NO_MONEY = re.compile(r"(?i)credits are depleted|spending cap")
DAILY = "PerDay"
DELAY = re.compile(r"(\d+(?:\.\d+)?)s")


def classified(provider: str, op: Op, response: Response) -> Failure:
    error = error_in(response)
    status, message = str(error.get("status") or ""), str(error.get("message") or "")
    reason = next((str(info.get("reason")) for info in _details(error, "ErrorInfo")), "")
    quota = _used_up(error) or NO_MONEY.search(message)
    kind = KIND_BY_REASON.get(reason) or KIND_BY_STATUS.get(status)
    failure = failure_of(
        op,
        response,
        provider=provider,
        kind=FailureKind.QUOTA if quota else kind,
        code=status,
        message=message,
    )
    if failure.retry_after is None:
        return replace(failure, retry_after=_delay(error))
    return failure


def _used_up(error: Mapping[str, Any]) -> bool:
    """The day's allowance is spent: another try would have to wait until tomorrow."""
    return any(
        DAILY in str(violation.get("quotaId"))
        for failure in _details(error, "QuotaFailure")
        for violation in _objects(failure.get("violations"))
    )


def _delay(error: Mapping[str, Any]) -> float | None:
    """The seconds of a `RetryInfo`, like `34s` or `1.5s`."""
    for info in _details(error, "RetryInfo"):
        found = DELAY.fullmatch(str(info.get("retryDelay")))
        if found:
            return float(found.group(1))
    return None


def _details(error: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    for item in _objects(error.get("details")):
        if str(item.get("@type")).endswith(f".{kind}"):
            yield item


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """What a proxy or a new version might have put there instead is passed over."""
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            yield item
