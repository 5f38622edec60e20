"""For the tests of adapters: what is the same for every vendor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx
import pytest

from jobs.contract import FailureKind, Task
from jobs.providers.adapter import Account, Adapter, Response
from jobs.providers.errors import ProviderError
from jobs.providers.prices import load_prices

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PRICES = load_prices()
GARBLED = [b"", b"{", b"[]", b"null", b'"x"', b"{}"]
"""Bodies that no vendor's protocol promises."""


def response(
    status: int, body: object = None, headers: Mapping[str, str] | None = None
) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, httpx.Headers(headers or {}), data, NOW)


def refused(adapter: Adapter, task: Task, account: Account) -> str:
    """The code with which `check` refuses the task."""
    with pytest.raises(ProviderError) as caught:
        adapter.check(task, account, PRICES)
    assert caught.value.failure.kind is FailureKind.INVALID
    assert caught.value.failure.accepted == "no"
    return caught.value.failure.code
