"""What headers say about how fast a server may be asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import httpx
import pytest

from jobs.contract import FailureKind
from jobs.providers.adapter import Response
from jobs.providers.pace import LONGEST, retry_after, used_up
from jobs.providers.registry import ADAPTERS

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def response(headers: Mapping[str, str], status: int = 200) -> Response:
    return Response(status, httpx.Headers(headers), b"{}", NOW)


def of_requests(left: str, reset: str) -> dict[str, str]:
    return {"x-ratelimit-remaining-requests": left, "x-ratelimit-reset-requests": reset}


def of_anthropic(what: str, left: str, reset: str) -> dict[str, str]:
    name = f"anthropic-ratelimit-{what}"
    return {f"{name}-limit": "50", f"{name}-remaining": left, f"{name}-reset": reset}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (of_requests("0", "6m0s"), 360),
        (of_requests("0", "1s"), 1),
        (of_requests("0", "20ms"), 0.02),
        (of_requests("0", "1m1.5s"), 61.5),
        (of_requests("0", "1h2m3s"), LONGEST),
        (of_requests("0", "9d"), LONGEST),
        (of_requests("0", "7.5"), 7.5),
        (of_requests("0", str(NOW.timestamp() + 9)), 9),
        (of_requests("0", "1e300"), None),
        (of_requests("0", "2026-11-20T12:00:30Z"), 30),
        (of_requests("0", "2026-11-20T11:00:00Z"), None),
        (of_requests("0", "0s"), None),
        (of_requests("0", "soon"), None),
        (of_requests("0", "6m0"), None),
        (of_requests("0", "-1s"), None),
        (of_requests("1", "6m0s"), None),
        (of_requests("none", "6m0s"), None),
        ({"x-ratelimit-reset-requests": "6m0s"}, None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"}, 2),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3"}, 3),
        (
            {
                **of_requests("0", "1s"),
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "4s",
            },
            4,
        ),
        (of_anthropic("requests", "0", "2026-11-20T12:01:00Z"), 60),
        (of_anthropic("input-tokens", "0", "2026-11-20T12:00:02+00:00"), 2),
        (of_anthropic("output-tokens", "0", "2026-11-20T13:00:03+01:00"), 3),
        (of_anthropic("tokens", "0", "2027-11-20T12:00:00Z"), LONGEST),
        (of_anthropic("requests", "49", "2026-11-20T12:01:00Z"), None),
        (
            {
                **of_anthropic("requests", "0", "2026-11-20T13:00:10Z"),
                "date": "Fri, 20 Nov 2026 13:00:00 GMT",
            },
            10,
        ),
    ],
)
def test_what_is_used_up_until_when(headers: Mapping[str, str], seconds: float | None) -> None:
    found = used_up(response(headers))
    assert found == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "86400"}, LONGEST),
        ({"retry-after-ms": "1e12"}, LONGEST),
        ({"retry-after": "Sat, 21 Nov 2037 12:00:30 GMT"}, LONGEST),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "Thu, 99 Foo 1970"}, None),
        ({"retry-after": "infinity"}, None),
    ],
)
def test_no_server_stops_us_for_days(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(response(headers)) == seconds


@pytest.mark.parametrize("name", ["openai", "anthropic", "replicate"])
def test_a_429_without_retry_after_waits_for_what_is_used_up(name: str) -> None:
    adapter = ADAPTERS[name]
    failure = adapter.classify("submit", response(of_requests("0", "20s"), 429))
    assert (failure.kind, failure.retry_after) == (FailureKind.RATE_LIMIT, 20)
    told = {**of_requests("0", "20s"), "retry-after": "3"}
    assert adapter.classify("submit", response(told, 429)).retry_after == 3
    assert adapter.classify("submit", response(of_requests("0", "20s"), 503)).retry_after is None


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_no_advice_makes_a_doubtful_post_certain(name: str, status: int) -> None:
    """`x-should-retry: true` says that it may be asked again, not that it wasn't accepted."""
    failure = ADAPTERS[name].classify("submit", response({"x-should-retry": "true"}, status))
    assert failure.accepted == "unknown"
