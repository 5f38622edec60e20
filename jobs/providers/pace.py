"""What a server's headers say about how fast it may be asked.

    retry_after   "come back in": `retry-after-ms`, `retry-after` (seconds or a date)
    used_up       nothing is left of what the account may send, and when it is renewed:
                  `x-ratelimit-*` (durations such as `6m0s`), `anthropic-ratelimit-*` (RFC 3339)

What can't be read is as good as not sent, and what lies in the past is over.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from jobs.providers.adapter import Response

LONGEST = 3600.0
"""Seconds. Who names a longer wait is asked again after this one, and may repeat it."""

# What is left, and when it is whole again.
REMAINING = (
    *(
        (f"x-ratelimit-remaining{what}", f"x-ratelimit-reset{what}")
        for what in ("-requests", "-tokens", "")
    ),
    *(
        (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-reset")
        for what in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", re.ASCII)
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
EPOCH = 1e9
"""A bare number above it is a time and no wait."""


def retry_after(response: Response) -> float | None:
    """Seconds."""
    milliseconds = _number(response.headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(LONGEST, milliseconds / 1000)
    value = response.headers.get("retry-after")
    seconds = _number(value)
    return _until(response, _date(value)) if seconds is None else min(LONGEST, seconds)


def used_up(response: Response) -> float | None:
    """Seconds until the last of what is used up is renewed; None while there is something left."""
    if not any("ratelimit" in name.lower() for name in response.headers):
        return None  # most answers say nothing, and each name that is looked up costs
    waits = [
        _reset(response, response.headers.get(reset))
        for remaining, reset in REMAINING
        if _number(response.headers.get(remaining)) == 0
    ]
    return max((wait for wait in waits if wait), default=None)


def _reset(response: Response, value: str | None) -> float | None:
    text = (value or "").strip()
    if DURATION.fullmatch(text):
        parts = PART.findall(text)
        return min(LONGEST, sum(float(number) * UNITS[unit] for number, unit in parts))
    number = _number(text)
    if number is None:
        return _until(response, _moment(text))
    if number > EPOCH:
        return _until(response, _from_epoch(number))
    return min(LONGEST, number)


def _until(response: Response, then: datetime | None) -> float | None:
    """By the server's own clock, where it tells it: ours may differ."""
    if then is None:
        return None
    now = _date(response.headers.get("date")) or response.received
    return min(LONGEST, max(0.0, (then - now).total_seconds()))


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _date(value: str | None) -> datetime | None:
    try:
        return _zoned(parsedate_to_datetime(value or ""))
    except ValueError:
        return None


def _moment(value: str) -> datetime | None:
    try:
        return _zoned(datetime.fromisoformat(value))
    except ValueError:
        return None


def _from_epoch(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _zoned(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
