"""Operators' acts against claims, starts and settlements that happen at that moment."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.database.platform_samples import run
from tests.database.settling import settlement
from tests.database.support import (
    LANES,
    SUPPORTED,
    Connect,
    Hand,
    OpenStore,
    add_texts,
    add_videos,
    queued,
)
from tests.database.test_settle_races import Fleet
from worker.store import LockTimeout, Store, Unavailable, acts, aims, to_json
from worker.store.acts import Seen
from worker.store.finding import Found

WHO = "ann@desk"
JOBS = "generation_jobs"
WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                  AND wait_event_type = 'Lock' AND query LIKE '%rowmill.act(%')
"""
CLAIM = "SELECT queue_id FROM rowmill.claim($1, 7, $2, 1, NULL, NULL, NULL, NULL)"


async def must_wait(connection: Any, doing: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(30):
        while not await connection.fetchval(WAITS):
            assert not doing.done(), "it has to wait"


@pytest.mark.parametrize(
    ("action", "verdict"),
    [("retry", "running"), ("requeue", "running"), ("cancel", "cancelled"), ("priority", "noted")],
)
async def test_a_claim_that_is_just_being_made(
    photomemory: str, connect: Connect, open_store: OpenStore, action: str, verdict: str
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    claimer, hand = await connect(photomemory), await Hand.hire(store)
    (key,) = await add_videos(connection, priority=5)
    claim = claimer.transaction()
    await claim.start()
    assert await claimer.fetchval(CLAIM, hand.id, list(LANES))
    doing = asyncio.create_task(by(store, action, key))
    await must_wait(connection, doing)
    await claim.commit()
    assert await doing == verdict
    row = (await queued(connection)).get(key)
    if action == "cancel":
        assert row is None, "its worker is told, and can write nothing"
    else:
        assert row is not None
        assert (row["state"], row["token"]) == ("claimed", 7)
        assert row["rank"] == (18 if action == "priority" else 10) + SUPPORTED


async def by(store: Store, action: str, key: str, seen: Seen | None = None) -> str:
    if action == "requeue":
        return await acts.requeue(store, JOBS, key, WHO, seen=seen)
    if action == "priority":
        return (await acts.prioritise(store, JOBS, key, "9", WHO, seen=seen)).verdict
    return await {"retry": acts.retry, "cancel": acts.cancel}[action](store, JOBS, key, WHO, seen)


@pytest.mark.parametrize("action", ["cancel", "priority"])
async def test_a_start_that_is_under_way(
    photomemory: str, connect: Connect, open_store: OpenStore, action: str
) -> None:
    """It has the row: it is waited for, and what is done then is done to a running job."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    starter, hand = await connect(photomemory), await Hand.hire(store)
    (key,) = await add_videos(connection, priority=5)
    (claim,) = await hand.claim()
    start = starter.transaction()
    await start.start()
    started = await starter.fetch(
        f"SELECT verdict FROM rowmill.start_{JOBS}($1, $2, true)", claim.token, [claim.queue_id]
    )
    assert [row["verdict"] for row in started] == ["run"]
    doing = asyncio.create_task(by(store, action, key))
    await must_wait(connection, doing)
    await start.commit()
    assert await doing == {"cancel": "cancelled", "priority": "noted"}[action]
    status = await connection.fetchval(f"SELECT status::text FROM {JOBS}")
    assert status == {"cancel": "cancelled", "priority": "processing"}[action]


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        ("retry", "completed"),
        ("cancel", "completed"),
        ("priority", "completed"),
        ("requeue", "requeued"),
    ],
)
async def test_a_result_that_is_just_being_written(
    photomemory: str, connect: Connect, open_store: OpenStore, action: str, verdict: str
) -> None:
    """It is delivered once, whatever is done; new work is a run of its own."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    settler, hand = await connect(photomemory), await Hand.hire(store)
    (key,) = await add_videos(connection, priority=5)
    (work,) = await hand.take()
    settle = settler.transaction()
    await settle.start()
    said = await settler.fetchval(
        f"SELECT verdict FROM rowmill.settle_{JOBS}($1::jsonb)", to_json([settlement(work).row()])
    )
    assert said == "settled"
    seen = Seen(("ready", "running"))
    strict = asyncio.create_task(by(store, action, key, seen))
    await must_wait(connection, strict)
    doing = asyncio.create_task(by(store, action, key))
    await settle.commit()
    assert await strict == "changed", "it was shown as unfinished"
    assert await doing == verdict
    assert await connection.fetchval("SELECT count(*) FROM public.usage_records") == 1
    assert (await queued(connection)).get(key, {"run": None})["run"] == (
        1 if action == "requeue" else None
    )


async def test_a_rank_is_kept_by_whoever_claims_at_that_moment(
    ebook: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(ebook), await open_store(ebook)
    claimer, hand = await connect(ebook), await Hand.hire(store)
    (key,) = await add_texts(connection)
    claim = claimer.transaction()
    await claim.start()
    assert await claimer.fetchval(CLAIM, hand.id, list(LANES))
    doing = asyncio.create_task(acts.prioritise(store, "ai_generations", key, "20", WHO))
    await must_wait(connection, doing)
    await claim.rollback()
    assert (await doing).verdict == "moved"
    assert (await hand.claim())[0].rank == 20


async def test_whoever_has_the_row_for_long_is_not_waited_for(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    other = await connect(photomemory)
    (key,) = await add_videos(connection)
    # The command's patience is five seconds; a test has less.
    function = await connection.fetchval("SELECT pg_get_functiondef('rowmill.act'::regproc)")
    await run(photomemory, function.replace("'5s'", "'200ms'"))
    async with other.transaction():
        await other.execute(f"SELECT FROM {JOBS} FOR UPDATE")
        with pytest.raises(LockTimeout):
            await acts.cancel(store, JOBS, key, WHO)
    assert await connection.fetchval("SELECT count(*) FROM rowmill.actions") == 0
    assert await acts.cancel(store, JOBS, key, WHO) == "cancelled"


# --------------------------------------------------------------------------- while someone is asked


@pytest.mark.parametrize("became", ["held", "failed", "completed", "queued anew"])
async def test_what_others_did_to_a_job_while_an_operator_was_asked(
    became: str, photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """It was shown as held. Another operator let it go on, and it ran, and perhaps paid, again."""
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    await hand.hold(await hand.take())
    (aim,) = await aims.aims(store, [Found(JOBS, key)])
    seen = aim.seen(("scheduled", "held", "failed", "ready"))
    assert await acts.retry(store, JOBS, key, "bob@desk", seen) == "released"
    works = await hand.take()
    if became == "queued anew":
        await hand.fail(works)
        assert await acts.requeue(store, JOBS, key, "bob@desk") == "requeued"
    else:
        ends = {"held": hand.hold, "failed": hand.fail, "completed": hand.succeed}
        await ends[became](works)
    for action in ("retry", "cancel", "priority", "requeue"):
        assert await by(store, action, key, seen) == "changed"
    said = await connection.fetch("SELECT who FROM rowmill.actions WHERE who = $1", WHO)
    assert said == []


async def test_who_was_shown_a_job_that_waits_or_runs_means_it_all_the_same(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    connection, store = await connect(photomemory), await open_store(photomemory)
    hand = await Hand.hire(store)
    (key,) = await add_videos(connection)
    (aim,) = await aims.aims(store, [Found(JOBS, key)])
    seen = aim.seen(("running", "ready", "scheduled", "held"))
    works = await hand.take()
    assert await by(store, "priority", key, seen) == "noted"
    await hand.retry(works)
    assert await by(store, "cancel", key, seen) == "cancelled"


# --------------------------------------------------------------------------- all at once

WRONG = f"""
SELECT j.id, j.status, d.charges, d.media, d.runs
  FROM {JOBS} j
 CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM usage_records r WHERE r.generation_job_id = j.id) AS charges,
           (SELECT count(*) FROM media_files f
             WHERE f.metadata ->> 'generation_job_id' = j.id::text) AS media,
           (SELECT count(*) FROM rowmill.actions a
             WHERE a.row_key = j.id::text AND a.action = 'requeue'
               AND a.detail ->> 'verdict' = 'requeued'
               AND a.detail -> 'row' ->> 'status' = 'completed')
             + (j.status = 'completed')::integer AS runs) d
 WHERE d.charges <> d.runs
    OR d.media <> least(d.runs, 1)  -- without a paid call each run is the first: one file
    OR (j.status IN ('completed', 'failed', 'cancelled'))
       = EXISTS (SELECT FROM rowmill.queue q WHERE q.row_key = j.id::text)
"""


class Operators:
    def __init__(self, keys: list[str], seed: int) -> None:
        self.keys, self.chance = keys, random.Random(seed)
        self.said: Counter[str] = Counter()

    async def repeat(
        self, store: Store, do: Callable[[Store, str], Awaitable[str]], n: int
    ) -> None:
        for _ in range(n):
            try:
                self.said[await do(store, self.chance.choice(self.keys))] += 1
            except LockTimeout:
                self.said["waited"] += 1
            except Unavailable as error:
                self.said[f"unavailable {error.sqlstate}"] += 1


async def test_operators_and_workers_at_once(
    photomemory: str, connect: Connect, open_store: OpenStore
) -> None:
    """No deadlock; each completion is delivered and charged once, each new run once more."""
    connection = await connect(photomemory)
    keys = [key for n in range(1, 5) for key in await add_videos(connection, 20, of=n)]
    fleet = Fleet([await open_store(photomemory) for _ in range(2)], 1)
    operators = Operators(keys, 1)

    def doing(action: str) -> Callable[[Store, str], Awaitable[str]]:
        return lambda store, key: by(store, action, key)

    async with asyncio.timeout(300):
        await asyncio.gather(
            *[fleet.work(store) for store in fleet.stores],
            *[
                operators.repeat(await open_store(photomemory, 1), doing(action), 60)
                for action in ("priority", "cancel", "requeue", "retry")
            ],
        )
        for store in fleet.stores:  # what was asked for after they had gone home
            await fleet.work(store)
    assert [dict(row) for row in await connection.fetch(WRONG)] == []
    assert "unavailable 40P01" not in operators.said
    assert {"moved", "cancelled", "requeued"} <= set(operators.said)
    recorded = await connection.fetchval("SELECT count(*) FROM rowmill.actions")
    failed = operators.said["waited"] + sum(
        n for said, n in operators.said.items() if said.startswith("unavailable")
    )
    assert recorded == 240 - failed
