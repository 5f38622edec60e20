"""Workers, providers and budgets fit a terminal: a line each, and nothing broken within words."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from worker.text.providers import print_budgets, print_providers
from worker.text.values import SafeConsole
from worker.text.workers import print_workers

WORKER = {
    "id": "5562508979549144360",
    "name": "render-7",
    "host": "render-7.internal",
    "version": "0.1.0",
    "lanes": ["background:send_notification", "background:sync", "openai", "replicate"],
    "slots": 100,
    "running": 4,
    "state": "working",
    "heartbeat_age_s": 1.9,
    "started_at": "2026-11-21T19:09:21.644354+00:00",
    "stopped_at": None,
    "drain_asked_age_s": None,
    "drain_asked_by": None,
}
BUDGET = {
    "lane": "replicate",
    "period": "day",
    "limit_cents": "5000",
    "used_cents": "1200.448",
    "renewed_at": "2026-11-22T00:00:00+00:00",
    "waiting": 3,
}
PROVIDER = {
    "provider": "replicate",
    "adapter": "replicate",
    "state": "broken",
    "why": "left alone until 2026-11-21T19:20:00Z: auth: no such key",
    "account": "default",
    "base_url": "https://api.replicate.com/v1",
    "models": {"video": "minimax/video-01", "image": "black-forest-labs/flux-schnell"},
    "limits": [
        {
            "of": "lane replicate",
            "max_running": 4,
            "requests_per_minute": 500,
            "tokens_per_minute": None,
        }
    ],
    "slow_until": None,
    "budgets": [BUDGET, {**BUDGET, "lane": "*", "limit_cents": "99.5", "used_cents": "0"}],
    "spend_cents_today": "1200.448",
    "spend_cents_month": "1200.448",
    "open_calls": 2,
    "open_cents": "14",
}


def printed(print_: Callable[[Any, Console], None], rows: Any, width: int) -> list[str]:
    file = io.StringIO()
    console = SafeConsole(
        file=file,
        width=width,
        force_terminal=True,
        color_system=None,
        markup=False,
        highlight=False,
    )
    print_(rows, console)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize(
    ("print_", "row"),
    [(print_workers, WORKER), (print_providers, PROVIDER), (print_budgets, BUDGET)],
    ids=["workers", "providers", "budgets"],
)
def test_a_line_each(print_: Callable[[Any, Console], None], row: Any, width: int) -> None:
    lines = printed(print_, [row, row], width)
    table = lines[:5]
    assert all(len(line) <= width for line in table)
    assert table[3] == table[4]
    name = row.get("name") or row.get("provider") or row["lane"]
    assert name in table[3]


def test_what_keeps_a_provider_back_is_told_in_full() -> None:
    lines = printed(print_providers, [PROVIDER], 80)
    assert "".join(lines[4:]) == (
        "replicate (broken): left alone until 2026-11-21T19:20:00Z: auth: no such key"
        "replicate: at most 4 running, 500 requests/min (lane replicate)"
        "replicate: $12.00 of $50.00 a day used (budget of lane replicate)"
        "replicate: $0.00 of $0.995 a day used (budget of all lanes)"
    )
