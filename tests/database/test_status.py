"""The report of the fleet: counts and estimates, rates, history, money, and its one statement."""

from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from jobs.contract import Failed, FailureKind
from jobs.registry import RetryPolicy
from tests.database.support import (
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_texts,
    add_videos,
    failure,
    fell_silent,
)
from tests.database.test_operators import pay
from worker.store import Store, budgets, gates, reports, upkeep
from worker.store.budgets import OVER_BUDGET
from worker.tallies import Statistics
from worker.transitions import settle

JOBS, WHO = "generation_jobs", "tester@here"

_FILL = """
INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state, note)
SELECT s.id, $1 || $3 || n, $1, 2 * (1 + n % 10), now() - make_interval(secs => n),
       $3::text::rowmill.queue_state, $4
  FROM rowmill.sources s, generate_series(1, $2::integer) n WHERE s.name = 'generation_jobs'
"""


async def fill(
    connection: Any, lane: str, count: int, state: str = "ready", note: str | None = None
) -> None:
    await connection.execute(_FILL, lane, count, state, note)


async def counted(connection: Any, pages: int = 40, exact: int = 100) -> dict[str, Any]:
    rows = await connection.fetch("SELECT * FROM rowmill.counted($1, $2)", pages, exact)
    return {row["lane"]: row for row in rows}


def of_lane(report: dict[str, Any], lane: str) -> dict[str, Any]:
    (found,) = [row for row in report["lanes"] if row["lane"] == lane]
    return dict(found)


# --------------------------------------------------------------------------- counts


async def test_small_numbers_are_exact_and_large_ones_near_whatever_came_and_went(
    photomemory: str, connect: Connect
) -> None:
    """No statistics are gathered here, and nothing is vacuumed: the sample is of what is there."""
    connection = await connect(photomemory)
    await connection.execute("ALTER TABLE rowmill.queue SET (autovacuum_enabled = off)")
    for lane, count in {"a": 100, "b": 4_000, "c": 16_000, "d": 7}.items():
        await fill(connection, lane, count)
    await fill(connection, "c", 90, "held", "why")
    assert await connection.fetchval("SELECT pg_relation_size('rowmill.queue') > 200 * 8192")

    now = await counted(connection)
    assert {lane: row["ready"] for lane, row in now.items() if lane in "ad"} == {"a": 100, "d": 7}
    assert not now["a"]["ready_estimated"]
    assert now["b"]["ready"] == pytest.approx(4_000, rel=0.2)
    assert now["c"]["ready"] == pytest.approx(16_000, rel=0.2)
    assert now["b"]["ready_estimated"]
    assert now["c"]["ready_estimated"]
    assert (now["c"]["held"], now["c"]["held_estimated"]) == (90, False)
    oldest = await connection.fetchval("SELECT min(ready_at) FROM rowmill.queue WHERE lane = 'c'")
    assert now["c"]["oldest"] == oldest

    await connection.execute("DELETE FROM rowmill.queue WHERE lane = 'c' AND state = 'ready'")
    now = await counted(connection)
    assert (now["c"]["ready"], now["c"]["held"], now["a"]["ready"]) == (0, 90, 100)
    assert now["b"]["ready"] == pytest.approx(4_000, rel=0.2)

    await fill(connection, "e", 12_000, "scheduled", OVER_BUDGET)
    await fill(connection, "f", 60, "scheduled")
    now = await counted(connection)
    assert now["e"]["scheduled"] == pytest.approx(12_000, rel=0.2)
    assert now["e"]["over_budget"] == pytest.approx(12_000, rel=0.2)
    assert now["e"]["scheduled_estimated"]
    assert not now["e"]["ready_estimated"]


async def test_many_lanes_share_what_is_counted(photomemory: str, connect: Connect) -> None:
    connection = await connect(photomemory)
    await connection.execute(
        "INSERT INTO rowmill.queue (source, row_key, lane, rank, ready_at, state)"
        " SELECT s.id, n::text, 'lane' || n % 300, 2, now(), 'ready'"
        " FROM rowmill.sources s, generate_series(1, 15000) n WHERE s.name = 'generation_jobs'"
    )
    now = await counted(connection)
    assert {row["ready"] for row in now.values()} == {50}
    assert len(now) == 300
    assert not any(row["ready_estimated"] for row in now.values())


