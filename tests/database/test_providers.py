"""`rowmill providers`: what is configured, whether it works, and what the ledger says it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.contract import Failure, FailureKind
from jobs.providers.registry import ADAPTERS, Provider, ProviderSettings, build_providers
from tests.database.journaling import at_work, journal_of
from tests.database.support import Connect, OpenStore
from worker.ledger import ClaimJournal
from worker.providers import report
from worker.store import Store, gates
from worker.store.budgets import set_budget

Row = dict[str, Any]
COST = Decimal("1.5")


def configured(**more: ProviderSettings) -> Mapping[str, Provider]:
    url = "https://me:hunter2@proxy.internal/v1"
    replicate = ProviderSettings(api_key=SecretStr("hunter2"), base_url=url, account="first")
    return build_providers({"replicate": replicate, "openai": ProviderSettings(), **more})


async def told(store: Store, name: str = "replicate", **more: ProviderSettings) -> Row:
    rows = {row["provider"]: row for row in await report(store, configured(**more))}
    assert "hunter2" not in str(rows)
    return rows[name]


@dataclass
class Caller:
    """Makes calls of a provider, and has them end."""

    journals: list[ClaimJournal]

    async def call(self, *, account: str = "first", cents: str = "2") -> tuple[ClaimJournal, int]:
        journal = self.journals.pop()
        submission = await journal.intend(
            "main",
            provider="replicate",
            account=account,
            model="m",
            estimate_cents=Decimal(cents),
            fingerprint="f",
        )
        return journal, submission.id

    async def fails(self, kind: FailureKind, account: str = "first") -> None:
        journal, submission = await self.call(account=account)
        failure = Failure(kind, f"they said {kind}", provider="replicate")
        await journal.failed(submission, failure, cost_cents=Decimal(0))

    async def works(self) -> None:
        journal, submission = await self.call()
        await journal.finished(submission, result={"kind": "auth"}, cost_cents=COST)


@pytest.fixture
async def store(photomemory: str, open_store: OpenStore) -> Store:
    return await open_store(photomemory)


@pytest.fixture
async def caller(photomemory: str, connect: Connect, store: Store) -> Caller:
    hand, works = await at_work(await connect(photomemory), store, 10)
    return Caller([journal_of(store, work, hand) for work in works])


async def test_every_adapter_and_provider_is_listed(store: Store) -> None:
    second = ProviderSettings(adapter="replicate", api_key=SecretStr("k"), models={"video": "a/b"})
    rows = {row["provider"]: row for row in await report(store, configured(second=second))}
    others = sorted(ADAPTERS.keys() - {"openai", "replicate"})
    assert list(rows) == ["openai", "replicate", "second", *others]
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(ADAPTERS, "not configured"),
        "openai": "key missing",
        "replicate": "configured",
        "second": "configured",
    }
    assert rows["openai"]["why"] == "set ROWMILL_PROVIDERS__OPENAI__API_KEY"
    assert (rows["second"]["adapter"], rows["second"]["models"]["video"]) == ("replicate", "a/b")
    assert rows["replicate"]["base_url"] == "https://me:***@proxy.internal/v1"
    assert (rows["runway"]["account"], rows["runway"]["open_calls"]) == (None, 0)


async def test_what_it_costs(
    photomemory: str, connect: Connect, store: Store, caller: Caller
) -> None:
    await caller.works()
    await caller.works()
    await caller.call(cents="12.25")
    row = await told(store)
    assert (row["spend_cents_today"], row["spend_cents_month"]) == ("3.0", "3.0")
    assert (row["open_calls"], row["open_cents"]) == (1, "12.25")
    connection = await connect(photomemory)
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = rowmill.window_of('month')"
        " - interval '1 second' WHERE id = (SELECT min(id) FROM rowmill.submissions)"
    )
    assert (await told(store))["spend_cents_month"] == "1.5"


def limit(of: str, running: int | None, requests: int | None, tokens: int | None) -> Row:
    most = {"max_running": running, "requests_per_minute": requests, "tokens_per_minute": tokens}
    return {"of": of, **most}


async def test_limits_and_budgets(photomemory: str, connect: Connect, store: Store) -> None:
    connection = await connect(photomemory)
    await connection.execute(
        "INSERT INTO rowmill.lanes (lane, source, max_running, requests_per_minute,"
        " platform_requests_per_minute, platform_tokens_per_minute) VALUES"
        " ('replicate', '*', 7, 60, NULL, NULL), ('runway', '*', 3, NULL, NULL, NULL),"
        " ('*', 'generation_jobs', 5, NULL, NULL, NULL),"
        " ('replicate', 'generation_jobs', NULL, 90, 50, 9000)"
    )
    await gates.pause(store, lane="replicate", source="generation_jobs", who="me")
    await gates.limit(store, {"tokens_per_minute": 900}, lane="replicate", who="me")
    await set_budget(store, "replicate", "day", Decimal(500), "me")
    await set_budget(store, "*", "month", Decimal(9000), "me")
    row = await told(store)
    none = {"max_running": None, "requests_per_minute": None, "tokens_per_minute": None}
    assert row["limits"] == [
        limit("source generation_jobs", 5, None, None),
        limit("lane replicate", 7, 60, 900),
        limit("lane replicate of generation_jobs", None, 50, 9000),
    ]
    limited = ProviderSettings(api_key=SecretStr("k"), requests_per_minute=60)
    runway = await told(store, "runway", runway=limited)
    assert runway["limits"][0] == none | {"of": "this configuration", "requests_per_minute": 60}
    assert runway["slow_until"] is None
    await store.slow("runway", "*", 60, None)
    assert (await told(store, "runway", runway=limited))["slow_until"]
    assert [(b["lane"], b["period"], b["limit_cents"]) for b in row["budgets"]] == [
        ("*", "month", "9000"),
        ("replicate", "day", "500"),
    ]


# --------------------------------------------------------------------------- whether it works


@pytest.mark.parametrize("kind", ["auth", "quota", "transient"])
async def test_broken_until_a_call_works(store: Store, caller: Caller, kind: str) -> None:
    await caller.works()
    for _ in range(4):
        await caller.fails(FailureKind(kind))
    assert (await told(store))["state"] == "configured"
    await caller.fails(FailureKind(kind))
    row = await told(store)
    assert row["state"] == "broken"
    assert (
        row["why"] == f"the last 5 calls that ended failed, the latest as {kind}: they said {kind}"
    )
    await caller.call()  # nobody knows yet how it ends
    assert (await told(store))["state"] == "broken"
    await caller.works()
    assert (await told(store))["state"] == "configured"


@pytest.mark.parametrize("kind", ["invalid", "policy", "rate_limit", "unknown"])
async def test_a_tasks_own_failure_breaks_nothing(store: Store, caller: Caller, kind: str) -> None:
    await caller.fails(FailureKind.AUTH)
    assert (await told(store))["state"] == "broken"
    await caller.fails(FailureKind(kind))
    assert (await told(store))["state"] == "configured"


async def test_neither_another_account_nor_the_past_breaks_it(
    photomemory: str, connect: Connect, store: Store, caller: Caller
) -> None:
    await caller.fails(FailureKind.AUTH, account="other")
    assert (await told(store))["state"] == "configured"
    await caller.fails(FailureKind.AUTH)
    assert (await told(store))["state"] == "broken"
    connection = await connect(photomemory)
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = intended_at - interval '10 minutes'"
    )
    assert (await told(store))["state"] == "configured"


async def test_a_pause_is_told_before_what_it_is_for(store: Store, caller: Caller) -> None:
    await caller.fails(FailureKind.QUOTA)
    await gates.pause(store, lane="replicate", source="generation_jobs", who="me")
    assert (await told(store))["state"] == "broken", "other tables go on"
    await gates.pause(store, lane="replicate", who="me", reason="top up")
    row = await told(store)
    assert (row["state"], row["why"]) == ("paused", "lane replicate is paused by me: top up")
    await gates.resume(store, lane="replicate", who="me")
    await gates.pause(store, who="me")
    assert (await told(store))["why"] == "everything is paused by me"


async def test_a_platforms_word_is_told_after_the_operators_and_before_what_broke(
    photomemory: str, connect: Connect, store: Store, caller: Caller
) -> None:
    connection = await connect(photomemory)
    await caller.fails(FailureKind.AUTH)
    await connection.execute(
        "INSERT INTO rowmill.lanes (lane, source, platform_paused_why)"
        " VALUES ('replicate', 'generation_jobs', 'it says so'), ('*', 'other', 'not of this')"
    )
    row = await told(store)
    why = "lane replicate of generation_jobs is closed by its platform: it says so"
    assert (row["state"], row["why"], row["limits"]) == ("paused", why, [])
    await gates.pause(store, lane="replicate", who="me", reason="top up")
    assert (await told(store))["why"] == "lane replicate is paused by me: top up"
    assert (await told(store, "openai"))["state"] == "key missing"
    await gates.resume(store, lane="replicate", who="me")
    await connection.execute("UPDATE rowmill.lanes SET platform_paused_why = NULL")
    assert (await told(store))["state"] == "broken"


async def test_broken_while_it_is_left_alone_though_its_calls_are_long_past(
    photomemory: str, connect: Connect, store: Store
) -> None:
    until = await store.trip("replicate", "no answer", 600)
    row = await told(store)
    assert until is not None
    assert (row["state"], row["why"]) == (
        "broken",
        f"left alone until {until.isoformat()[:19]}Z: no answer",
    )
    connection = await connect(photomemory)
    await connection.execute("UPDATE rowmill.lanes SET broken_until = clock_timestamp()")
    assert (await told(store))["state"] == "configured", "it is being tried again"
