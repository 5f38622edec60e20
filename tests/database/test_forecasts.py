"""What an act may cost, against a ledger whose figures are known."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.database.support import Connect, Hand, OpenStore, add_videos
from worker.forecast import Forecast
from worker.store import Store, aims, forecasts
from worker.store.finding import Found
from worker.store.reading import stored_query

JOBS = "generation_jobs"


class Ledger:
    def __init__(self, connection: Any, store: Store, hand: Hand) -> None:
        self.connection, self.store, self.hand = connection, store, hand

    async def completed(self, kind: str, **steps: str | None) -> str:
        """A job that was delivered, and what its steps cost."""
        (key,) = await add_videos(self.connection, job_type=kind)
        await self.hand.succeed(await self.hand.take())
        for step, cents in steps.items():
            await self.call(key, step, "finished", cents, delivered=True)
        return key

    async def failed(self, kind: str = "video") -> str:
        (key,) = await add_videos(self.connection, job_type=kind)
        await self.hand.fail(await self.hand.take())
        return key

    async def call(
        self,
        key: str,
        step: str,
        state: str,
        cents: str | None = None,
        *,
        delivered: bool = False,
        run: int = 1,
    ) -> None:
        await self.connection.execute(
            "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
            " account, model, state, estimate_cents, cost_cents, delivered_at) VALUES ($1, $2, $3,"
            " $4, 'replicate', 1, 'replicate', 'a', 'm', $5, 20, $6::numeric,"
            " CASE WHEN $7 THEN now() END)",
            *(JOBS, key, run, step, state, None if cents is None else Decimal(cents)),
            delivered,
        )

    async def forecast(self, *keys: str, **how: bool) -> Forecast:
        meant = await aims.aims(self.store, [Found(JOBS, key) for key in keys])
        return await forecasts.forecast_of(self.store, meant, **({"buys": True} | how))


@pytest.fixture
async def ledger(photomemory: str, connect: Connect, open_store: OpenStore) -> Ledger:
    connection, store = await connect(photomemory), await open_store(photomemory)
    ledger = Ledger(connection, store, await Hand.hire(store))
    await ledger.completed("video", image="2", video="10")
    await ledger.completed("video", image="4", video="20")
    await ledger.completed("audio", speech="1")
    return ledger


async def test_each_kind_costs_what_its_own_jobs_cost(ledger: Ledger) -> None:
    keys = [await ledger.failed(kind) for kind in ("video", "video", "audio", "thumbnail")]
    told = (await ledger.forecast(*keys)).as_json()
    assert json.loads(json.dumps(told)) == told
    assert [(b["kind"], b["jobs"], b["cents"], b["mean_cents"]) for b in told["buys"]] == [
        ("media:audio", 1, "1", "1"),
        ("media:thumbnail", 1, None, None),
        ("media:video", 2, "36", "18"),
    ]
    assert (told["cents"], told["unknown"], told["jobs"]) == ("37", 1, 4)
    assert told["lanes"] == [{"source": JOBS, "lane": "replicate", "jobs": 4}]
    assert told["buys"][2]["basis"] == "the mean of the last 2 that were delivered"
    assert (await ledger.forecast(*keys, buys=False)).as_json()["buys"] == []


async def test_what_is_bought_isnt_bought_again(ledger: Ledger) -> None:
    bought, open_, doubtful, both = [await ledger.failed() for _ in range(4)]
    await ledger.call(bought, "image", "finished", "3")
    await ledger.call(open_, "image", "accepted")
    await ledger.call(doubtful, "image", "unknown")
    await ledger.call(both, "image", "finished", "3")
    await ledger.call(both, "video", "accepted")
    told = await ledger.forecast(bought, open_, doubtful, both)
    assert (told.cents, told.unknown) == (Decimal(45), 0)  # three videos
    assert [p.jobs for p in told.purchases] == [3]
    assert (told.used, told.open, told.in_doubt) == (2, 2, 1)
    cents = [told.used_cents, told.open_cents, told.in_doubt_cents]
    assert cents == [Decimal(6), Decimal(40), Decimal(20)]
    resubmitted = await ledger.forecast(doubtful, resubmits=True)
    assert (resubmitted.cents, resubmitted.in_doubt) == (Decimal(18), 1)
    anew = await ledger.forecast(bought, anew=True)
    assert (anew.cents, anew.used) == (Decimal(18), 1)


async def test_what_no_retry_would_use(ledger: Ledger) -> None:
    """Calls of an earlier run, and what ended without a result."""
    delivered, given_up = await ledger.failed(), await ledger.failed()
    await ledger.call(delivered, "image", "finished", "3", delivered=True)
    await ledger.call(given_up, "image", "finished", "3")
    await ledger.call(given_up, "image", "failed", "1", run=2)
    told = await ledger.forecast(delivered, given_up)
    assert (told.cents, told.used) == (Decimal(36), 0)


async def test_jobs_whose_cost_nobody_knows_are_no_basis(ledger: Ledger) -> None:
    await ledger.completed("video", image="1", video=None)
    (buys,) = (await ledger.forecast(await ledger.failed())).purchases
    assert buys.history is not None
    assert (buys.history.jobs, buys.cents) == (2, Decimal(18))


async def test_a_row_that_is_gone(ledger: Ledger) -> None:
    key = await ledger.failed()
    await ledger.call(key, "image", "unknown")
    await ledger.connection.execute(f"DELETE FROM {JOBS} WHERE id = $1", key)
    (aim,) = await aims.aims(ledger.store, [Found(JOBS, key)])
    assert (aim.state, len(aim.calls.doubts)) == ("missing", 1)


LEDGER = """
INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider, account, model,
                                 state, estimate_cents, cost_cents, delivered_at)
SELECT 'generation_jobs', gen_random_uuid()::text, 1, 'main', 'replicate', 1, 'replicate', 'a', 'm',
       'finished', 1, 1, now()
  FROM generate_series(1, $1)
"""


@pytest.mark.parametrize("name", ["calls_of_jobs", "paid_lately"])
async def test_no_statement_reads_the_whole_ledger(ledger: Ledger, name: str) -> None:
    await ledger.connection.execute(LEDGER, 60_000)
    await ledger.connection.execute("ANALYZE rowmill.submissions")
    keys = [
        r[0]
        for r in await ledger.connection.fetch(
            "SELECT row_key FROM rowmill.submissions ORDER BY id DESC LIMIT 2000"
        )
    ]
    second = keys if name == "calls_of_jobs" else "replicate"
    plan = await ledger.connection.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {stored_query(name)}", JOBS, second
    )
    read = [
        node
        for node in nodes(json.loads(plan)[0]["Plan"])
        if "submissions" in str(node.get("Relation Name"))
    ]
    assert read
    assert {node["Node Type"] for node in read} <= {
        "Index Scan",
        "Index Only Scan",
        "Bitmap Heap Scan",
    }
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 20_000


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in nodes(child))]