async def test_a_small_queue_is_counted_like_the_view(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 30)
    await add_texts(connection, 20)
    await add_background(connection, 10)
    hand = await Hand.hire(store)
    await hand.hold(await hand.take(4))
    await hand.retry(await hand.take(5), after=60)
    await hand.take(6)
    names = ("lane", "source", "ready", "scheduled", "running", "held")
    view = await connection.fetch(f"SELECT {', '.join(names)} FROM rowmill.backlog")
    told = [tuple(lane[name] for name in names) for lane in await reports.lanes(store)]
    assert sorted(told) == sorted(map(tuple, view))
    exactly = await counted(connection, 1, 1000)
    assert {lane: row["ready"] for lane, row in exactly.items()} == {
        row["lane"]: row["ready"] for row in view
    }


# --------------------------------------------------------------------------- one statement


async def test_the_whole_report_is_one_statement_that_a_reader_may_send(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, store = await connect(both), await open_store(both)
    await add_videos(connection, 3)
    await budgets.set_budget(store, "*", "day", Decimal(100), WHO)
    await connection.execute(
        f"GRANT USAGE ON SCHEMA rowmill TO {producer.name};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA rowmill TO {producer.name}"
    )
    reader = await connect(both, producer)
    await reader.execute("SET default_transaction_read_only = on; SET timezone = 'Asia/Kolkata'")
    sent: list[str] = []

    class Pool:
        async def fetch(self, sql: str, *args: Any) -> Any:
            sent.append(sql)
            return await reader.fetch(sql, *args)

    theirs = await reports.status(Store(Pool(), pooled=False, dsn=both))
    assert len(sent) == 1
    ours = await reports.status(store)
    for part in ("sources", "workers", "providers", "budgets", "unserved", "needs_person"):
        assert theirs[part] == ours[part]
    assert [lane["ready"] for lane in theirs["lanes"]] == [3]
    assert datetime.fromisoformat(theirs["at"]).utcoffset().seconds == 0  # type: ignore[union-attr]
    assert theirs["budgets"] == await budgets.budgets(store)


# --------------------------------------------------------------------------- rates and history


def ended(lane: str, verb: str = "succeed") -> Any:
    class Settled:
        source, duration_ms = JOBS, 5

    settled = Settled()
    settled.lane, settled.verb = lane, verb  # type: ignore[attr-defined]
    return settled


async def test_arrivals_are_those_still_there_and_those_that_came_and_went(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 5)
    await connection.execute(
        "UPDATE rowmill.queue SET enqueued_at = enqueued_at - interval '2 minutes'"
        " WHERE id = (SELECT min(id) FROM rowmill.queue)"
    )
    statistics = Statistics()
    for age in (1.0, 20.0, 59.0, 61.0, None):
        statistics.settled(ended("replicate"), age)
    statistics.settled(ended("replicate", "fail"), 3.0)
    statistics.settled(ended("replicate", "retry"), 3.0)  # it is still there
    await store.add_pulses(statistics.take(1))

    async def rates() -> tuple[int, int]:
        lane = of_lane(await reports.status(store), "replicate")
        return lane["per_minute_in"], lane["per_minute_out"]

    # Of 59 seconds a step of two may be over already when the report is made.
    assert await rates() in {(4 + 4, 6), (4 + 3, 6)}
    await connection.execute("UPDATE rowmill.pulses SET at = at - interval '45 seconds'")
    assert await rates() == (4 + 2, 6)
    await connection.execute("UPDATE rowmill.pulses SET at = at - interval '20 seconds'")
    assert await rates() == (4, 0)


async def test_how_old_a_job_is_when_it_is_claimed(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """Its schedule and earlier tries are part of its age, and not of its wait."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    await connection.execute(
        "UPDATE rowmill.queue SET enqueued_at = now() - interval '1 hour', ready_at = now()"
    )
    (work,) = await (await Hand.hire(store)).take()
    assert work.claimed.age_ms == pytest.approx(3_600_000, abs=60_000)
    assert work.claimed.waited_ms < 60_000


def pulse(**given: Any) -> dict[str, Any]:
    none = dict.fromkeys(("started", "succeeded", "failed", "retried", "yielded"), 0)
    lists = {"waits": [0] * 32, "runs": [0] * 32}
    return {"worker": 1, "source": JOBS, "lane": "replicate", **none, **lists} | given


async def test_the_last_hour_in_parts_of_two_minutes_the_oldest_first(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    waits = [0] * 32
    waits[7] = 10
    for minutes, lane, done in ((0.5, "replicate", 3), (1.5, "openai", 4), (58.5, "replicate", 9)):
        one = pulse(lane=lane, started=10, succeeded=done, failed=1, waits=waits)
        await store.add_pulses([one])
        await connection.execute(
            "UPDATE rowmill.pulses SET at = now() - make_interval(secs => $1::float8 * 60)"
            " WHERE at > now() - interval '20 seconds'",
            minutes,
        )
    report = await reports.status(store)
    history = report["history"]
    assert history["seconds"] == 120
    assert history["started"] == [10, *[0] * 28, 20]
    assert history["succeeded"] == [9, *[0] * 28, 7]
    assert history["failed"] == [1, *[0] * 28, 2]
    assert history["wait_p50_ms"] == [96, *[None] * 28, 96]
    assert of_lane(report, "replicate")["out_history"] == [10, *[0] * 28, 4]
    assert of_lane(report, "openai")["out_history"] == [*[0] * 29, 5]


async def test_condensing_changes_no_report_whoever_else_does_it(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    waits = [0] * 32
    waits[3], waits[9] = 4, 6
    rows = [
        pulse(worker=w, started=10, succeeded=8, failed=1, waits=waits, runs=waits) for w in (1, 2)
    ]
    await store.add_pulses(rows * 300)
    # Every two seconds for twenty minutes, in the middle of the report's parts.
    await connection.execute(
        "WITH n AS (SELECT ctid, 2 * (row_number() OVER () % 30) + 1 AS ago FROM rowmill.pulses)"
        " UPDATE rowmill.pulses p SET at = now() - make_interval(mins => n.ago::integer)"
        " FROM n WHERE n.ctid = p.ctid"
    )
    before = await reports.status(store)
    view = await connection.fetch("SELECT * FROM rowmill.throughput")
    await asyncio.gather(*(upkeep.condense(store) for _ in range(3)))
    assert await connection.fetchval("SELECT count(*) FROM rowmill.pulses") < 60
    after = await reports.status(store)
    for part in ("lanes", "history"):
        assert after[part] == before[part]
    assert after["history"]["started"] == [200] * 30
    assert await connection.fetch("SELECT * FROM rowmill.throughput") == view


# --------------------------------------------------------------------------- money


async def test_todays_spend_is_the_ledgers_also_when_it_was_summed_up(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 4)
    hand = await Hand.hire(store)
    works = await hand.take(4)
    for work in works[:2]:
        await pay(store, hand, work.queue_id, work.token)

    async def spent() -> tuple[str, str]:
        report = await reports.status(store)
        provider = next(p for p in report["providers"] if p["provider"] == "replicate")
        assert provider["open_calls"] == await connection.fetchval(
            "SELECT count(*) FROM rowmill.submissions WHERE state = 'accepted'"
        )
        return of_lane(report, "replicate")["spend_cents_today"], provider["spend_cents_today"]

    await upkeep.sum_up(store)
    assert await connection.fetchval("SELECT count(*) FROM rowmill.spending") == 0, "too young"
    assert await spent() == ("25.0", "25.0")
    # Both are older than a minute (and of today, unless it is just past midnight), one isn't over.
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = greatest(date_trunc('day', now(), 'UTC'),"
        " now() - interval '1 hour')"
    )
    await connection.execute(
        "UPDATE rowmill.submissions SET state = 'accepted', cost_cents = NULL, accepted_at = now(),"
        " ended_at = NULL WHERE id = (SELECT max(id) FROM rowmill.submissions)"
    )
    await upkeep.sum_up(store)
    sums = await connection.fetchval("SELECT sums::text FROM rowmill.spending")
    if sums is None:
        pytest.skip("just past midnight")
    assert await spent() == ("12.5", "12.5")
    await connection.execute("UPDATE rowmill.submissions SET state = 'finished', cost_cents = 7")
    assert await spent() == ("19.5", "19.5"), "one was known, the other has ended since"
    await pay(store, hand, works[2].queue_id, works[2].token)
    assert await spent() == ("32.0", "32.0")

    await connection.execute("UPDATE rowmill.spending SET until = now() - interval '11 minutes'")
    await upkeep.sum_up(store)
    assert await spent() == ("26.5", "26.5"), "a cost that was changed afterwards is seen then"
    await connection.execute("UPDATE rowmill.spending SET since = since - interval '1 day'")
    assert await spent() == ("26.5", "26.5"), "yesterday's sums are nobody's"


async def test_sums_of_a_clock_that_was_put_back_hide_no_spend(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection)
    hand = await Hand.hire(store)
    (work,) = await hand.take()
    await pay(store, hand, work.queue_id, work.token)
    await connection.execute(
        "INSERT INTO rowmill.spending VALUES (true, date_trunc('day', now(), 'UTC'),"
        " now() + interval '1 hour', '[]', '{}')"
    )
    report = await reports.status(store)
    assert of_lane(report, "replicate")["spend_cents_today"] == "12.5"
    await connection.execute(
        "UPDATE rowmill.submissions SET intended_at = now() - interval '2 minutes'"
    )
    await upkeep.sum_up(store)
    if await connection.fetchval(
        "SELECT intended_at < date_trunc('day', now(), 'UTC') FROM rowmill.submissions"
    ):
        pytest.skip("just past midnight")
    assert await connection.fetchval("SELECT until < now() FROM rowmill.spending")


async def test_budgets_that_jobs_wait_for_are_worth_knowing(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await Hand.hire(store)
    await fill(connection, "replicate", 12, "scheduled", OVER_BUDGET)
    await budgets.set_budget(store, "replicate", "month", Decimal(0), WHO)
    await connection.execute("UPDATE rowmill.queue SET state = 'scheduled'")
    report = await reports.status(store)
    (notice,) = report["notices"]
    assert (notice["kind"], notice["subject"]) == ("budget", "lane replicate")
    assert notice["message"].startswith("$0.00 of $0.00 a month are used; 12 jobs wait for more")
    assert notice["commands"] == ["rowmill budget set replicate --month CENTS"]
    assert report["budgets"] == await budgets.budgets(store)
    assert report["needs_person"] == []


# --------------------------------------------------------------------------- who works, who pays


async def test_a_worker_that_is_gone_is_told_of_while_it_holds_jobs(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 3)
    dead, live = await Hand.hire(store), await Hand.hire(store)
    works = await dead.take(2)
    await fell_silent(connection, dead, 700)
    await connection.execute(
        "UPDATE rowmill.workers SET name = 'box-1:4711', host = 'box-1' WHERE id = $1", dead.id
    )
    await connection.execute("UPDATE rowmill.workers SET name = 'mine' WHERE id = $1", live.id)

    async def told() -> dict[str, Any]:
        workers = (await reports.status(store))["workers"]
        return {w["name"]: (w["host"], w["state"], w["claims"]) for w in workers}

    assert await told() == {
        "box-1:4711": ("box-1", "silent", 2),
        "mine": (None, "working", 0),
    }
    await connection.execute("UPDATE rowmill.workers SET stopped_at = now() WHERE id = $1", dead.id)
    assert (await told())["box-1:4711"] == ("box-1", "stopped", 2)
    await connection.execute("DELETE FROM rowmill.workers WHERE id = $1", dead.id)
    assert (await told())["unknown"] == (None, "stopped", 2)
    await dead.succeed(works)
    assert set(await told()) == {"mine"}


async def test_states_of_providers(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await add_videos(connection, 2)
    hand = await Hand.hire(store, ["replicate", "runway", "freepik", "background:x"])
    (work, _) = await hand.take(2)
    await pay(store, hand, work.queue_id, work.token)
    await hand.write([hand_failed(work)])
    await connection.execute(
        "UPDATE rowmill.submissions SET state = 'failed', error = 'no such key',"
        ' result = \'{"kind": "auth"}\''
    )
    await gates.pause(store, lane="runway", who=WHO, reason="moving")
    await store.slow("freepik", "*", 30.0, None)
    report = await reports.status(store)
    states = {p["provider"]: p["state"] for p in report["providers"]}
    assert states == {"replicate": "broken", "runway": "paused", "freepik": "rate used up"}
    replicate = next(p for p in report["providers"] if p["provider"] == "replicate")
    assert replicate["failed_last_hour"] == 1
    (need,) = report["needs_person"]
    assert (need["kind"], need["subject"]) == ("provider", "provider replicate")
    assert "auth: no such key" in need["message"]
    assert need["commands"] == ["rowmill providers", "rowmill resume replicate"]
    (paused,) = [p for p in report["providers"] if p["provider"] == "runway"]
    assert paused["why"] == f"lane runway is paused by {WHO}: moving"
    assert of_lane(report, "runway")["paused_by"] == WHO

    await connection.execute("UPDATE rowmill.submissions SET state = 'finished'")
    report = await reports.status(store)
    assert {p["state"] for p in report["providers"] if p["provider"] == "replicate"} == {"ok"}
    assert report["needs_person"] == []


def hand_failed(work: Any) -> Any:
    failed = Failed(failure("no such key", FailureKind.AUTH))
    return settle(failed, work.as_try(), policy=RetryPolicy(), max_yields=1, chance=0)


async def test_what_nobody_serves(both: str, connect: Connect, open_store: OpenStore) -> None:
    connection, store = await connect(both), await open_store(both)
    await Hand.hire(store, ["replicate"])
    await add_background(connection, 2, kind="embed_content")
    await add_texts(connection, 3)
    await add_videos(connection, 4)
    await connection.execute(
        'UPDATE rowmill.sources SET unserved = \'{"background:embed_content": "no vectors"}\''
        " WHERE name = 'background_jobs'"
    )
    await gates.pause(store, lane="openai", who=WHO)
    told = (await reports.status(store))["unserved"]
    assert [
        (r["source"], r["lane"], r["kind"], r["waiting"], r["paused"], r["why"]) for r in told
    ] == [
        (
            "background_jobs",
            "background:embed_content",
            "background:embed_content",
            2,
            False,
            "no vectors",
        ),
        ("ai_generations", "openai", None, 3, True, None),
    ]


async def test_many_unresolved_calls_are_told_by_five_and_the_others_counted(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    await connection.execute(
        "INSERT INTO rowmill.submissions (source, row_key, run, step, lane, worker, provider,"
        " account, model, state, estimate_cents, intended_at) SELECT 'generation_jobs', n::text, 1,"
        " 'main', 'replicate', 1, 'replicate', 'a', 'm', 'unknown', 5, now() - interval '1 hour'"
        " FROM generate_series(1, 40) n"
    )
    needs = (await reports.status(store))["needs_person"]
    assert [item["kind"] for item in needs] == ["unresolved_payment"] * 6
    assert (needs[5]["subject"], needs[5]["commands"]) == ("35 more", ["rowmill reconcile"])


async def test_narrowed_to_a_lane_or_a_table(
    both: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(both), await open_store(both)
    await Hand.hire(store, ["replicate"])
    await add_texts(connection, 3)
    await add_videos(connection, 4)
    for lane in ("*", "openai", "replicate"):
        await budgets.set_budget(store, lane, "day", Decimal(100), WHO)
    report = await reports.status(store)
    one = reports.narrowed(report, lane="openai")
    assert [budget["lane"] for budget in one["budgets"]] == ["*", "openai"]
    assert [lane["lane"] for lane in one["lanes"]] == ["openai"]
    assert (one["workers"], one["providers"]) == ([], [])
    assert one["needs_person"] == report["needs_person"]
    one = reports.narrowed(report, source=JOBS)
    assert [lane["lane"] for lane in one["lanes"]] == ["replicate"]
    assert [source["source"] for source in one["sources"]] == [JOBS]
    assert len(one["workers"]) == 1
    assert reports.narrowed(report) == report
