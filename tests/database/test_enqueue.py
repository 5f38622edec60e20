"""Every way a row comes in; its producer has no right on rowmill, and never fails because of us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.database.platform_samples import project, user
from tests.database.support import (
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    Producer,
    add_background,
    add_texts,
    add_videos,
    new_keys,
    queued,
)

LOWEST, HIGHEST = -(2**31), 2**31 - 1


@pytest.mark.parametrize("table", ["queue", "sources", "workers", "submissions", "lanes"])
async def test_a_producer_has_no_right_on_our_schema(
    both: str, connect: Connect, producer: Producer, table: str
) -> None:
    connection = await connect(both, producer)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(f"SELECT FROM rowmill.{table}")


@pytest.mark.parametrize(
    "call", ["rowmill.promote()", "rowmill.retire(1)", "rowmill.sweep_generation_jobs(1)"]
)
async def test_a_producer_may_call_none_of_our_functions(
    both: str, connect: Connect, producer: Producer, call: str
) -> None:
    connection = await connect(both, producer)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(f"SELECT {call}")


async def test_a_plain_insert_is_an_enqueue(
    both: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    (video,) = await add_videos(connection, service="Runway", priority=8)
    (text,) = await add_texts(connection, of=3)
    (hook,) = await add_background(connection, priority=-2)
    rows = await queued(admin)
    assert list(rows) == [video, text, hook]
    found = {
        key: (r["source_name"], r["lane"], r["rank"], r["state"], r["run"], r["tenant"])
        for key, r in rows.items()
    }
    premium = "e0000000-0000-4000-8000-000000000003"
    assert found == {
        video: ("generation_jobs", "runway", 16 + SUPPORTED, "ready", 1, user(4)),
        text: ("ai_generations", "openai", 12, "ready", 1, premium),
        hook: ("background_jobs", "background:webhook_delivery", 8, "ready", 1, None),
    }


async def test_a_finished_row_that_is_inserted_is_no_job(
    both: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    for status in ("processing", "completed", "failed", "cancelled"):
        await add_background(connection, status=status)
    await add_videos(connection, status="cancelled")
    assert await queued(admin) == {}


async def test_an_enqueue_that_is_rolled_back_is_never_seen(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(photomemory, producer), await connect(photomemory)
    hand = await Hand.hire(await open_store(photomemory))
    transaction = connection.transaction()
    await transaction.start()
    await add_videos(connection, 3)
    assert await hand.claim(10) == []
    await transaction.rollback()
    assert await hand.claim(10) == []
    assert await queued(admin) == {}


async def test_a_savepoint_takes_back_only_its_own_rows(
    photomemory: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection = await connect(photomemory, producer)
    hand = await Hand.hire(await open_store(photomemory))
    async with connection.transaction():
        kept = await add_videos(connection)
        inner = connection.transaction()
        await inner.start()
        await add_videos(connection)
        await inner.rollback()
    assert [c.key for c in await hand.claim(10)] == kept


async def test_a_hundred_thousand_rows_in_one_insert(
    both: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    await connection.execute(
        "INSERT INTO system.background_jobs (job_type, payload, priority)"
        " SELECT 'kind_' || n % 3, '{}', n % 7 FROM generate_series(1, 100000) n"
    )
    assert await admin.fetchval("SELECT count(*) FROM rowmill.queue") == 100_000
    wrong = await admin.fetchval(
        "SELECT count(*) FROM system.background_jobs j"
        " FULL JOIN rowmill.queue q ON q.row_key = j.id::text"
        " WHERE (q.lane, q.rank, q.state, q.run, q.token, q.tries) IS DISTINCT FROM"
        " ('background:' || j.job_type, 10 + j.priority, 'ready', 1, NULL, 0)"
    )
    assert wrong == 0


async def test_copy_is_an_enqueue(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection = await connect(both, producer)
    hand = await Hand.hire(await open_store(both))
    keys = new_keys(50)
    rows = [(key, project(4), user(4), "replicate", 5 + n % 3) for n, key in enumerate(keys)]
    await connection.copy_records_to_table(
        "generation_jobs",
        schema_name="public",
        columns=["id", "project_id", "user_id", "generation_service", "priority"],
        records=rows,
    )
    claims = await hand.claim(100)
    assert {c.key: c.rank for c in claims} == {row[0]: 2 * row[4] + SUPPORTED for row in rows}


async def test_an_upsert_enqueues_what_it_inserts_and_moves_what_it_updates(
    both: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    (known,) = await add_background(connection, priority=0)
    (new,) = new_keys(1)
    await connection.execute(
        "INSERT INTO system.background_jobs (id, job_type, payload, priority)"
        " SELECT unnest($1::uuid[]), 'webhook_delivery', '{}', 4"
        " ON CONFLICT (id) DO UPDATE SET priority = excluded.priority",
        [known, new],
    )
    assert {k: r["rank"] for k, r in (await queued(admin)).items()} == {known: 14, new: 14}


async def test_null_means_the_default(
    both: str, connect: Connect, open_store: OpenStore, producer: Producer
) -> None:
    connection, admin = await connect(both, producer), await connect(both)
    (hook,) = await add_background(
        connection,
        status=None,
        priority=None,
        scheduled_at=None,
        max_retries=None,
        retry_count=None,
    )
    (video,) = await add_videos(connection, priority=None, max_retries=None, retry_count=None)
    rows = await queued(admin)
    assert (rows[hook]["rank"], rows[hook]["state"]) == (10, "ready")
    assert (rows[video]["rank"], rows[video]["state"]) == (10 + SUPPORTED, "ready")
    hand = await Hand.hire(await open_store(both))
    works = {w.key: w for w in await hand.take(10)}
    assert {(w.started.tries, w.started.max_retries) for w in works.values()} == {(0, 3)}
    assert await hand.retry(list(works.values())) == {hook: "settled", video: "settled"}
    spent = {w.key: w.started.tries for w in await hand.take(10)}
    assert spent == {hook: 1, video: 1}


@pytest.mark.parametrize("priority", [LOWEST, -10, -9, 0, 10, 11, HIGHEST])
async def test_any_priority_finds_its_place_on_the_scale(
    ebook: str, connect: Connect, producer: Producer, priority: int
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    (key,) = await add_background(connection, priority=priority)
    rank = (await queued(admin))[key]["rank"]
    assert rank == max(1, min(20, 10 + priority))


FOREVER = ["infinity", "294276-12-31 00:00:00+00", "20000-01-01 00:00:00+00"]
EVER = ["-infinity", "4714-11-24 00:00:00+00 BC", "0001-01-01 00:00:00+00"]


async def add_scheduled(connection: Any, when: str) -> str:
    """As text: Python has no such times."""
    return str(
        await connection.fetchval(
            "INSERT INTO system.background_jobs (job_type, payload, scheduled_at)"
            f" VALUES ('webhook_delivery', '{{}}', '{when}') RETURNING id"
        )
    )


@pytest.mark.parametrize("when", FOREVER)
async def test_a_schedule_at_the_end_of_time_waits(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer, when: str
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    key = await add_scheduled(connection, when)
    assert (await queued(admin))[key]["state"] == "scheduled"
    hand = await Hand.hire(await open_store(ebook))
    assert await hand.claim() == []


@pytest.mark.parametrize("when", EVER)
async def test_a_schedule_at_the_beginning_of_time_runs(
    ebook: str, connect: Connect, open_store: OpenStore, producer: Producer, when: str
) -> None:
    """Such a row must be claimed like any other: a claim that fails stops the whole fleet."""
    connection = await connect(ebook, producer)
    key = await add_scheduled(connection, when)
    hand = await Hand.hire(await open_store(ebook))
    works = await hand.take()
    assert [w.key for w in works] == [key]
    assert await hand.succeed(works) == {key: "settled"}


async def test_a_schedule_is_kept_and_a_past_one_is_ready(
    ebook: str, connect: Connect, producer: Producer
) -> None:
    connection, admin = await connect(ebook, producer), await connect(ebook)
    soon = datetime.now(UTC) + timedelta(hours=1)
    past = datetime.now(UTC) - timedelta(days=400)
    (later,) = await add_background(connection, scheduled_at=soon)
    (now,) = await add_background(connection, scheduled_at=past)
    rows = await queued(admin)
    assert (rows[later]["state"], rows[later]["ready_at"]) == ("scheduled", soon)
    assert (rows[now]["state"], rows[now]["ready_at"]) == ("ready", past)
